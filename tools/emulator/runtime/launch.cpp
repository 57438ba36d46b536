// Launches: what a launch may ask, and the run itself.
#include <cuda_runtime_api.h>
#include <cxxabi.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "runtime/context.h"
#include "runtime/fat_binaries.h"
#include "runtime/streams.h"

using namespace quantloom::emulator;

namespace {

constexpr unsigned most_block_threads = 1024;
constexpr unsigned most_cluster_blocks = 8;  // portable

struct Request {
  Device* device = nullptr;
  const Entry* entry = nullptr;
  const Kernel* kernel = nullptr;
  Dim3 grid, block, cluster;
  std::size_t shared = 0;
  bool cooperative = false;
};

std::uint64_t product(const Dim3& d) { return std::uint64_t{d.x} * d.y * d.z; }

Dim3 dimensions(const dim3& d) { return {d.x, d.y, d.z}; }

std::uint64_t resident_blocks(const Request& request) {
  const std::uint64_t threads = (product(request.block) + 31) / 32 * 32;
  const std::size_t shared =
      request.kernel->static_shared_bytes() + request.shared + shared_reserved_bytes;
  const std::uint64_t each = std::min<std::uint64_t>({processor_threads / threads,
                                                      settings().shared_processor_bytes / shared,
                                                      std::uint64_t{processor_blocks}});
  return each * static_cast<std::uint64_t>(settings().processors);
}

cudaError_t check_cluster(const Request& request) {
  const Dim3 &grid = request.grid, &cluster = request.cluster;
  const std::uint64_t blocks = product(cluster);
  if (blocks == 1) return cudaSuccess;
  if (blocks == 0 || blocks > most_cluster_blocks) return cudaErrorInvalidClusterSize;
  if (grid.x % cluster.x != 0 || grid.y % cluster.y != 0 || grid.z % cluster.z != 0) {
    return cudaErrorInvalidClusterSize;
  }
  return cudaSuccess;
}

cudaError_t check(const Request& request) {
  const Dim3 &grid = request.grid, &block = request.block;
  if (product(grid) == 0 || grid.x > 2147483647u || grid.y > 65535 || grid.z > 65535) {
    return cudaErrorInvalidConfiguration;
  }
  if (product(block) == 0 || block.x > 1024 || block.y > 1024 || block.z > 64 ||
      product(block) > most_block_threads) {
    return cudaErrorInvalidConfiguration;
  }
  if (product(block) > static_cast<std::uint64_t>(request.kernel->maximum_threads())) {
    return cudaErrorInvalidValue;
  }
  if (request.shared > dynamic_shared_limit(*request.entry, *request.kernel, *request.device))
    return cudaErrorInvalidValue;
  if (const cudaError_t status = check_cluster(request); status != cudaSuccess) return status;
  if (request.cooperative && product(grid) > resident_blocks(request))
    return cudaErrorCooperativeLaunchTooLarge;
  return cudaSuccess;
}

std::string readable(const std::string& name) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> text(
      abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status), std::free);
  return status == 0 ? text.get() : name;
}

std::string text_of(const Dim3& d) {
  return std::to_string(d.x) + "," + std::to_string(d.y) + "," + std::to_string(d.z);
}

void trace(const Request& request, const Statistics& statistics, double milliseconds) {
  char time[32];
  std::snprintf(time, sizeof time, "%.2f ms", milliseconds);
  std::string text = readable(request.kernel->name()) + " grid " + text_of(request.grid) +
                     " block " + text_of(request.block);
  if (product(request.cluster) > 1) text += " cluster " + text_of(request.cluster);
  if (request.cooperative) text += " cooperative";
  text += " shared " + std::to_string(request.kernel->static_shared_bytes() + request.shared);
  say(text + ": " + std::to_string(statistics.warp_instructions) + " warp instructions, " + time);
}

// One kernel at a time has the machine, as host threads are few.
cudaError_t run_now(const Request& request, const void* parameters) {
  if (request.device->faulted()) return cudaSuccess;
  static std::mutex& machine = *new std::mutex;
  const std::lock_guard lock(machine);
  Launch launch;
  launch.kernel = request.kernel;
  launch.grid = request.grid;
  launch.block = request.block;
  launch.cluster = request.cluster;
  launch.dynamic_shared_bytes = request.shared;
  launch.cooperative = request.cooperative;
  launch.parameters = parameters;
  Statistics statistics;
  const auto begin = std::chrono::steady_clock::now();
  const std::optional<Fault> fault = run(launch, request.device->memory, &statistics);
  const std::chrono::duration<double, std::milli> spent = std::chrono::steady_clock::now() - begin;
  if (settings().trace) trace(request, statistics, spent.count());
  if (fault.has_value()) keep_fault(*request.device, *fault);
  return cudaSuccess;
}

// Parameters are copied here: a graph launches them later. Tensor maps among them need 64-byte
// alignment.
std::shared_ptr<std::byte> copy_parameters(const Kernel& kernel, void** arguments) {
  constexpr std::size_t alignment = 128;
  const std::size_t bytes = (kernel.parameter_bytes() + alignment) / alignment * alignment;
  std::shared_ptr<std::byte> copied(static_cast<std::byte*>(std::aligned_alloc(alignment, bytes)),
                                    std::free);
  std::memset(copied.get(), 0, bytes);
  const std::vector<Parameter>& parameters = kernel.parameters();
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    std::memcpy(copied.get() + parameters[i].offset, arguments[i], parameters[i].bytes);
  }
  return copied;
}

cudaError_t launch(Request request, void** arguments, cudaStream_t stream) {
  if (const cudaError_t status = check(request); status != cudaSuccess) return status;
  return submit(stream, On::current_device,
                [request, parameters = copy_parameters(*request.kernel, arguments)] {
                  return run_now(request, parameters.get());
                });
}

cudaError_t find(const void* function, Request& request) {
  request.device = &current_device();
  request.entry = entry_of(function);
  return request.entry == nullptr ? cudaErrorInvalidDeviceFunction
                                  : load(*request.entry, request.kernel);
}

cudaError_t read_attributes(const cudaLaunchConfig_t& config, Request& request) {
  for (unsigned i = 0; i < config.numAttrs; ++i) {
    const cudaLaunchAttribute& attribute = config.attrs[i];
    switch (attribute.id) {
      case cudaLaunchAttributeIgnore:
        break;
      // A kernel never starts before the one ahead of it has ended.
      case cudaLaunchAttributeProgrammaticStreamSerialization:
        break;
      case cudaLaunchAttributeCooperative:
        request.cooperative = attribute.val.cooperative != 0;
        break;
      case cudaLaunchAttributeClusterDimension:
        request.cluster = {attribute.val.clusterDim.x, attribute.val.clusterDim.y,
                           attribute.val.clusterDim.z};
        break;
      default:
        say("launch attribute " + std::to_string(attribute.id) + " is not known");
        return cudaErrorNotSupported;
    }
  }
  return cudaSuccess;
}

struct Configuration {
  dim3 grid, block;
  std::size_t shared = 0;
  cudaStream_t stream = nullptr;
};
thread_local std::vector<Configuration> configurations;

}  // namespace

extern "C" {

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared,
                                     struct CUstream_st* stream) {
  configurations.push_back({grid, block, shared, stream});
  return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  if (configurations.empty()) return set_last_error(cudaErrorMissingConfiguration);
  const Configuration& top = configurations.back();
  *grid = top.grid;
  *block = top.block;
  *shared = top.shared;
  *static_cast<cudaStream_t*>(stream) = top.stream;
  configurations.pop_back();
  return cudaSuccess;
}

cudaError_t cudaLaunchKernel(const void* function, dim3 grid, dim3 block, void** arguments,
                             size_t shared, cudaStream_t stream) {
  return answer(Calls::launch, [&] {
    Request request;
    if (const cudaError_t status = find(function, request); status != cudaSuccess) return status;
    request.grid = dimensions(grid);
    request.block = dimensions(block);
    request.shared = shared;
    return launch(request, arguments, stream);
  });
}

cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments,
                               size_t shared, cudaStream_t stream) {
  return cudaLaunchKernel(kernel, grid, block, arguments, shared, stream);
}

cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* function,
                                void** arguments) {
  return answer(Calls::launch, [&] {
    Request request;
    if (const cudaError_t status = find(function, request); status != cudaSuccess) return status;
    request.grid = dimensions(config->gridDim);
    request.block = dimensions(config->blockDim);
    request.shared = config->dynamicSmemBytes;
    if (const cudaError_t status = read_attributes(*config, request); status != cudaSuccess)
      return status;
    return launch(request, arguments, config->stream);
  });
}

cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
  return answer(Calls::work, [&] {
    Request request;
    if (const cudaError_t status = find(function, request); status != cudaSuccess) return status;
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) {
      say("cudaFuncSetAttribute: attribute " + std::to_string(attribute) + " is not known");
      return cudaErrorNotSupported;
    }
    if (value < 0) return cudaErrorInvalidValue;
    return limit_dynamic_shared(*request.entry, *request.kernel, *request.device,
                                static_cast<std::size_t>(value));
  });
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* function) {
  return answer(Calls::work, [&] {
    Request request;
    if (const cudaError_t status = find(function, request); status != cudaSuccess) return status;
    *attributes = {};
    attributes->sharedSizeBytes = request.kernel->static_shared_bytes();
    attributes->localSizeBytes = request.kernel->local_bytes();
    attributes->maxThreadsPerBlock = request.kernel->maximum_threads();
    attributes->ptxVersion = attributes->binaryVersion = 90;
    attributes->maxDynamicSharedSizeBytes =
        static_cast<int>(dynamic_shared_limit(*request.entry, *request.kernel, *request.device));
    return cudaSuccess;
  });
}

}  // extern "C"
