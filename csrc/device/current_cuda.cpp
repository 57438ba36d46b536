#if defined(QUANTLOOM_WITH_CUDA)

#include <cuda.h>

#include <array>
#include <atomic>
#include <mutex>
#include <utility>

#include "device/cuda_call.h"

namespace quantloom::device {

namespace {

static_assert(int{CUDA_ERROR_OUT_OF_MEMORY} == int{cudaErrorMemoryAllocation} &&
                  int{CUDA_ERROR_ILLEGAL_ADDRESS} == int{cudaErrorIllegalAddress} &&
                  int{CUDA_ERROR_UNKNOWN} == int{cudaErrorUnknown},
              "the runtime's errors have the driver's numbers");

cudaError_t runtime_error(CUresult status) { return static_cast<cudaError_t>(status); }

// Found through the runtime, so that nothing links the driver.
template <class Function>
Function entry_point(const char* name, int index) {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
  check(cudaGetDriverEntryPointByVersion(name, &found, 12000, cudaEnableDefault, &result),
        "cudaGetDriverEntryPointByVersion", index);
  if (result != cudaDriverEntryPointSuccess) check(cudaErrorSymbolNotFound, name, index);
  return reinterpret_cast<Function>(found);
}

struct Driver {
  decltype(&cuDeviceGet) get_device;
  decltype(&cuDevicePrimaryCtxRetain) retain;
  decltype(&cuCtxPushCurrent) push;
  decltype(&cuCtxPopCurrent) pop;
};

// `index` is the GPU that an error names.
const Driver& driver(int index = 0) {
  static const Driver found{
      entry_point<decltype(Driver::get_device)>("cuDeviceGet", index),
      entry_point<decltype(Driver::retain)>("cuDevicePrimaryCtxRetain", index),
      entry_point<decltype(Driver::push)>("cuCtxPushCurrent", index),
      entry_point<decltype(Driver::pop)>("cuCtxPopCurrent", index)};
  return found;
}

// The contexts that this process retained. They are never released: tensors that Python frees at
// interpreter exit still need theirs.
std::array<std::atomic<CUcontext>, max_devices> contexts{};

CUcontext context_of(int index) {
  std::atomic<CUcontext>& slot = contexts[static_cast<std::size_t>(index)];
  if (const CUcontext context = slot.load(std::memory_order_acquire)) return context;
  static std::mutex& mutex = *new std::mutex;
  const std::lock_guard lock(mutex);
  if (const CUcontext context = slot.load(std::memory_order_acquire)) return context;
  CUdevice device = 0;
  CUcontext context = nullptr;
  check(runtime_error(driver(index).get_device(&device, index)), "cuDeviceGet", index);
  const CUresult status = faults::fails(faults::Point::cuda_call)
                              ? CUDA_ERROR_OPERATING_SYSTEM
                              : driver(index).retain(&context, device);
  check(runtime_error(status), "cuDevicePrimaryCtxRetain", index);
  slot.store(context, std::memory_order_release);
  return context;
}

thread_local int innermost = -1;

}  // namespace

CurrentDevice::CurrentDevice(const Device& device) {
  require_alive(device.index);
  const CUcontext context = context_of(device.index);
  check(runtime_error(driver(device.index).push(context)), "cuCtxPushCurrent", device.index);
  pushed_ = true;
  outer_ = std::exchange(innermost, device.index);
}

CurrentDevice::CurrentDevice(const Device& device, std::nothrow_t) noexcept {
  if (forked_after_cuda() || poisoned(device.index)) return;
  const CUcontext context =
      contexts[static_cast<std::size_t>(device.index)].load(std::memory_order_acquire);
  if (context == nullptr || driver().push(context) != CUDA_SUCCESS) return;
  pushed_ = true;
  outer_ = std::exchange(innermost, device.index);
}

CurrentDevice::~CurrentDevice() {
  if (!pushed_) return;
  innermost = outer_;
  CUcontext ours = nullptr;
  static_cast<void>(driver().pop(&ours));
}

int CurrentDevice::index() { return innermost; }

void with_current(const Device& device, const std::function<void()>& work) {
  require_usable(device);
  if (device.type == DeviceType::cpu) return work();
  const CurrentDevice current(device);
  work();
}

}  // namespace quantloom::device

#endif
