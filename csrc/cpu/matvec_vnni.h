// Products of a few tokens: every weight is read once from memory and unpacked in registers.
#pragma once

#include <cstdint>

#include "cpu/kernels.h"
#include "cpu/unpack_avx512.h"

namespace quantloom::cpu {
namespace {

// sums[i] += u[4i .. 4i + 3] . a[4i .. 4i + 3], unsigned times signed bytes.
inline __m512i dot_bytes(__m512i sums, __m512i u, __m512i a) {
  return _mm512_dpbusd_epi32(sums, u, a);
}

// In fast one plane; in exact 256 * high + low.
template <bool exact>
inline __m512i dot_planes(__m512i u, const std::int8_t* high, const std::int8_t* low) {
  __m512i sums = dot_bytes(_mm512_setzero_si512(), u, _mm512_loadu_si512(high));
  if constexpr (exact) {
    sums = dot_bytes(_mm512_slli_epi32(sums, 8), u, _mm512_loadu_si512(low));
  }
  return sums;
}

// Far enough ahead to cross into the next page before the hardware's prefetcher, which stops there.
inline void prefetch(const void* from, int bytes) {
  constexpr int distance = 2048;
  for (int at = 0; at < bytes; at += 64) {
    _mm_prefetch(static_cast<const char*>(from) + distance + at, _MM_HINT_T0);
  }
}

template <class F, int T, bool exact>
void matvec(const ops::Weight& weight, const Activations& x, std::int64_t first_token,
            std::int64_t first_row, std::int64_t rows, float* out, std::int64_t out_stride) {
  constexpr bool offset = F::has_offset || zero_of<F> != 0;
  const std::int64_t blocks_per_row = weight.columns / F::elements;
  const auto* row_blocks =
      static_cast<const typename F::Block*>(weight.blocks) + first_row * blocks_per_row;
  // Lane i of chunk c holds weights 64c + 4i .. 64c + 4i + 3, in group 4c + i / 4.
  __m512i lanes[4];
  lanes[0] = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
  for (int c = 1; c < 4; ++c) lanes[c] = _mm512_add_epi32(lanes[0], _mm512_set1_epi32(4 * c));

  Unpack512<F> unpack;
  for (std::int64_t row = 0; row < rows; ++row, row_blocks += blocks_per_row) {
    // Three chains, so that the latency of one addition does not bound the loop.
    __m512 sums[T][3];
    for (int t = 0; t < T; ++t) sums[t][0] = sums[t][1] = sums[t][2] = _mm512_setzero_ps();
    for (std::int64_t column = 0; column < weight.columns; column += span) {
      const typename F::Block* blocks = row_blocks + column / F::elements;
      prefetch(blocks, span / F::elements * F::bytes);
      unpack.load(blocks, weight.columns - column);
      const __m512 scales = unpack.scales();
      __m512 offsets = unpack.offsets();
      if constexpr (zero_of<F> != 0) {
        const __m512 shift = _mm512_set1_ps(-static_cast<float>(zero_of<F>));
        offsets =
            F::has_offset ? _mm512_fmadd_ps(scales, shift, offsets) : _mm512_mul_ps(scales, shift);
      }
      __m512 factors[T];
      for (int t = 0; t < T; ++t) {
        const std::int64_t at = (first_token + t) * x.groups + column / sum_group;
        factors[t] = _mm512_mul_ps(scales, _mm512_loadu_ps(x.scales + at));
        if constexpr (offset) {
          sums[t][2] = _mm512_fmadd_ps(offsets, _mm512_loadu_ps(x.sums + at), sums[t][2]);
        }
      }
      for (int c = 0; c < 4; ++c) {
        const __m512i u = unpack.quants(c);
        for (int t = 0; t < T; ++t) {
          const std::int64_t at = (first_token + t) * x.stride + column + 64 * c;
          const __m512i dots = dot_planes<exact>(u, x.high + at, exact ? x.low + at : nullptr);
          sums[t][c % 2] =
              _mm512_fmadd_ps(_mm512_cvtepi32_ps(dots), _mm512_permutexvar_ps(lanes[c], factors[t]),
                              sums[t][c % 2]);
        }
      }
    }
    for (int t = 0; t < T; ++t) {
      out[(first_token + t) * out_stride + row] =
          _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(sums[t][0], sums[t][1]), sums[t][2]));
    }
  }
}

template <class F, bool exact>
void matvecs(const ops::Weight& weight, const Activations& x, std::int64_t first_row,
             std::int64_t rows, float* out, std::int64_t out_stride) {
  std::int64_t t = 0;
  for (; t + 4 <= x.tokens; t += 4) {
    matvec<F, 4, exact>(weight, x, t, first_row, rows, out, out_stride);
  }
  if (t + 2 <= x.tokens) {
    matvec<F, 2, exact>(weight, x, t, first_row, rows, out, out_stride);
    t += 2;
  }
  if (t < x.tokens) matvec<F, 1, exact>(weight, x, t, first_row, rows, out, out_stride);
}

}  // namespace
}  // namespace quantloom::cpu
