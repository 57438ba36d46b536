// Products with AVX2: unsigned times signed bytes in 16-bit sums (vpmaddubsw), which must not
// saturate.
#pragma once

#include <cstdint>

#include "cpu/kernels.h"
#include "cpu/simd_avx2.h"
#include "cpu/unpack_avx2.h"

namespace quantloom::cpu {
namespace {

// Highest unsigned quant. Above 127 a pair of products could saturate: such formats multiply
// magnitudes, with the sign on the activation.
template <class F>
constexpr int highest_quant = F::maximum_quant + zero_of<F>;
template <class F>
constexpr bool wide_quants = highest_quant<F> > 127;

// Pairs of 16-bit sums that can be added before they are widened.
template <class F>
constexpr int sums_before_widening =
    wide_quants<F> ? 1 : 32767 / ((highest_quant<F> > 0 ? highest_quant<F> : 1) * 2 * 127);

// w: quants as stored by Unpack256; a: signed bytes above -128. Sixteen 16-bit sums of pairs.
template <class F>
inline __m256i dot_pairs(__m256i w, __m256i magnitudes, __m256i a) {
  if constexpr (wide_quants<F>) return _mm256_maddubs_epi16(magnitudes, _mm256_sign_epi8(a, w));
  return _mm256_maddubs_epi16(w, a);
}

template <class F>
inline __m256i to_signed(__m256i u) {
  if constexpr (!wide_quants<F>) return u;
  return _mm256_sub_epi8(u, _mm256_set1_epi8(static_cast<char>(zero_of<F>)));
}

// What is left of the format's zero in to_signed() goes into the offset.
template <class F>
inline void fold_zero(SpanView& view) {
  if constexpr (wide_quants<F> || zero_of<F> == 0) return;
  const __m256 zero = _mm256_set1_ps(-static_cast<float>(zero_of<F>));
  for (int i = 0; i < 16; i += 8) {
    const __m256 offset = F::has_offset ? _mm256_load_ps(view.offsets + i) : _mm256_setzero_ps();
    _mm256_store_ps(view.offsets + i,
                    _mm256_fmadd_ps(_mm256_load_ps(view.scales + i), zero, offset));
  }
}

template <class F>
constexpr bool offset_after_folding = F::has_offset || (!wide_quants<F> && zero_of<F> != 0);

template <class F, int T, bool exact>
void matvec_avx2(const ops::Weight& weight, const Activations& x, std::int64_t first_token,
                 std::int64_t first_row, std::int64_t rows, float* out, std::int64_t out_stride) {
  const std::int64_t blocks_per_row = weight.columns / F::elements;
  const auto* row_blocks =
      static_cast<const typename F::Block*>(weight.blocks) + first_row * blocks_per_row;
  const __m256i ones = _mm256_set1_epi16(1);
  const __m256i high_factor = _mm256_set1_epi16(256);
  SpanView view;
  for (std::int64_t row = 0; row < rows; ++row, row_blocks += blocks_per_row) {
    __m256 sums[T][2];
    for (int t = 0; t < T; ++t) sums[t][0] = sums[t][1] = _mm256_setzero_ps();
    for (std::int64_t column = 0; column < weight.columns; column += span) {
      const typename F::Block* blocks = row_blocks + column / F::elements;
      for (int at = 0; at < span / F::elements * F::bytes; at += 64) {
        _mm_prefetch(reinterpret_cast<const char*>(blocks) + 2048 + at, _MM_HINT_T0);
      }
      Unpack256<F>::load(blocks, weight.columns - column, view);
      fold_zero<F>(view);
      alignas(32) float factors[T][16];
      for (int t = 0; t < T; ++t) {
        const std::int64_t at = (first_token + t) * x.groups + column / sum_group;
        for (int i = 0; i < 16; i += 8) {
          _mm256_store_ps(factors[t] + i, _mm256_mul_ps(_mm256_load_ps(view.scales + i),
                                                        _mm256_loadu_ps(x.scales + at + i)));
          if constexpr (offset_after_folding<F>) {
            sums[t][1] = _mm256_fmadd_ps(_mm256_load_ps(view.offsets + i),
                                         _mm256_loadu_ps(x.sums + at + i), sums[t][1]);
          }
        }
      }
      for (int c = 0; c < span / 32; ++c) {
        const __m256i w = to_signed<F>(load_32(view.q + 32 * c));
        const __m256i magnitudes = wide_quants<F> ? _mm256_abs_epi8(w) : w;
        for (int t = 0; t < T; ++t) {
          const std::int64_t at = (first_token + t) * x.stride + column + 32 * c;
          const __m256i high = dot_pairs<F>(w, magnitudes, load_32(x.high + at));
          __m256i dots = _mm256_madd_epi16(high, exact ? high_factor : ones);
          if constexpr (exact) {
            const __m256i low = dot_pairs<F>(w, magnitudes, load_32(x.low + at));
            dots = _mm256_add_epi32(dots, _mm256_madd_epi16(low, ones));
          }
          const __m256 factor = F::group == 32
                                    ? _mm256_broadcast_ss(factors[t] + 2 * c)
                                    : _mm256_set_m128(_mm_broadcast_ss(factors[t] + 2 * c + 1),
                                                      _mm_broadcast_ss(factors[t] + 2 * c));
          sums[t][c % 2] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dots), factor, sums[t][c % 2]);
        }
      }
    }
    for (int t = 0; t < T; ++t) {
      out[(first_token + t) * out_stride + row] = Avx2::sum(_mm256_add_ps(sums[t][0], sums[t][1]));
    }
  }
}

template <class F, bool exact>
void matvecs_avx2(const ops::Weight& weight, const Activations& x, std::int64_t first_row,
                  std::int64_t rows, float* out, std::int64_t out_stride) {
  std::int64_t t = 0;
  for (; t + 4 <= x.tokens; t += 4) {
    matvec_avx2<F, 4, exact>(weight, x, t, first_row, rows, out, out_stride);
  }
  for (; t < x.tokens; ++t) {
    matvec_avx2<F, 1, exact>(weight, x, t, first_row, rows, out, out_stride);
  }
}

constexpr int lanes_256 = 8;  // rows side by side in a vector
constexpr int panel_rows_256 = 32;
constexpr int panel_columns_256 = 512;

struct WeightPanel256 {
  // [32 / 8 rows][columns / 4][8 rows][4]
  alignas(64) std::int8_t quants[panel_rows_256 * panel_columns_256];
  // [32 / 8 rows][columns / group][8 rows]
  alignas(64) float scales[panel_rows_256 * panel_columns_256 / sum_group];
  alignas(64) float offsets[panel_rows_256 * panel_columns_256 / sum_group];
};

// Eight rows of 256 columns; of `rows` that exist, the others repeat the last.
template <class F>
void unpack_rows_256(const typename F::Block* first, std::int64_t blocks_per_row, int rows,
                     std::int64_t columns_left, std::int8_t* quants, float* scales,
                     float* offsets) {
  SpanView views[lanes_256];
  for (int r = 0; r < lanes_256; ++r) {
    Unpack256<F>::load(first + (r < rows ? r : rows - 1) * blocks_per_row, columns_left, views[r]);
    fold_zero<F>(views[r]);
  }
  for (int c = 0; c < span; c += 32) {
    __m256 v[8];
    for (int r = 0; r < 8; ++r) {
      v[r] = _mm256_castsi256_ps(to_signed<F>(load_32(views[r].q + c)));
    }
    Avx2::transpose(v);
    for (int k = 0; k < 8; ++k) {
      _mm256_store_ps(reinterpret_cast<float*>(quants + (c / 4 + k) * 32), v[k]);
    }
  }
  constexpr int step = F::group / sum_group;
  for (int g = 0; g < 16; g += step) {
    for (int r = 0; r < 8; ++r) {
      scales[g / step * 8 + r] = views[r].scales[g];
      if constexpr (offset_after_folding<F>) offsets[g / step * 8 + r] = views[r].offsets[g];
    }
  }
}

// dots[t] += the products of one group of one plane, times `factor`.
template <class F, int T>
inline void add_group(const std::int8_t* w, const std::int8_t* plane, std::int64_t stride,
                      __m256i factor, __m256i (&dots)[T]) {
  constexpr int steps = F::group / 4;
  constexpr int run = sums_before_widening<F> < steps ? sums_before_widening<F> : steps;
  for (int start = 0; start < steps; start += run) {
    __m256i pairs[T];
    for (int t = 0; t < T; ++t) pairs[t] = _mm256_setzero_si256();
    for (int k = start; k < start + run && k < steps; ++k) {
      const __m256i u = _mm256_load_si256(reinterpret_cast<const __m256i*>(w + k * 32));
      const __m256i magnitudes = wide_quants<F> ? _mm256_abs_epi8(u) : u;
      for (int t = 0; t < T; ++t) {
        std::int32_t four;
        __builtin_memcpy(&four, plane + t * stride + 4 * k, 4);
        pairs[t] = _mm256_add_epi16(pairs[t], dot_pairs<F>(u, magnitudes, _mm256_set1_epi32(four)));
        // GCC would sum the steps as a tree, with all of its leaves spilled to the stack.
        asm("" : "+x"(pairs[t]));
      }
    }
    for (int t = 0; t < T; ++t) {
      dots[t] = _mm256_add_epi32(dots[t], _mm256_madd_epi16(pairs[t], factor));
    }
  }
}

// sums [T][32] += one vector of rows times T tokens over `columns` columns.
template <class F, int T, bool exact>
void multiply_panel_256(const std::int8_t* quants, const float* panel_scales,
                        const float* panel_offsets, const Activations& x, std::int64_t token,
                        std::int64_t first, int columns, float* sums) {
  constexpr int step = F::group / sum_group;
  const std::int8_t* high = x.high + token * x.stride + first;
  const std::int8_t* low = exact ? x.low + token * x.stride + first : nullptr;
  const std::int64_t at = token * x.groups + first / sum_group;
  const float* group_sums = (step == 2 ? x.pair_sums : x.sums) + at;
  const __m256i ones = _mm256_set1_epi16(1);
  __m256 totals[T];
  for (int t = 0; t < T; ++t) totals[t] = _mm256_load_ps(sums + t * panel_rows_256);
  for (int g = 0; g < columns / F::group; ++g) {
    __m256i dots[T];
    for (int t = 0; t < T; ++t) dots[t] = _mm256_setzero_si256();
    const std::int8_t* w = quants + g * F::group * lanes_256;
    add_group<F, T>(w, high + g * F::group, x.stride, exact ? _mm256_set1_epi16(256) : ones, dots);
    if constexpr (exact) add_group<F, T>(w, low + g * F::group, x.stride, ones, dots);
    const __m256 s = _mm256_load_ps(panel_scales + g * lanes_256);
    for (int t = 0; t < T; ++t) {
      const __m256 scale = _mm256_broadcast_ss(x.scales + at + t * x.groups + g * step);
      totals[t] = _mm256_fmadd_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(dots[t]), s), scale, totals[t]);
      if constexpr (offset_after_folding<F>) {
        totals[t] =
            _mm256_fmadd_ps(_mm256_load_ps(panel_offsets + g * lanes_256),
                            _mm256_broadcast_ss(group_sums + t * x.groups + g * step), totals[t]);
      }
    }
  }
  for (int t = 0; t < T; ++t) _mm256_store_ps(sums + t * panel_rows_256, totals[t]);
}

template <class F, bool exact>
void matmul_avx2(const ops::Weight& weight, const Activations& x, std::int64_t first_row,
                 std::int64_t rows, float* out, std::int64_t out_stride, void* scratch) {
  auto& panel = *static_cast<WeightPanel256*>(scratch);
  auto* sums = reinterpret_cast<float*>(static_cast<std::byte*>(scratch) + sizeof(WeightPanel256));
  const std::int64_t blocks_per_row = weight.columns / F::elements;
  const auto* blocks = static_cast<const typename F::Block*>(weight.blocks);
  constexpr int group_step = panel_columns_256 / sum_group * lanes_256;
  for (std::int64_t row = 0; row < rows; row += panel_rows_256) {
    const int present = static_cast<int>(rows - row < panel_rows_256 ? rows - row : panel_rows_256);
    const int vectors = (present + lanes_256 - 1) / lanes_256;
    __builtin_memset(sums, 0, static_cast<std::size_t>(x.tokens) * panel_rows_256 * sizeof(float));
    for (std::int64_t column = 0; column < weight.columns; column += panel_columns_256) {
      int columns = 0;
      for (; columns < panel_columns_256 && column + columns < weight.columns; columns += span) {
        for (int v = 0; v < vectors; ++v) {
          const auto* source = blocks + (first_row + row + v * lanes_256) * blocks_per_row +
                               (column + columns) / F::elements;
          const int group = v * group_step + columns / F::group * lanes_256;
          unpack_rows_256<F>(source, blocks_per_row, present - v * lanes_256,
                             weight.columns - column - columns,
                             panel.quants + (v * panel_columns_256 + columns) * lanes_256,
                             panel.scales + group, panel.offsets + group);
        }
      }
      for (std::int64_t t = 0; t < x.tokens; t += 4) {
        for (int v = 0; v < vectors; ++v) {
          const std::int8_t* quants = panel.quants + v * panel_columns_256 * lanes_256;
          const float* scales = panel.scales + v * group_step;
          const float* offsets = panel.offsets + v * group_step;
          float* to = sums + t * panel_rows_256 + v * lanes_256;
          if (t + 4 <= x.tokens) {
            multiply_panel_256<F, 4, exact>(quants, scales, offsets, x, t, column, columns, to);
            continue;
          }
          for (std::int64_t i = t; i < x.tokens; ++i, to += panel_rows_256) {
            multiply_panel_256<F, 1, exact>(quants, scales, offsets, x, i, column, columns, to);
          }
        }
      }
    }
    for (std::int64_t t = 0; t < x.tokens; ++t) {
      for (int r = 0; r < present; ++r) {
        out[t * out_stride + row + r] = sums[t * panel_rows_256 + r];
      }
    }
  }
}

}  // namespace
}  // namespace quantloom::cpu
