#if defined(QUANTLOOM_WITH_CUDA)

#include <pthread.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <thread>

#include "base/error.h"
#include "device/cuda_call.h"
#include "device/memory.h"
#include "device/query.h"
#include "device/runtime.h"

namespace quantloom::device {

namespace {

// Never destroyed: tensors that Python frees at interpreter exit still look here.
struct State {
  std::atomic<bool> forked{false};
  std::array<std::atomic<bool>, max_devices> poisoned{};
  std::mutex mutex;
  std::array<std::string, max_devices> fault;
  std::array<std::atomic<Stream>, max_devices> streams{};
  std::array<std::atomic<std::uint64_t>, 7> counts{};
};

State& state() {
  static State* const instance = new State;
  return *instance;
}

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

CudaStatus probe() {
  CudaStatus status;
  cudaRuntimeGetVersion(&status.runtime_version);
  cudaDriverGetVersion(&status.driver_version);
  const cudaError_t answer = cudaGetDeviceCount(&status.devices);
  cudaGetLastError();
  if (answer == cudaSuccess && status.devices > 0) {
    status.available = true;
    status.devices = status.devices < max_devices ? status.devices : max_devices;
    pthread_atfork(nullptr, nullptr, [] { state().forked.store(true); });
    return status;
  }
  status.devices = 0;
  if (status.driver_version == 0) {
    status.reason = "no NVIDIA driver was found on this machine (libcuda.so.1)";
  } else if (answer == cudaErrorInsufficientDriver) {
    status.reason = "the NVIDIA driver is too old: it supports CUDA " +
                    version_text(status.driver_version) + " and this build needs CUDA " +
                    version_text(status.runtime_version);
  } else if (answer == cudaErrorNoDevice || answer == cudaSuccess) {
    status.reason = "the NVIDIA driver finds no GPU (is CUDA_VISIBLE_DEVICES set?)";
  } else {
    status.reason = std::string("CUDA did not start: ") + cudaGetErrorString(answer) + " (" +
                    cudaGetErrorName(answer) + ")";
  }
  return status;
}

constexpr const char* forked_here =
    "this process was forked from one that had started CUDA; start it with the multiprocessing "
    "method 'spawn'";

// Faults after which the CUDA context answers every call with the same error.
bool is_sticky(cudaError_t status) {
  switch (status) {
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorUnknown:
      return true;
    default:
      return false;
  }
}

int current_index() { return std::max(CurrentDevice::index(), 0); }

[[noreturn]] void fail(cudaError_t status, const std::string& what, int index) {
  cudaGetLastError();
  const std::string name = "cuda:" + std::to_string(index);
  std::string message = name + ": " + what + " failed: " + cudaGetErrorString(status) + " (" +
                        cudaGetErrorName(status) + ")";
  if (status == cudaErrorMemoryAllocation) throw Error(ErrorKind::out_of_memory, message, name);
  if (is_sticky(status)) {
    {
      const std::lock_guard lock(state().mutex);
      if (state().fault[index].empty()) state().fault[index] = message;
    }
    state().poisoned[index].store(true);
    if (!debug_launches()) {
      message += "; an earlier kernel faulted, and QUANTLOOM_DEBUG=1 names it";
    }
  }
  throw Error(ErrorKind::device, message, name);
}

bool has_image(int index) {
  static std::array<std::atomic<bool>, max_devices> checked_before{};
  if (checked_before[index].load(std::memory_order_acquire)) return true;
  const CurrentDevice current({DeviceType::cuda, index});
  const cudaError_t image = faults::fails(faults::Point::cuda_call) ? cudaErrorOperatingSystem
                                                                    : kernels::query_kernel_image();
  if (image == cudaErrorNoKernelImageForDevice || image == cudaErrorInvalidDeviceFunction) {
    return false;
  }
  check(image, "cudaFuncGetAttributes");
  checked_before[index].store(true, std::memory_order_release);
  return true;
}

void require_there(const Device& device) {
  require_alive(device.index);
  const std::string name = to_string(device);
  const CudaStatus& status = cuda_status();
  if (!status.available) {
    throw Error(ErrorKind::device, name + " cannot be used: " + status.reason, "device");
  }
  if (device.index < 0 || device.index >= status.devices) {
    throw Error(ErrorKind::device,
                name + " is not there: this machine has " + std::to_string(status.devices) +
                    (status.devices == 1 ? " GPU" : " GPUs"),
                "device", std::nullopt, static_cast<std::uint64_t>(status.devices - 1));
  }
}

}  // namespace

bool built_with_cuda() { return true; }

const CudaStatus& cuda_status() {
  static const CudaStatus status = probe();
  if (!forked_after_cuda()) return status;
  static const CudaStatus forked = [] {
    CudaStatus none = status;
    none.available = false, none.devices = 0, none.reason = forked_here;
    return none;
  }();
  return forked;
}

std::vector<DeviceInfo> cuda_devices() {
  if (!cuda_status().available) throw Error(ErrorKind::device, cuda_status().reason, "device");
  std::vector<DeviceInfo> devices;
  for (int index = 0; index < cuda_status().devices; ++index) {
    try {
      devices.push_back(cuda_device(index));
    } catch (const Error&) {  // whoever uses it is told
    }
  }
  return devices;
}

DeviceInfo cuda_device(int index) {
  cudaDeviceProp properties;
  const cudaError_t status = faults::fails(faults::Point::cuda_call)
                                 ? cudaErrorOperatingSystem
                                 : cudaGetDeviceProperties(&properties, index);
  check(status, "cudaGetDeviceProperties", index);
  return {index,
          properties.name,
          properties.major,
          properties.minor,
          properties.multiProcessorCount,
          properties.totalGlobalMem,
          static_cast<std::size_t>(properties.l2CacheSize)};
}

bool forked_after_cuda() { return state().forked.load(std::memory_order_relaxed); }

bool poisoned(int index) {
  return index >= 0 && index < max_devices && state().poisoned[index].load();
}

void require_usable(const Device& device) {
  if (device.type == DeviceType::cpu) return;
  require_there(device);
  if (has_image(device.index)) return;
  const DeviceInfo info = cuda_device(device.index);
  throw Error(ErrorKind::device,
              to_string(device) + " is a " + info.name + " of compute capability " +
                  std::to_string(info.capability_major) + "." +
                  std::to_string(info.capability_minor) +
                  ", which this build's kernels were not compiled for; set QUANTLOOM_CUDA_ARCHS "
                  "and build again",
              "device");
}

bool has_kernels_for(const Device& device) {
  require_there(device);
  return has_image(device.index);
}

void require_alive(int index) {
  if (!forked_after_cuda() && !poisoned(index)) return;
  const std::string name = "cuda:" + std::to_string(index);
  if (forked_after_cuda()) {
    throw Error(ErrorKind::device, name + " cannot be used here: " + forked_here, "device");
  }
  const std::lock_guard lock(state().mutex);
  throw Error(ErrorKind::device,
              name + " cannot be used any more in this process after a fault (" +
                  state().fault[index] + "); start the process again",
              "device");
}

void check(cudaError_t status, const char* call) { check(status, call, current_index()); }

void check(cudaError_t status, const char* call, int index) {
  if (status != cudaSuccess) fail(status, call, index);
}

void count(Counted what) {
  state().counts[static_cast<std::size_t>(what)].fetch_add(1, std::memory_order_relaxed);
}

Counters counters() {
  const auto at = [](Counted what) {
    return state().counts[static_cast<std::size_t>(what)].load(std::memory_order_relaxed);
  };
  return {at(Counted::launch),           at(Counted::host_to_device), at(Counted::device_to_host),
          at(Counted::device_to_device), at(Counted::allocation),     at(Counted::free),
          at(Counted::synchronization)};
}

bool debug_launches() {
  static const bool on = [] {
    const char* value = std::getenv("QUANTLOOM_DEBUG");
    return value != nullptr && *value != '\0' && std::strcmp(value, "0") != 0;
  }();
  return on;
}

void launch_check(const char* kernel, std::initializer_list<Shape> shapes, Stream stream,
                  cudaError_t status, std::span<const char* const> tensors) {
  count(Counted::launch);
  if (faults::fails(faults::Point::cuda_call)) status = cudaErrorOperatingSystem;
  if (status == cudaSuccess && !debug_launches()) return;
  std::string what = kernel;
  const char* separator = " of '";
  for (const char* tensor : tensors) {
    what += separator;
    what += tensor;
    what += '\'';
    separator = ", '";
  }
  separator = " (";
  for (const Shape& shape : shapes) {
    what += separator;
    what += shape.name;
    what += '=';
    what += std::to_string(shape.value);
    separator = ", ";
  }
  if (shapes.size() > 0) what += ')';
  if (status != cudaSuccess) fail(status, "the launch of " + what, current_index());
  cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
  check(cudaStreamIsCapturing(stream, &capture), "cudaStreamIsCapturing");
  const auto begin = std::chrono::steady_clock::now();
  const bool waits = capture == cudaStreamCaptureStatusNone;
  if (waits) status = cudaStreamSynchronize(stream);
  const std::chrono::duration<double, std::micro> spent = std::chrono::steady_clock::now() - begin;
  std::fprintf(stderr, "quantloom: %s: %s, %.0f us\n", what.c_str(),
               waits ? cudaGetErrorName(status) : "captured", spent.count());
  if (status != cudaSuccess) fail(status, "kernel " + what, current_index());
}

Stream compute_stream(const Device& device) {
  require_usable(device);
  if (device.type == DeviceType::cpu) return nullptr;
  std::atomic<Stream>& slot = state().streams[device.index];
  if (const Stream stream = slot.load(std::memory_order_acquire)) return stream;
  const CurrentDevice current(device);
  Stream made = nullptr;
  QUANTLOOM_CUDA_CALL(cudaStreamCreateWithFlags, &made, cudaStreamNonBlocking);
  Stream stream = nullptr;
  if (slot.compare_exchange_strong(stream, made, std::memory_order_acq_rel)) return made;
  cudaStreamDestroy(made);  // another thread was first
  return stream;
}

namespace {

// CUDA refuses to wait for a device while a thread records a graph on it, and breaks the recording,
// which then ends within milliseconds (cuda/replay.cpp).
cudaError_t wait_for_device() {
  constexpr auto pause = std::chrono::milliseconds(1);
  constexpr int most_refusals = 10000;
  cudaError_t status = cudaDeviceSynchronize();
  for (int i = 0; status == cudaErrorStreamCaptureUnsupported and i < most_refusals; ++i) {
    cudaGetLastError();
    std::this_thread::sleep_for(pause);
    status = cudaDeviceSynchronize();
  }
  return status;
}

}  // namespace

void synchronize(const Device& device) {
  require_usable(device);
  if (device.type == DeviceType::cpu) return;
  const CurrentDevice current(device);
  count(Counted::synchronization);
  cudaError_t status = cudaErrorOperatingSystem;
  if (not faults::fails(faults::Point::cuda_call)) status = wait_for_device();
  check(status, "cudaDeviceSynchronize");
}

void synchronize(const Device& device, Stream stream) {
  require_usable(device);
  if (device.type == DeviceType::cpu) return;
  const CurrentDevice current(device);
  count(Counted::synchronization);
  QUANTLOOM_CUDA_CALL(cudaStreamSynchronize, stream);
}

void order(const Device& device, Stream earlier, Stream later) {
  if (device.type == DeviceType::cpu || earlier == later) return;
  Event event(device);
  event.record(earlier);
  event.wait_on(later);
}

OwnedStream::OwnedStream(const Device& device) : device_(device) {
  require_usable(device);
  const CurrentDevice current(device);
  QUANTLOOM_CUDA_CALL(cudaStreamCreateWithFlags, &stream_, cudaStreamNonBlocking);
}

OwnedStream::~OwnedStream() {
  if (stream_ == nullptr) return;
  const CurrentDevice current(device_, std::nothrow);
  if (!current) return;
  cudaStreamSynchronize(stream_);
  forget_stream(device_, stream_);
  cudaStreamDestroy(stream_);
}

void OwnedStream::drain() noexcept {
  if (const CurrentDevice current(device_, std::nothrow); current) cudaStreamSynchronize(stream_);
}

Event::Event(const Device& device, Waits waits) : device_(device) {
  require_usable(device);
  const CurrentDevice current(device);
  const unsigned sleeps = waits == Waits::sleeping ? cudaEventBlockingSync : cudaEventDefault;
  QUANTLOOM_CUDA_CALL(cudaEventCreateWithFlags, &event_, cudaEventDisableTiming | sleeps);
}

Event::~Event() {
  if (event_ == nullptr) return;
  if (const CurrentDevice current(device_, std::nothrow); current) cudaEventDestroy(event_);
}

void Event::record(Stream stream) {
  const CurrentDevice current(device_);
  QUANTLOOM_CUDA_CALL(cudaEventRecord, event_, stream);
}

void Event::wait_on(Stream stream) const {
  const CurrentDevice current(device_);
  QUANTLOOM_CUDA_CALL(cudaStreamWaitEvent, stream, event_, 0u);
}

void Event::synchronize() const {
  const CurrentDevice current(device_);
  count(Counted::synchronization);
  QUANTLOOM_CUDA_CALL(cudaEventSynchronize, event_);
}

bool Event::done() const {
  const CurrentDevice current(device_);
  // No point of injected faults: how often a wait asks depends on the time it takes.
  const cudaError_t status = cudaEventQuery(event_);
  if (status == cudaErrorNotReady) return false;
  check(status, "cudaEventQuery");
  return true;
}

}  // namespace quantloom::device

#endif
