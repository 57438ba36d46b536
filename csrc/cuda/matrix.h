// A single quantized matrix on one GPU: into planes, back into blocks, and multiplied.
#pragma once

#include <cstddef>
#include <cstdint>

#include "device/tensor.h"
#include "ops/operations.h"

namespace quantloom::cuda {

// Bytes of the planes of a matrix; 0 for float formats, which have none.
std::size_t planes_bytes(formats::Format format, std::int64_t rows, std::int64_t columns);

// Blocks [rows, columns], contiguous, to `planes`, bytes of that size on the same GPU, and back.
void pack(const device::Tensor& blocks, const device::Tensor& planes);
void unpack(const device::Tensor& planes, const device::Tensor& blocks);

// Whether multiply() reads x and writes out in these types, of f32, f16 and bf16; f32 it always
// does.
bool multiplies(const device::Device& device, formats::Format x, formats::Format out,
                std::int64_t tokens, const ops::Weight& weight, ops::Precision precision);

// out [tokens, rows] = x [tokens, columns] times the transpose of `weight`, from planes where it
// has them. Both are contiguous, lie on 16 bytes and are of types that it multiplies(). Runs on the
// device's compute stream; its workspace is of the pool and goes back to it. Errors: device,
// out_of_memory.
void multiply(const device::Tensor& x, std::int64_t tokens, const ops::Weight& weight,
              ops::Precision precision, const device::Tensor& out);

}  // namespace quantloom::cuda
