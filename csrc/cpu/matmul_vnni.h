// Products of many tokens: the weights of 32 rows by 512 columns are unpacked once into the
// first-level cache, rows side by side, and multiplied with all tokens.
#pragma once

#include <cstdint>

#include "cpu/kernels.h"
#include "cpu/matvec_vnni.h"
#include "cpu/simd_avx512.h"

namespace quantloom::cpu {
namespace {

constexpr int panel_rows = 32;  // two vectors of rows
constexpr int panel_columns = 512;

struct WeightPanel {
  // [columns / 4][32 rows][4]; unsigned
  alignas(64) std::uint8_t quants[panel_columns * panel_rows];
  // [columns / group][32 rows]
  alignas(64) float scales[panel_columns / sum_group * panel_rows];
  alignas(64) float offsets[panel_columns / sum_group * panel_rows];
};

// Quants of formats without an offset are biased to 128, so that one compensation serves all; with
// an offset the bias of the format itself goes into it.
template <class F>
constexpr int panel_bias = F::has_offset ? 0 : 128 - zero_of<F>;

// 16 rows of 256 columns into the panel; `rows` of them exist, the others repeat the first.
template <class F>
void unpack_rows(const typename F::Block* first, std::int64_t blocks_per_row, int rows,
                 std::int64_t columns_left, std::uint8_t* quants, float* scales, float* offsets) {
  alignas(64) std::uint8_t bytes[4][16][64];
  alignas(64) float row_scales[16][16];
  alignas(64) float row_offsets[16][16];
  Unpack512<F> unpack;
  for (int r = 0; r < 16; ++r) {
    unpack.load(first + (r < rows ? r : 0) * blocks_per_row, columns_left);
    for (int c = 0; c < 4; ++c) {
      __m512i u = unpack.quants(c);
      if constexpr (panel_bias<F> != 0)
        u = _mm512_add_epi8(u, _mm512_set1_epi8(static_cast<char>(panel_bias<F>)));
      _mm512_store_si512(bytes[c][r], u);
    }
    const __m512 s = unpack.scales();
    _mm512_store_ps(row_scales[r], s);
    if constexpr (F::has_offset) {
      const __m512 bias = _mm512_set1_ps(-static_cast<float>(zero_of<F>));
      _mm512_store_ps(row_offsets[r], _mm512_fmadd_ps(s, bias, unpack.offsets()));
    }
  }
  for (int c = 0; c < 4; ++c) {
    __m512 v[16];
    for (int r = 0; r < 16; ++r) v[r] = _mm512_load_ps(bytes[c][r]);
    Avx512::transpose(v);
    for (int k = 0; k < 16; ++k) {
      _mm512_store_ps(quants + (c * 16 + k) * panel_rows * 4, v[k]);
    }
  }
  constexpr int step = F::group / sum_group;
  __m512 v[16];
  for (int r = 0; r < 16; ++r) v[r] = _mm512_load_ps(row_scales[r]);
  Avx512::transpose(v);
  for (int g = 0; g < 16; g += step) _mm512_store_ps(scales + g / step * panel_rows, v[g]);
  if constexpr (F::has_offset) {
    for (int r = 0; r < 16; ++r) v[r] = _mm512_load_ps(row_offsets[r]);
    Avx512::transpose(v);
    for (int g = 0; g < 16; g += step) _mm512_store_ps(offsets + g / step * panel_rows, v[g]);
  }
}

template <int T>
inline void add_dots(const WeightPanel& panel, int column, int steps, const std::int8_t* plane,
                     std::int64_t stride, __m512i (&dots)[T][2]) {
  for (int k = 0; k < steps; ++k) {
    const std::uint8_t* w = panel.quants + (column / 4 + k) * panel_rows * 4;
    const __m512i w0 = _mm512_load_si512(w);
    const __m512i w1 = _mm512_load_si512(w + 64);
    for (int t = 0; t < T; ++t) {
      std::int32_t four;
      __builtin_memcpy(&four, plane + t * stride + column + 4 * k, 4);
      const __m512i a = _mm512_set1_epi32(four);
      dots[t][0] = dot_bytes(dots[t][0], w0, a);
      dots[t][1] = dot_bytes(dots[t][1], w1, a);
    }
  }
}

// sums [T][32] += panel times tokens token .. token + T - 1 of columns first .. first + columns
// - 1.
template <int T, int group, bool offset, bool exact>
void multiply_panel(const WeightPanel& panel, const Activations& x, std::int64_t token,
                    std::int64_t first, int columns, float* sums) {
  constexpr int step = group / sum_group;
  const std::int8_t* high = x.high + token * x.stride + first;
  const std::int8_t* low = exact ? x.low + token * x.stride + first : nullptr;
  const std::int64_t at = token * x.groups + first / sum_group;
  const float* scales = x.scales + at;
  const float* group_sums = (step == 2 ? x.pair_sums : x.sums) + at;
  const std::int32_t* biases = (step == 2 ? x.pair_biases : x.biases) + at;
  __m512 totals[T][2];
  for (int t = 0; t < T; ++t) {
    totals[t][0] = _mm512_load_ps(sums + t * panel_rows);
    totals[t][1] = _mm512_load_ps(sums + t * panel_rows + 16);
  }
  for (int g = 0; g < columns / group; ++g) {
    __m512i dots[T][2];
    for (int t = 0; t < T; ++t) {
      const bool biased = !offset && !exact;
      dots[t][0] =
          biased ? _mm512_set1_epi32(biases[t * x.groups + g * step]) : _mm512_setzero_si512();
      dots[t][1] = dots[t][0];
    }
    add_dots<T>(panel, g * group, group / 4, high, x.stride, dots);
    if constexpr (exact) {
      for (int t = 0; t < T; ++t) {
        for (int v = 0; v < 2; ++v) {
          dots[t][v] = _mm512_slli_epi32(dots[t][v], 8);
          if constexpr (!offset) {
            dots[t][v] =
                _mm512_add_epi32(dots[t][v], _mm512_set1_epi32(biases[t * x.groups + g * step]));
          }
        }
      }
      add_dots<T>(panel, g * group, group / 4, low, x.stride, dots);
    }
    for (int v = 0; v < 2; ++v) {
      const __m512 s = _mm512_load_ps(panel.scales + g * panel_rows + 16 * v);
      for (int t = 0; t < T; ++t) {
        const __m512 scaled = _mm512_mul_ps(_mm512_cvtepi32_ps(dots[t][v]), s);
        totals[t][v] =
            _mm512_fmadd_ps(scaled, _mm512_set1_ps(scales[t * x.groups + g * step]), totals[t][v]);
      }
      if constexpr (offset) {
        const __m512 o = _mm512_load_ps(panel.offsets + g * panel_rows + 16 * v);
        for (int t = 0; t < T; ++t) {
          totals[t][v] =
              _mm512_fmadd_ps(o, _mm512_set1_ps(group_sums[t * x.groups + g * step]), totals[t][v]);
        }
      }
    }
  }
  for (int t = 0; t < T; ++t) {
    _mm512_store_ps(sums + t * panel_rows, totals[t][0]);
    _mm512_store_ps(sums + t * panel_rows + 16, totals[t][1]);
  }
}

template <int group, bool offset, bool exact>
void multiply_tokens(const WeightPanel& panel, const Activations& x, std::int64_t first,
                     int columns, float* sums) {
  std::int64_t t = 0;
  for (; t + 6 <= x.tokens; t += 6) {
    multiply_panel<6, group, offset, exact>(panel, x, t, first, columns, sums + t * panel_rows);
  }
  for (; t + 2 <= x.tokens; t += 2) {
    multiply_panel<2, group, offset, exact>(panel, x, t, first, columns, sums + t * panel_rows);
  }
  if (t < x.tokens) {
    multiply_panel<1, group, offset, exact>(panel, x, t, first, columns, sums + t * panel_rows);
  }
}

template <class F, bool exact>
void matmul(const ops::Weight& weight, const Activations& x, std::int64_t first_row,
            std::int64_t rows, float* out, std::int64_t out_stride, void* scratch) {
  auto& panel = *static_cast<WeightPanel*>(scratch);
  auto* sums = reinterpret_cast<float*>(static_cast<std::byte*>(scratch) + sizeof(WeightPanel));
  const std::int64_t blocks_per_row = weight.columns / F::elements;
  const auto* blocks = static_cast<const typename F::Block*>(weight.blocks);
  for (std::int64_t row = 0; row < rows; row += panel_rows) {
    const int present = static_cast<int>(rows - row < panel_rows ? rows - row : panel_rows);
    __builtin_memset(sums, 0, static_cast<std::size_t>(x.tokens) * panel_rows * sizeof(float));
    for (std::int64_t column = 0; column < weight.columns; column += panel_columns) {
      int columns = 0;
      for (; columns < panel_columns && column + columns < weight.columns; columns += span) {
        for (int v = 0; v < 2; ++v) {
          const int first = present > 16 * v ? 16 * v : 0;
          const auto* source = blocks + (first_row + row + first) * blocks_per_row +
                               (column + columns) / F::elements;
          const int lane = columns / F::group * panel_rows + 16 * v;
          unpack_rows<F>(source, blocks_per_row, present - first, weight.columns - column - columns,
                         panel.quants + columns * panel_rows + 64 * v, panel.scales + lane,
                         panel.offsets + lane);
        }
      }
      multiply_tokens<F::group, F::has_offset, exact>(panel, x, column, columns, sums);
    }
    for (std::int64_t t = 0; t < x.tokens; ++t) {
      for (int r = 0; r < present; ++r) out[t * out_stride + row + r] = sums[t * panel_rows + r];
    }
  }
}

}  // namespace
}  // namespace quantloom::cpu
