#include "device/runtime.h"

#include "base/error.h"

#if !defined(QUANTLOOM_WITH_CUDA)

#include <cstring>

namespace quantloom::device {

namespace {

[[noreturn]] void refuse() { throw Error(ErrorKind::device, cuda_status().reason, "device"); }

}  // namespace

bool built_with_cuda() { return false; }

const CudaStatus& cuda_status() {
  static const CudaStatus status = [] {
    CudaStatus s;
    s.reason =
        "this build of quantloom has no CUDA part; where the CUDA toolkit 13 is, install it again "
        "in its folder with pip install . --config-settings=cmake.define.QUANTLOOM_CUDA=ON";
    return s;
  }();
  return status;
}

std::vector<DeviceInfo> cuda_devices() { refuse(); }
DeviceInfo cuda_device(int /*index*/) { refuse(); }

void require_usable(const Device& device) {
  if (device.type == DeviceType::cuda) refuse();
}

bool has_kernels_for(const Device& /*device*/) { return false; }
bool forked_after_cuda() { return false; }
bool poisoned(int /*index*/) { return false; }

Stream compute_stream(const Device& device) {
  require_usable(device);
  return nullptr;
}

void with_current(const Device& device, const std::function<void()>& work) {
  require_usable(device);
  work();
}

void synchronize(const Device& device) { require_usable(device); }
void synchronize(const Device& device, Stream /*stream*/) { require_usable(device); }
void order(const Device& device, Stream /*earlier*/, Stream /*later*/) { require_usable(device); }

OwnedStream::OwnedStream(const Device& device) : device_(device) { refuse(); }
OwnedStream::~OwnedStream() = default;
void OwnedStream::drain() noexcept {}

Event::Event(const Device& device, Waits /*waits*/) : device_(device) { refuse(); }
Event::~Event() = default;
void Event::record(Stream /*stream*/) { refuse(); }
void Event::wait_on(Stream /*stream*/) const { refuse(); }
void Event::synchronize() const { refuse(); }
bool Event::done() const { refuse(); }

void copy(void* to, const Device& to_device, const void* from, const Device& from_device,
          std::size_t bytes, Stream /*stream*/) {
  require_usable(to_device);
  require_usable(from_device);
  if (bytes > 0) std::memcpy(to, from, bytes);
}

void fill_zero(void* to, const Device& device, std::size_t bytes, Stream /*stream*/) {
  require_usable(device);
  if (bytes > 0) std::memset(to, 0, bytes);
}

Counters counters() { return {}; }
bool debug_launches() { return false; }

}  // namespace quantloom::device

#endif
