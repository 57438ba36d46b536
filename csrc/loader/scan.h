// The check for NaN and Inf in the scales of quantized blocks (a damaged or hostile file).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "gguf/file.h"

namespace quantloom::loader {

// Index of the first block whose scale or minimum (or, for F32, F16, BF16 and F64, whose value) is
// NaN or Inf. Reads only the blocks in [first_block, first_block + block_count), so that callers
// can divide a tensor among threads. `bytes` are the tensor's. nullopt for integer types.
std::optional<std::uint64_t> find_non_finite(const formats::TypeInfo& type,
                                             std::span<const std::byte> bytes,
                                             std::uint64_t first_block, std::uint64_t block_count);

// The whole tensor. Errors: gguf naming the tensor and the byte offset of the block in its file.
void require_finite(const gguf::TensorInfo& tensor, std::span<const std::byte> bytes);

}  // namespace quantloom::loader
