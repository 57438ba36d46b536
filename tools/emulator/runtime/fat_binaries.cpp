#include "runtime/fat_binaries.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <unordered_map>

#include "runtime/context.h"

namespace quantloom::emulator {

namespace {

constexpr std::uint32_t wrapper_magic = 0x466243b1;
constexpr std::uint32_t container_magic = 0xba55ed50;
constexpr std::uint16_t kind_ptx = 1;
constexpr std::uint64_t flag_compressed = 0x2000 | 0x8000;  // LZ4, Zstandard

struct Wrapper {
  std::uint32_t magic, version;
  const std::byte* container;
  void* file;
};

struct ContainerHeader {
  std::uint32_t magic;
  std::uint16_t version, header_bytes;
  std::uint64_t bytes;  // behind the header
};

struct EntryHeader {
  std::uint16_t kind, version;
  std::uint32_t header_bytes;
  std::uint64_t bytes;  // behind the header
  std::uint32_t compressed_bytes, options_at;
  std::uint16_t minor, major;
  std::uint32_t architecture, name_at, name_bytes;
  std::uint64_t flags;
};
static_assert(sizeof(EntryHeader) == 48);

std::string_view ptx_of(const std::byte* container) {
  ContainerHeader header;
  std::memcpy(&header, container, sizeof header);
  if (header.magic != container_magic) throw std::runtime_error("a fat binary has no container");
  const std::byte* at = container + header.header_bytes;
  const std::byte* end = at + header.bytes;
  while (at < end) {
    EntryHeader entry;
    std::memcpy(&entry, at, sizeof entry);
    if (entry.kind == kind_ptx) {
      if ((entry.flags & flag_compressed) != 0) {
        throw std::runtime_error(
            "a fat binary's PTX is compressed; compile with nvcc --no-compress");
      }
      const auto* text = reinterpret_cast<const char*>(at + entry.header_bytes);
      return {text, strnlen(text, entry.bytes)};
    }
    at += entry.header_bytes + entry.bytes;
  }
  throw std::runtime_error("a fat binary has no PTX; compile for code=compute_90a");
}

}  // namespace

struct Binary {
  const Wrapper* wrapper = nullptr;
  std::mutex mutex;
  std::unique_ptr<Module> module;
  std::string failure;
};

struct Entry {
  Binary* binary = nullptr;
  std::string name;
  mutable std::atomic<const Kernel*> kernel{nullptr};
  // By device, as set; 0 where it was not.
  mutable std::array<std::atomic<std::size_t>, most_devices> dynamic_shared{};
};

namespace {

struct Registry {
  std::mutex mutex;
  std::unordered_map<const void*, std::unique_ptr<Entry>> entries;  // by stub
  std::unordered_map<const void*, const Entry*> handles;            // by entry
};

Registry& registry() {
  static Registry* const instance = new Registry;
  return *instance;
}

void parse(Binary& binary) {
  if (binary.module != nullptr || !binary.failure.empty()) return;
  try {
    binary.module = std::make_unique<Module>(ptx_of(binary.wrapper->container));
    for (int i = 0; i < most_devices; ++i) {
      binary.module->register_variables(device_at(i).memory);
    }
  } catch (const std::exception& error) {
    binary.failure = error.what();
    say("PTX: " + binary.failure);
  }
}

}  // namespace

const Entry* entry_of(const void* function) {
  Registry& all = registry();
  const std::lock_guard lock(all.mutex);
  if (const auto found = all.entries.find(function); found != all.entries.end())
    return found->second.get();
  const auto found = all.handles.find(function);
  return found != all.handles.end() ? found->second : nullptr;
}

cudaError_t load(const Entry& entry, const Kernel*& kernel) {
  kernel = entry.kernel.load();
  if (kernel != nullptr) return cudaSuccess;
  const std::lock_guard lock(entry.binary->mutex);
  parse(*entry.binary);
  if (entry.binary->module == nullptr) return cudaErrorInvalidPtx;
  kernel = entry.binary->module->kernel(entry.name);
  if (kernel == nullptr) {
    say("the PTX has no kernel " + entry.name);
    return cudaErrorInvalidDeviceFunction;
  }
  entry.kernel.store(kernel);
  return cudaSuccess;
}

std::size_t dynamic_shared_limit(const Entry& entry, const Kernel& kernel, const Device& device) {
  const std::size_t set = entry.dynamic_shared[static_cast<std::size_t>(device.index)].load();
  if (set != 0) return set;
  return shared_default_bytes - std::min(kernel.static_shared_bytes(), shared_default_bytes);
}

cudaError_t limit_dynamic_shared(const Entry& entry, const Kernel& kernel, const Device& device,
                                 std::size_t bytes) {
  if (bytes + kernel.static_shared_bytes() > shared_optin_bytes()) return cudaErrorInvalidValue;
  entry.dynamic_shared[static_cast<std::size_t>(device.index)].store(bytes);
  return cudaSuccess;
}

}  // namespace quantloom::emulator

using namespace quantloom::emulator;

extern "C" {

// These run while the program loads.
void** __cudaRegisterFatBinary(void* wrapper) {
  auto* binary = new Binary;
  binary->wrapper = static_cast<const Wrapper*>(wrapper);
  if (binary->wrapper->magic != wrapper_magic)
    binary->failure = "a fat binary's wrapper is not known";
  return reinterpret_cast<void**>(binary);
}

void __cudaRegisterFatBinaryEnd(void** /*binary*/) {}

// Kernels live on: an object that outlives static destructors may still launch one.
void __cudaUnregisterFatBinary(void** /*binary*/) {}

char __cudaInitModule(void** /*binary*/) { return 1; }

void __cudaRegisterFunction(void** binary, const char* stub, char* /*function*/, const char* name,
                            int /*threads*/, uint3* /*thread*/, uint3* /*block*/,
                            dim3* /*block_size*/, dim3* /*grid_size*/, int* /*warp_size*/) {
  Registry& all = registry();
  const std::lock_guard lock(all.mutex);
  auto& slot = all.entries[stub];
  slot = std::make_unique<Entry>();
  slot->binary = reinterpret_cast<Binary*>(binary);
  slot->name = name;
  all.handles[slot.get()] = slot.get();
}

// Kernels find their variables by name in the PTX; the host's calls that take a symbol are not
// emulated.
void __cudaRegisterVar(void** /*binary*/, char* /*host*/, char* /*device*/, const char* /*name*/,
                       int /*external*/, size_t /*bytes*/, int /*constant*/, int /*global*/) {}

cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* stub) {
  const Entry* entry = entry_of(stub);
  *kernel = reinterpret_cast<cudaKernel_t>(const_cast<Entry*>(entry));
  return entry != nullptr ? cudaSuccess : cudaErrorInvalidDeviceFunction;
}

}  // extern "C"
