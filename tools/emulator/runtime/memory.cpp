// Device memory is host memory that a Device's memory knows: what no allocation holds, or one of
// another device, is an illegal address.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <set>

#include "runtime/context.h"
#include "runtime/streams.h"

using namespace quantloom::emulator;

namespace {

constexpr std::size_t alignment = 512;
// Fresh memory reads as NaN in every floating point type, so that what relies on zeros fails; only
// the first bytes of a large allocation, which would otherwise take memory that nothing ever
// touches.
constexpr int poison = 0xff;
constexpr std::size_t most_poisoned = 256u << 20;

std::size_t rounded(std::size_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }

struct Allocation {
  Device* device;
  std::size_t bytes;  // taken
};

struct Allocations {
  std::mutex mutex;
  std::map<void*, Allocation> device;
  std::set<void*> host;
};

Allocations& allocations() {
  static Allocations* const instance = new Allocations;
  return *instance;
}

void* fresh(std::size_t bytes) {
  void* memory = std::aligned_alloc(alignment, rounded(bytes));
  if (memory == nullptr) return nullptr;
  std::memset(memory, poison, std::min(bytes, most_poisoned));
  return memory;
}

bool on_device(const Device& device, const void* memory, std::size_t bytes) {
  const auto address = reinterpret_cast<std::uintptr_t>(memory);
  const Memory::Range range = device.memory.find(address);
  return range.begin != range.end && bytes <= range.end - address;
}

// Copies find the device by the address.
bool on_a_device(const void* memory, std::size_t bytes) {
  for (int i = 0; i < settings().devices; ++i) {
    if (on_device(device_at(i), memory, bytes)) return true;
  }
  return false;
}

cudaError_t refuse(const std::string& what) {
  say(what);
  return cudaErrorInvalidValue;
}

// Where host and device lie side by side, the direction says which pointer has to be the device's.
cudaError_t check_copy(const void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind) {
  const std::string size = std::to_string(bytes) + " bytes";
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if (kind < cudaMemcpyHostToHost || kind > cudaMemcpyDefault)
    return cudaErrorInvalidMemcpyDirection;
  if (to_device && !on_a_device(to, bytes))
    return refuse("copy to the device: no allocation holds its " + size);
  if (from_device && !on_a_device(from, bytes)) {
    return refuse("copy from the device: no allocation holds its " + size);
  }
  return cudaSuccess;
}

cudaError_t copy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind,
                 cudaStream_t stream) {
  if (bytes == 0) return cudaSuccess;
  if (const cudaError_t status = check_copy(to, from, bytes, kind); status != cudaSuccess)
    return status;
  return submit(stream, On::any_device, [=] {
    std::memmove(to, from, bytes);
    return cudaSuccess;
  });
}

cudaError_t set(void* to, int value, std::size_t bytes, cudaStream_t stream) {
  if (bytes == 0) return cudaSuccess;
  if (!on_device(current_device(), to, bytes)) {
    return refuse("cudaMemset: no allocation holds its " + std::to_string(bytes) + " bytes");
  }
  return submit(stream, On::current_device, [=] {
    std::memset(to, value, bytes);
    return cudaSuccess;
  });
}

// What waits for the device is forbidden under capture.
template <typename Body>
cudaError_t blocking(Body body) {
  return answer(Calls::work, [&] {
    const cudaError_t status = refuse_under_capture();
    return status == cudaSuccess ? body() : status;
  });
}

}  // namespace

extern "C" {

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  return blocking([&] {
    *memory = nullptr;
    if (bytes == 0) return cudaSuccess;
    Device& device = current_device();
    Allocations& all = allocations();
    const std::lock_guard lock(all.mutex);
    if (bytes > settings().memory || rounded(bytes) > settings().memory - device.used.load()) {
      return cudaErrorMemoryAllocation;
    }
    void* made = fresh(bytes);
    if (made == nullptr) return cudaErrorMemoryAllocation;
    device.memory.add(made, bytes);
    all.device[made] = {&device, rounded(bytes)};
    device.used += rounded(bytes);
    *memory = made;
    return cudaSuccess;
  });
}

cudaError_t cudaFree(void* memory) {
  return blocking([&] {
    if (memory == nullptr) return cudaSuccess;
    Allocations& all = allocations();
    const std::lock_guard lock(all.mutex);
    const auto found = all.device.find(memory);
    if (found == all.device.end()) return refuse("cudaFree of what cudaMalloc did not give");
    found->second.device->used -= found->second.bytes;
    found->second.device->memory.remove(memory);
    all.device.erase(found);
    std::free(memory);
    return cudaSuccess;
  });
}

// Pinned memory is every device's too: addresses are unified.
cudaError_t cudaHostAlloc(void** memory, size_t bytes, unsigned /*flags*/) {
  return blocking([&] {
    *memory = nullptr;
    if (bytes == 0) return cudaSuccess;
    Allocations& all = allocations();
    const std::lock_guard lock(all.mutex);
    void* made = fresh(bytes);
    if (made == nullptr) return cudaErrorMemoryAllocation;
    add_to_all(made, bytes);
    all.host.insert(made);
    *memory = made;
    return cudaSuccess;
  });
}

cudaError_t cudaMallocHost(void** memory, size_t bytes) {
  return cudaHostAlloc(memory, bytes, cudaHostAllocDefault);
}

cudaError_t cudaFreeHost(void* memory) {
  return blocking([&] {
    if (memory == nullptr) return cudaSuccess;
    Allocations& all = allocations();
    const std::lock_guard lock(all.mutex);
    if (all.host.erase(memory) == 0)
      return refuse("cudaFreeHost of what cudaHostAlloc did not give");
    remove_from_all(memory);
    std::free(memory);
    return cudaSuccess;
  });
}

cudaError_t cudaMemGetInfo(size_t* free_bytes, size_t* total) {
  return answer(Calls::work, [&] {
    *total = settings().memory;
    *free_bytes = settings().memory - current_device().used.load();
    return cudaSuccess;
  });
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return blocking([&] { return copy(to, from, bytes, kind, nullptr); });
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  return answer(Calls::work, [&] { return copy(to, from, bytes, kind, stream); });
}

cudaError_t cudaMemcpyPeerAsync(void* to, int to_device, const void* from, int from_device,
                                size_t bytes, cudaStream_t stream) {
  return answer(Calls::work, [&] {
    const int devices = settings().devices;
    if (to_device < 0 || to_device >= devices || from_device < 0 || from_device >= devices) {
      return cudaErrorInvalidDevice;
    }
    if (bytes != 0 && (!on_device(device_at(to_device), to, bytes) ||
                       !on_device(device_at(from_device), from, bytes))) {
      return refuse("cudaMemcpyPeerAsync: the devices do not hold its " + std::to_string(bytes) +
                    " bytes");
    }
    return copy(to, from, bytes, cudaMemcpyDeviceToDevice, stream);
  });
}

cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  return answer(Calls::work, [&] { return set(to, value, bytes, nullptr); });
}

cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  return answer(Calls::work, [&] { return set(to, value, bytes, stream); });
}

}  // extern "C"
