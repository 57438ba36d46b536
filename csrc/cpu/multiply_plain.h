// Products without special instructions, and the products with weights in a float format.
#pragma once

#include <cstdint>
#include <cstring>

#include "cpu/kernels.h"
#include "formats/list.h"

namespace quantloom::cpu {
namespace {

// What is added to a format's quants to make them unsigned.
template <class F>
constexpr int zero_of = F::minimum_quant < 0 ? -F::minimum_quant : 0;

// The integer view of up to `span` weights of one row: q, and scale and offset per 16.
struct SpanView {
  alignas(64) std::int8_t q[span];
  alignas(64) float scales[span / sum_group];
  alignas(64) float offsets[span / sum_group];
};

// `blocks` of the row from the span's first; what lies past `columns` is zero.
template <class F>
inline void view_span(const typename F::Block* blocks, std::int64_t columns, SpanView& view) {
  const int present = columns < span ? static_cast<int>(columns) : span;
  for (int start = 0; start < present; start += F::elements) {
    const typename F::Block& block = blocks[start / F::elements];
    for (int k = 0; k < F::elements / 8; ++k) F::quants8(block, k, view.q + start + 8 * k);
    for (int g = 0; g < F::elements / sum_group; ++g) {
      const formats::Affine affine = F::affine(block, g * sum_group / F::group);
      view.scales[start / sum_group + g] = affine.scale;
      view.offsets[start / sum_group + g] = affine.offset;
    }
  }
  for (int i = present; i < span; ++i) view.q[i] = 0;
  for (int g = present / sum_group; g < span / sum_group; ++g) {
    view.scales[g] = 0;
    view.offsets[g] = 0;
  }
}

// For spans smaller than F::elements there are none: span is a multiple of every block.
template <class F>
void multiply_plain(const ops::Weight& weight, const Activations& x, std::int64_t first_row,
                    std::int64_t rows, float* out, std::int64_t out_stride) {
  const std::int64_t blocks_per_row = weight.columns / F::elements;
  const auto* blocks = static_cast<const typename F::Block*>(weight.blocks);
  SpanView view;
  alignas(64) std::int16_t q[span];
  for (std::int64_t row = 0; row < rows; ++row) {
    const typename F::Block* source = blocks + (first_row + row) * blocks_per_row;
    for (std::int64_t t = 0; t < x.tokens; ++t) out[t * out_stride + row] = 0;
    for (std::int64_t c = 0; c < weight.columns; c += span) {
      view_span<F>(source + c / F::elements, weight.columns - c, view);
      for (int i = 0; i < span; ++i) q[i] = view.q[i];
      for (std::int64_t t = 0; t < x.tokens; ++t) {
        const std::int16_t* words = x.words + t * x.stride + c;
        const float* scales = x.scales + t * x.groups + c / sum_group;
        const float* sums = x.sums + t * x.groups + c / sum_group;
        float total = 0;
        for (int g = 0; g < span / sum_group; ++g) {
          std::int32_t dot = 0;
          for (int i = 0; i < sum_group; ++i) {
            dot += static_cast<std::int32_t>(q[g * sum_group + i]) * words[g * sum_group + i];
          }
          total += static_cast<float>(dot) * (view.scales[g] * scales[g]);
          if constexpr (F::has_offset) total += view.offsets[g] * sums[g];
        }
        out[t * out_stride + row] += total;
      }
    }
  }
}

template <class V, class F>
inline typename V::Float load_floats(const typename F::Block* p) {
  if constexpr (F::format == formats::Format::f32) {
    return V::load(p);
  } else if constexpr (F::format == formats::Format::f16) {
    return V::load_half(p);
  } else {
    return V::load_bfloat16(p);
  }
}

template <class V, class F, int T>
inline void dot_floats(const typename F::Block* w, const float* x, std::int64_t columns, float* out,
                       std::int64_t out_stride) {
  typename V::Float sums[T][2];
  for (int t = 0; t < T; ++t) sums[t][0] = sums[t][1] = V::set(0);
  std::int64_t c = 0;
  for (; c + 2 * V::width <= columns; c += 2 * V::width) {
    for (int half = 0; half < 2; ++half) {
      const std::int64_t at = c + half * V::width;
      const typename V::Float v = load_floats<V, F>(w + at);
      for (int t = 0; t < T; ++t) {
        sums[t][half] = V::fma(v, V::load(x + t * columns + at), sums[t][half]);
      }
    }
  }
  for (int t = 0; t < T; ++t) {
    float total = V::sum(V::add(sums[t][0], sums[t][1]));
    for (std::int64_t i = c; i < columns; ++i) total += F::decode(w[i]) * x[t * columns + i];
    out[t * out_stride] = total;
  }
}

// Weights in F32, F16 or BF16 times float activations.
template <class V, class F>
void multiply_values(const ops::Weight& weight, const Activations& x, std::int64_t first_row,
                     std::int64_t rows, float* out, std::int64_t out_stride) {
  const auto* blocks = static_cast<const typename F::Block*>(weight.blocks);
  constexpr std::int64_t some_rows = 16;  // stay in the cache while the tokens pass
  for (std::int64_t start = 0; start < rows; start += some_rows) {
    const std::int64_t end = start + some_rows < rows ? start + some_rows : rows;
    std::int64_t t = 0;
    for (; t + 4 <= x.tokens; t += 4) {
      for (std::int64_t row = start; row < end; ++row) {
        dot_floats<V, F, 4>(blocks + (first_row + row) * weight.columns,
                            x.values + t * weight.columns, weight.columns,
                            out + t * out_stride + row, out_stride);
      }
    }
    for (; t < x.tokens; ++t) {
      for (std::int64_t row = start; row < end; ++row) {
        dot_floats<V, F, 1>(blocks + (first_row + row) * weight.columns,
                            x.values + t * weight.columns, weight.columns,
                            out + t * out_stride + row, out_stride);
      }
    }
  }
}

template <class V>
void multiply_floats_dispatch(const ops::Weight& weight, const Activations& x,
                              std::int64_t first_row, std::int64_t rows, float* out,
                              std::int64_t out_stride) {
  switch (weight.format) {
    case formats::Format::f32:
      return multiply_values<V, formats::F32>(weight, x, first_row, rows, out, out_stride);
    case formats::Format::f16:
      return multiply_values<V, formats::F16>(weight, x, first_row, rows, out, out_stride);
    case formats::Format::bf16:
      return multiply_values<V, formats::BF16>(weight, x, first_row, rows, out, out_stride);
    default:
      fail_no_product(weight);
  }
}

// Calls fn(F{}) with the struct of the weight's quantized format.
template <class Function>
void visit_quantized(const ops::Weight& weight, Function&& fn) {
  formats::visit_format(
      weight.format,
      [&](auto format) {
        if constexpr (decltype(format)::quantized) {
          fn(format);
        } else {
          fail_no_product(weight);
        }
      },
      [&] { fail_no_product(weight); });
}

inline bool is_float(formats::Format format) {
  return format == formats::Format::f32 || format == formats::Format::f16 ||
         format == formats::Format::bf16;
}

}  // namespace
}  // namespace quantloom::cpu
