// The check for NaN and Inf in the scales of quantized blocks (a damaged or hostile file).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "formats/types.h"
#include "gguf/file.h"

namespace quantloom::loader {

// Index of the first block in [first_block, first_block + block_count) whose scale or minimum (for
// F32, F16 and BF16: whose value) is NaN or Inf, or so large that a weight could be. Callers can
// divide a tensor among threads by blocks.
// `bytes` are the whole tensor's. nullopt for types that are not served (TypeState).
std::optional<std::uint64_t> find_non_finite(const formats::TypeInfo& type,
                                             std::span<const std::byte> bytes,
                                             std::uint64_t first_block, std::uint64_t block_count);

// Errors: gguf naming the tensor, its type, and the byte offset of block `block` in its file.
[[noreturn]] void fail_non_finite(const gguf::TensorInfo& tensor, std::uint64_t block);

// Scans the whole tensor. Errors: as fail_non_finite.
void require_finite(const gguf::TensorInfo& tensor, std::span<const std::byte> bytes);

}  // namespace quantloom::loader
