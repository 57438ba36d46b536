#include "loader/scan.h"

#include <algorithm>
#include <bit>
#include <string>
#include <type_traits>

#include "base/cursor.h"
#include "base/error.h"
#include "base/quote.h"
#include "formats/list.h"

namespace quantloom::loader {
namespace {

constexpr std::uint32_t float_exponent = 0x7F800000u;

// The exponent bits, all ones in NaN and Inf, of a format that is one value per block.
template <class F>
constexpr auto exponent_bits() {
  if constexpr (F::format == formats::Format::f32) return float_exponent;
  if constexpr (F::format == formats::Format::f16) return std::uint16_t{0x7C00};
  if constexpr (F::format == formats::Format::bf16) return std::uint16_t{0x7F80};
}

bool is_finite(float value) {
  return (std::bit_cast<std::uint32_t>(value) & float_exponent) != float_exponent;
}

template <class F>
bool block_is_finite(const std::byte* source) {
  if constexpr (F::quantized) {
    // In every format the factors that can be NaN or Inf are shared by all groups of a block, and
    // even times a group scale of 0 they give NaN: group 0 tells for all.
    // MXFP4's scales reach 2^127, so that the largest quant can overflow: it is multiplied in.
    constexpr float largest = std::max(-int{F::minimum_quant}, int{F::maximum_quant});
    const auto block = load_unaligned<typename F::Block>(source);
    const formats::Affine affine = F::affine(block, 0);
    return is_finite(affine.scale * largest) && is_finite(affine.offset);
  } else {
    constexpr auto exponent = exponent_bits<F>();
    return (load_unaligned<std::remove_const_t<decltype(exponent)>>(source) & exponent) != exponent;
  }
}

// Strides without a branch inside, which the compiler vectorizes; then the exact place.
template <class F>
std::optional<std::uint64_t> scan(const std::byte* source, std::uint64_t first, std::uint64_t end) {
  constexpr std::uint64_t stride = F::quantized ? 64 : 1024;
  while (first < end) {
    const std::uint64_t stop = first + std::min(stride, end - first);
    std::uint8_t bad = 0;
    for (std::uint64_t i = first; i < stop; ++i) {
      bad |= static_cast<std::uint8_t>(not block_is_finite<F>(source + i * F::bytes));
    }
    if (bad != 0) {
      while (block_is_finite<F>(source + first * F::bytes)) ++first;
      return first;
    }
    first = stop;
  }
  return std::nullopt;
}

}  // namespace

std::optional<std::uint64_t> find_non_finite(const formats::TypeInfo& type,
                                             std::span<const std::byte> bytes,
                                             std::uint64_t first_block, std::uint64_t block_count) {
  if (type.state != formats::TypeState::served) return std::nullopt;
  const std::uint64_t blocks = bytes.size() / type.bytes;
  const std::uint64_t first = std::min(first_block, blocks);
  const std::uint64_t end = first + std::min(block_count, blocks - first);
  return formats::visit_format(
      static_cast<formats::Format>(type.id),
      [&](auto format) { return scan<decltype(format)>(bytes.data(), first, end); },
      [] { return std::optional<std::uint64_t>(); });
}

void fail_non_finite(const gguf::TensorInfo& tensor, std::uint64_t block) {
  const std::uint64_t offset = tensor.offset + block * tensor.type->bytes;
  throw Error(ErrorKind::gguf,
              "tensor " + in_quotes(tensor.name) + " (" + tensor.type->name +
                  ") has NaN or Inf in block " + std::to_string(block) + " at byte " +
                  std::to_string(offset),
              tensor.name, offset);
}

void require_finite(const gguf::TensorInfo& tensor, std::span<const std::byte> bytes) {
  const std::uint64_t blocks = tensor.elements / tensor.type->elements;
  if (const auto block = find_non_finite(*tensor.type, bytes, 0, blocks)) {
    fail_non_finite(tensor, *block);
  }
}

}  // namespace quantloom::loader
