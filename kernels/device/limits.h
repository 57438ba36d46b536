// What kernels are chosen by, of the current device.
#pragma once

namespace quantloom::kernels {

inline constexpr int most_devices = 64;  // of a process that are used

struct DeviceLimits {
  int capability = 0;  // 90 is Hopper
  int processors = 0;
  int shared_bytes = 0;  // that one block can have
};

// False where CUDA does not tell, and beyond most_devices. Asked once per device: an attribute
// costs a microsecond.
bool device_limits(DeviceLimits& limits);

}  // namespace quantloom::kernels
