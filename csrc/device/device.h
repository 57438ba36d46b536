// Where memory lives and work runs.
#pragma once

#include <string>
#include <string_view>

namespace quantloom::device {

enum class DeviceType { cpu, cuda };

struct Device {
  DeviceType type = DeviceType::cpu;
  int index = 0;  // which GPU; 0 on the CPU

  bool operator==(const Device&) const = default;
};

// "cpu", "cuda" (the first GPU) or "cuda:N". Errors: invalid_argument for any other text.
Device parse_device(std::string_view text);
std::string to_string(const Device& device);

}  // namespace quantloom::device
