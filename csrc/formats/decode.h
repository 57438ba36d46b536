// From blocks to float32. Bit for bit what ggml's dequantization and the gguf package give,
// whatever the bytes; only the payload of a NaN may differ.
#pragma once

#include <cstdint>

#include "formats/format.h"
#include "formats/list.h"

namespace quantloom::formats {

// One value from its integer view.
template <class F>
QL_HOST_DEVICE inline float decode_quant(Affine affine, std::int8_t q) {
  const float product = multiply(affine.scale, static_cast<float>(q));
  if constexpr (F::has_offset) {
    return add(product, affine.offset);
  } else {
    return product;  // no + 0, which would turn -0 into 0
  }
}

// out[0..7] = weights 8k .. 8k + 7 of a quantized block.
template <class F>
QL_HOST_DEVICE inline void decode8(const typename F::Block& block, int k, float out[8]) {
  std::int8_t q[8];
  F::quants8(block, k, q);
  const Affine affine = F::affine(block, k / (F::group / 8));
  for (int i = 0; i < 8; ++i) out[i] = decode_quant<F>(affine, q[i]);
}

// out[0 .. F::elements - 1] = the weights of a block, of any format in the list.
template <class F>
QL_HOST_DEVICE inline void decode_block(const typename F::Block& block, float* out) {
  if constexpr (F::quantized) {
    for (int g = 0; g < F::elements / F::group; ++g) {
      const Affine affine = F::affine(block, g);
      for (int k = g * (F::group / 8); k < (g + 1) * (F::group / 8); ++k) {
        std::int8_t q[8];
        F::quants8(block, k, q);
        for (int i = 0; i < 8; ++i) out[8 * k + i] = decode_quant<F>(affine, q[i]);
      }
    }
  } else {
    *out = F::decode(block);
  }
}

// out[0 .. elements - 1] from blocks of `format`, which may lie at any address. `elements` is a
// multiple of the format's elements per block.
// Returns false, with nothing written, for a format that is not in the list or a part of a block.
[[nodiscard]] bool decode_row(Format format, const void* blocks, std::int64_t elements, float* out);

}  // namespace quantloom::formats
