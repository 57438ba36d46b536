// Weights of the planes widened to halves in registers, as the A operand of 16-bit steps.
#pragma once

#include <cuda_fp16.h>

#include "matmul/planes.h"

namespace quantloom::kernels {

// Four bytes (biased by 128 where signed) less `centre` to two pairs of halves, exactly: 1024 +
// byte, less the bias and the centre.
template <bool is_signed, int centre>
__device__ inline void widen_bytes(std::uint32_t word, __half2& low, __half2& high) {
  if constexpr (is_signed) word ^= 0x80808080u;
  const std::uint32_t a = __byte_perm(word, 0x64646464u, 0x4140);
  const std::uint32_t b = __byte_perm(word, 0x64646464u, 0x4342);
  const __half2 bias = __half2half2(
      __ushort_as_half(static_cast<unsigned short>((is_signed ? 0x6480 : 0x6400) + centre)));
  low = __hsub2(*reinterpret_cast<const __half2*>(&a), bias);
  high = __hsub2(*reinterpret_cast<const __half2*>(&b), bias);
}

__device__ inline std::uint32_t half_bits(__half2 v) {
  return *reinterpret_cast<const std::uint32_t*>(&v);
}

// Unsigned quants are widened less the middle of their range, which the offset makes up for: the
// rounding of scale and offset to halves then weighs half as much (5.2e-3 to 2.6e-3 in the logits
// of a model of random Q4_K weights).
template <class P>
constexpr int centre_of(bool row8) {
  return P::centre << (row8 ? P::row8_position : 0);
}
template <class P>
__device__ inline float centred_offset(float scale, float offset, bool row8) {
  return offset + scale * static_cast<float>(row8 ? centre_of<P>(true) : centre_of<P>(false));
}

// Scale and offset (centred) of one row and group, each twice.
template <class P>
struct AffinePair {
  __half2 scale;
  __half2 offset;
  __device__ std::uint32_t apply(__half2 v) const {
    return half_bits(P::has_offset ? __hfma2(v, scale, offset) : __hmul2(v, scale));
  }
};

// The four registers of int8 as the A operands of two m16n8k16 steps.
template <class P>
__device__ inline void widen_fragment(const std::uint32_t a[4], const AffinePair<P>& g,
                                      const AffinePair<P>& g8, std::uint32_t first[4],
                                      std::uint32_t second[4]) {
  constexpr int centre = centre_of<P>(false), centre8 = centre_of<P>(true);
  __half2 low, high;
  widen_bytes<P::is_signed, centre>(a[0], low, high);
  first[0] = g.apply(low), first[2] = g.apply(high);
  widen_bytes<P::is_signed, centre8>(a[1], low, high);
  first[1] = g8.apply(low), first[3] = g8.apply(high);
  widen_bytes<P::is_signed, centre>(a[2], low, high);
  second[0] = g.apply(low), second[2] = g.apply(high);
  widen_bytes<P::is_signed, centre8>(a[3], low, high);
  second[1] = g8.apply(low), second[3] = g8.apply(high);
}

template <class P>
constexpr int piece_scales = piece_columns / P::group;  // per row
template <class P>
constexpr int affine_words = P::has_offset ? 2 : 1;
// Rows are one word apart more than they hold, so that the eight rows of a read fall into different
// banks.
template <class P>
constexpr int affine_row_words = (piece_scales<P> + 1) * affine_words<P>;

template <class P>
__device__ inline AffinePair<P> read_affine(const std::uint32_t* from, int row, int group) {
  const std::uint32_t* at = from + row * affine_row_words<P> + group * affine_words<P>;
  AffinePair<P> pair;
  if constexpr (P::has_offset) {
    const uint2 w = *reinterpret_cast<const uint2*>(at);
    pair.scale = *reinterpret_cast<const __half2*>(&w.x);
    pair.offset = *reinterpret_cast<const __half2*>(&w.y);
  } else {
    pair.scale = *reinterpret_cast<const __half2*>(at);
  }
  return pair;
}

}  // namespace quantloom::kernels
