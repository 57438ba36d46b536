// Weights from the mapped file to one GPU: repacked into planes behind the copy where a kernel
// multiplies them, as they stand in the file otherwise.
#pragma once

#include <cstdint>
#include <span>

#include "device/runtime.h"
#include "ops/operations.h"

namespace quantloom::cuda {

// Bytes that the weight takes on the GPU.
std::uint64_t placed_bytes(const ops::Weight& weight);

// As Operations::place(). The weights share one buffer, in their order, each on 256 bytes.
ops::Buffer place(const device::Device& device, device::Stream stream,
                  std::span<ops::Weight* const> weights, const ops::Progress& progress);

}  // namespace quantloom::cuda
