// What nvcc's host stubs register: PTX modules, kernels by the address of their stub.
#pragma once

#include <cuda_runtime_api.h>

#include "machine.h"
#include "runtime/devices.h"

namespace quantloom::emulator {

// A registered kernel. Its module is parsed when it is first asked for.
struct Entry;

const Entry* entry_of(
    const void* function);  // a stub's address or a cudaKernel_t; null where there is none
cudaError_t load(const Entry& entry, const Kernel*& kernel);

// cudaFuncAttributeMaxDynamicSharedMemorySize, which each device has for itself.
std::size_t dynamic_shared_limit(const Entry& entry, const Kernel& kernel, const Device& device);
cudaError_t limit_dynamic_shared(const Entry& entry, const Kernel& kernel, const Device& device,
                                 std::size_t bytes);

}  // namespace quantloom::emulator
