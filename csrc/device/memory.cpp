#include "device/memory.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <limits>
#include <mutex>

#include "base/error.h"
#include "base/faults.h"

#if defined(QUANTLOOM_WITH_CUDA)
#include "device/cuda_call.h"
#endif

namespace quantloom::device {

namespace {

constexpr std::size_t host_alignment = 64;

Buffer allocate_host(std::size_t bytes, const char* what) {
  const bool fits = bytes <= std::numeric_limits<std::size_t>::max() - host_alignment;
  const std::size_t rounded = (bytes / host_alignment + 1) * host_alignment;
  void* memory = !fits || faults::fails(faults::Point::host_allocation)
                     ? nullptr
                     : std::aligned_alloc(host_alignment, rounded);
  if (memory == nullptr) {
    const long pages = sysconf(_SC_AVPHYS_PAGES);
    const long page = sysconf(_SC_PAGESIZE);
    const auto free_bytes =
        static_cast<std::uint64_t>(pages > 0 ? pages : 0) * static_cast<std::uint64_t>(page);
    throw Error(ErrorKind::out_of_memory,
                std::string(what) + " needs " + std::to_string(bytes) +
                    " bytes of host memory; about " + std::to_string(free_bytes) + " are free",
                what, std::nullopt, free_bytes);
  }
  return Buffer(memory, [](void* pointer) { std::free(pointer); });
}

#if defined(QUANTLOOM_WITH_CUDA)

class CudaBackend final : public PoolBackend {
 public:
  explicit CudaBackend(int index) : device_{DeviceType::cuda, index} {}

  void* allocate(std::size_t bytes) override {
    const CurrentDevice current(device_);
    void* memory = nullptr;
    count(Counted::allocation);
    const cudaError_t status = faults::fails(faults::Point::cuda_call) ? cudaErrorMemoryAllocation
                                                                       : cudaMalloc(&memory, bytes);
    if (status == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      return nullptr;
    }
    check(status, "cudaMalloc");
    return memory;
  }

  void release(void* memory) noexcept override {
    const CurrentDevice current(device_, std::nothrow);
    if (!current) return;
    count(Counted::free);
    if (cudaFree(memory) != cudaSuccess) cudaGetLastError();
  }

  CUevent_st* record(Stream stream) noexcept override {
    const CurrentDevice current(device_, std::nothrow);
    if (!current) return nullptr;
    cudaEvent_t event = nullptr;
    {
      const std::lock_guard lock(mutex_);
      if (!events_.empty()) {
        event = events_.back();
        events_.pop_back();
      }
    }
    const bool fails = faults::fails(faults::Point::cuda_call);
    const bool made =
        event != nullptr || cudaEventCreateWithFlags(&event, cudaEventDisableTiming) == cudaSuccess;
    if (made && (fails || cudaEventRecord(event, stream) != cudaSuccess)) {
      cudaEventDestroy(event);
      event = nullptr;
    }
    cudaGetLastError();
    return event;
  }

  void wait(Stream stream, CUevent_st* event) override {
    const CurrentDevice current(device_);
    QUANTLOOM_CUDA_CALL(cudaStreamWaitEvent, stream, event, 0u);
  }

  void recycle(CUevent_st* event) noexcept override {
    const std::lock_guard lock(mutex_);
    events_.push_back(event);
  }

  void synchronize() override { device::synchronize(device_); }

  std::size_t free_bytes() override { return memory_info().first; }
  std::size_t total_bytes() override { return memory_info().second; }
  std::string name() const override { return to_string(device_); }
  bool usable() const noexcept override { return !forked_after_cuda() && !poisoned(device_.index); }

 private:
  std::pair<std::size_t, std::size_t> memory_info() noexcept {
    std::size_t free = 0;
    std::size_t total = 0;
    const CurrentDevice current(device_, std::nothrow);
    if (current && cudaMemGetInfo(&free, &total) != cudaSuccess) cudaGetLastError();
    return {free, total};
  }

  Device device_;
  std::mutex mutex_;
  std::vector<cudaEvent_t> events_;
};

// Never destroyed: the last tensors may go after static destructors have run.
Pool& pool(const Device& device) {
  static std::mutex mutex;
  static auto& pools = *new std::array<Pool*, max_devices>{};
  const std::lock_guard lock(mutex);
  Pool*& slot = pools[static_cast<std::size_t>(device.index)];
  if (slot == nullptr) slot = new Pool(*new CudaBackend(device.index));
  return *slot;
}

#else

Pool& pool(const Device& device) {
  require_usable(device);
  throw Error(ErrorKind::device, to_string(device) + " has no memory pool", "device");
}

#endif

Pool& usable_pool(const Device& device) {
  if (device.type == DeviceType::cpu) {
    throw Error(ErrorKind::invalid_argument, "the memory pool is that of a GPU; 'cpu' has none",
                "device");
  }
  require_usable(device);
  return pool(device);
}

}  // namespace

Buffer allocate(const Device& device, std::size_t bytes, Stream stream, const char* what) {
  if (device.type == DeviceType::cpu) return allocate_host(bytes, what);
  Pool& from = usable_pool(device);
  return Buffer(from.allocate(bytes, stream, what),
                [&from](void* memory) { from.release(memory); });
}

Buffer allocate(const Device& device, std::size_t bytes, const char* what) {
  return allocate(device, bytes, compute_stream(device), what);
}

#if defined(QUANTLOOM_WITH_CUDA)

Buffer allocate_pinned(const Device& device, std::size_t bytes, const char* what) {
  require_usable(device);
  const CurrentDevice current(device);
  void* memory = nullptr;
  const cudaError_t status =
      faults::fails(faults::Point::host_allocation)
          ? cudaErrorMemoryAllocation
          : cudaHostAlloc(&memory, std::max<std::size_t>(bytes, 1), cudaHostAllocPortable);
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();
    throw Error(ErrorKind::out_of_memory,
                std::string("the host has no pinned memory for ") + what + ": " +
                    std::to_string(bytes) + " bytes asked",
                what);
  }
  check(status, "cudaHostAlloc");
  return Buffer(memory, [device](void* pointer) {
    if (const CurrentDevice current(device, std::nothrow); current) cudaFreeHost(pointer);
  });
}

#else

Buffer allocate_pinned(const Device& device, std::size_t /*bytes*/, const char* /*what*/) {
  require_usable(device);
  throw Error(ErrorKind::device, cuda_status().reason, "device");
}

#endif

void mark_shared(const Device& device, void* memory) { usable_pool(device).mark_shared(memory); }

void forget_stream(const Device& device, Stream stream) { pool(device).forget(stream); }

MemoryStatistics memory_statistics(const Device& device) {
  return usable_pool(device).statistics();
}

void set_memory_cap(const Device& device, std::size_t bytes) { usable_pool(device).set_cap(bytes); }
void trim_memory(const Device& device, std::size_t keep) { usable_pool(device).trim(keep); }
void reset_peak_memory(const Device& device) { usable_pool(device).reset_peak(); }

}  // namespace quantloom::device
