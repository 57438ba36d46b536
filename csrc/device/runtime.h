// The CUDA devices of this machine: whether they can be used, what they are, their streams.
// Everything here compiles with and without the CUDA part; without it every use of a GPU is an
// Error.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "device/device.h"

struct CUstream_st;
struct CUevent_st;

namespace quantloom::device {

using Stream = CUstream_st*;  // cudaStream_t without its header

struct DeviceInfo {
  int index = 0;
  std::string name;
  int capability_major = 0;
  int capability_minor = 0;
  int multiprocessors = 0;
  std::size_t total_bytes = 0;
  std::size_t l2_bytes = 0;
};

struct CudaStatus {
  bool available = false;
  std::string reason;  // why not; empty where it is available
  int devices = 0;
  int driver_version = 0;   // highest CUDA version of the driver, such as 13000; 0: no driver
  int runtime_version = 0;  // of the CUDA runtime this build carries; 0: built without CUDA
};

bool built_with_cuda();

// Asks the driver on the first call, then remembers the answer. In a process that was forked after
// CUDA had started there is none.
const CudaStatus& cuda_status();

// Those that answer, in the order of their indices. Errors: device when there is none.
std::vector<DeviceInfo> cuda_devices();

// The one of this index, from 0 to CudaStatus::devices - 1, whatever the others are like. Errors:
// device when it does not answer.
DeviceInfo cuda_device(int index);

// The one gate before any use of a device; the CPU always passes.
// Errors: device saying why: no CUDA part in this build, no driver, no GPU, no such index, a chip
// older than the kernels, a fork after CUDA started, an earlier fault on this device.
void require_usable(const Device& device);

// Whether this build has kernels for the GPU; false without the CUDA part. Errors: device, for
// anything else that is wrong with it.
bool has_kernels_for(const Device& device);

// True in a child of a process that had started CUDA: its context is not usable there, and nothing
// is freed.
bool forked_after_cuda();

// After a fault that the CUDA context does not survive: every later use of the device is refused.
bool poisoned(int index);

// The stream of this process on which tensors of `device` are written. Errors: as require_usable.
Stream compute_stream(const Device& device);

// Calls `work` while the device is current, for other libraries that go by the current one. Errors:
// as require_usable, and what `work` throws.
void with_current(const Device& device, const std::function<void()>& work);

// Waits for everything on the device. Errors: device, also for faults of earlier launches.
void synchronize(const Device& device);
void synchronize(const Device& device, Stream stream);

// Work given to `later` after this call waits for the work given to `earlier` before it.
void order(const Device& device, Stream earlier, Stream later);

// A stream of its own that does not wait for the legacy default stream; waits for its work when
// destroyed.
class OwnedStream {
 public:
  explicit OwnedStream(const Device& device);
  ~OwnedStream();
  OwnedStream(const OwnedStream&) = delete;
  OwnedStream& operator=(const OwnedStream&) = delete;
  Stream get() const { return stream_; }
  void drain() noexcept;  // waits for its work, for destructors: faults show at the next use

 private:
  Device device_;
  Stream stream_ = nullptr;
};

class Event {
 public:
  // How synchronize() waits: spinning answers soonest, sleeping leaves the core to others.
  enum class Waits { spinning, sleeping };
  explicit Event(const Device& device, Waits waits = Waits::spinning);
  ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  void record(Stream stream);
  void wait_on(Stream stream) const;  // the stream waits, not the caller
  void synchronize() const;           // the caller waits
  bool done() const;

 private:
  Device device_;
  CUevent_st* event_ = nullptr;
};

// Bytes between memories of any two devices, in order on `stream` of the GPU among them. Between
// two places on the CPU it is a plain copy. A copy from or to host memory may block unless it is
// allocate_pinned()'s.
void copy(void* to, const Device& to_device, const void* from, const Device& from_device,
          std::size_t bytes, Stream stream);
void fill_zero(void* to, const Device& device, std::size_t bytes, Stream stream);

// What this process asked of the CUDA runtime, for tests.
struct Counters {
  std::uint64_t launches = 0;
  std::uint64_t host_to_device = 0;  // copies
  std::uint64_t device_to_host = 0;
  std::uint64_t device_to_device = 0;
  std::uint64_t allocations = 0;  // of the driver, past the pool
  std::uint64_t frees = 0;
  std::uint64_t synchronizations = 0;
};
Counters counters();

// QUANTLOOM_DEBUG=1: every launch is named on stderr and waited for.
bool debug_launches();

}  // namespace quantloom::device
