// The inverse of the formats' quants8 for those whose planes hold packed integers: writes weights
// 8k .. 8k + 7 into a block that was zeroed before.
#pragma once

#include "formats/list.h"

namespace quantloom::kernels {

// Low nibbles weights 0 .. 15, high nibbles 16 .. 31 of a block of 32.
__device__ inline void store_nibbles32(std::uint8_t* quants, int k, int i, int code) {
  quants[8 * (k & 1) + i] |= static_cast<std::uint8_t>((code & 15) << (k < 2 ? 0 : 4));
}

// [2][32] bytes with four weights of two bits each, 32 apart.
__device__ inline void store_pairs(std::uint8_t* quants, int k, int i, int code) {
  quants[32 * (k / 16) + 8 * (k % 4) + i] |=
      static_cast<std::uint8_t>((code & 3) << (2 * (k / 4 % 4)));
}

__device__ inline void store_quant(formats::Q4_0::Block& block, int k, int i, int q) {
  store_nibbles32(block.quants, k, i, q + 8);
}
__device__ inline void store_quant(formats::Q4_1::Block& block, int k, int i, int q) {
  store_nibbles32(block.quants, k, i, q);
}
__device__ inline void store_quant(formats::Q5_0::Block& block, int k, int i, int q) {
  store_nibbles32(block.quants, k, i, q + 16);
  block.high_bits[k] |= static_cast<std::uint8_t>((((q + 16) >> 4) & 1) << i);
}
__device__ inline void store_quant(formats::Q5_1::Block& block, int k, int i, int q) {
  store_nibbles32(block.quants, k, i, q);
  block.high_bits[k] |= static_cast<std::uint8_t>(((q >> 4) & 1) << i);
}
__device__ inline void store_quant(formats::Q8_0::Block& block, int k, int i, int q) {
  block.quants[8 * k + i] = static_cast<std::int8_t>(q);
}
__device__ inline void store_quant(formats::Q2_K::Block& block, int k, int i, int q) {
  store_pairs(block.quants, k, i, q);
}
__device__ inline void store_quant(formats::Q3_K::Block& block, int k, int i, int q) {
  store_pairs(block.low_bits, k, i, q + 4);
  block.high_bits[8 * (k % 4) + i] |= static_cast<std::uint8_t>((((q + 4) >> 2) & 1) << (k / 4));
}
__device__ inline void store_quant(formats::Q4_K::Block& block, int k, int i, int q) {
  block.quants[32 * (k / 8) + 8 * (k % 4) + i] |=
      static_cast<std::uint8_t>((q & 15) << (k % 8 < 4 ? 0 : 4));
}
__device__ inline void store_quant(formats::Q5_K::Block& block, int k, int i, int q) {
  block.quants[32 * (k / 8) + 8 * (k % 4) + i] |=
      static_cast<std::uint8_t>((q & 15) << (k % 8 < 4 ? 0 : 4));
  block.high_bits[8 * (k % 4) + i] |= static_cast<std::uint8_t>((q >> 4) << (k / 4));
}
__device__ inline void store_quant(formats::Q6_K::Block& block, int k, int i, int q) {
  const int half = k / 16, quarter = k / 4 % 4, code = q + 32;
  block.low_bits[64 * half + 8 * (k % 8) + i] |=
      static_cast<std::uint8_t>((code & 15) << (quarter < 2 ? 0 : 4));
  block.high_bits[32 * half + 8 * (k % 4) + i] |=
      static_cast<std::uint8_t>((code >> 4) << (2 * quarter));
}
__device__ inline void store_quant(formats::TQ2_0::Block& block, int k, int i, int q) {
  store_pairs(block.quants, k, i, q + 1);
}

}  // namespace quantloom::kernels
