// Attention of a block of queries that share one head of keys and values, with a running softmax
// (Milakov and Gimelshein 2018, arXiv 1805.02867; Dao et al. 2022, arXiv 2205.14135).
#pragma once

#include <cstdint>
#include <limits>

#include "cpu/kernels.h"
#include "cpu/vector_ops.h"

namespace quantloom::cpu {
namespace {

// One row of the cache as floats, zero padded to `padded`.
template <class V>
void load_cache_row(const ops::CacheLayer& cache, const void* rows, const void* scales,
                    std::int64_t row, int padded, float* out) {
  const int size = cache.head_size;
  int i = 0;
  switch (cache.type) {
    case ops::CacheType::f16: {
      const auto* source = static_cast<const std::uint16_t*>(rows) + row * size;
      for (; i + V::width <= size; i += V::width) V::store(out + i, V::load_half(source + i));
      for (; i < size; ++i) out[i] = formats::half_to_float(source[i]);
      break;
    }
    case ops::CacheType::f32: {
      const auto* source = static_cast<const float*>(rows) + row * size;
      for (; i < size; ++i) out[i] = source[i];
      break;
    }
    case ops::CacheType::q8_0: {
      const auto* source = static_cast<const std::int8_t*>(rows) + row * size;
      const auto* halves = static_cast<const std::uint16_t*>(scales) + row * (size / 32);
      for (int group = 0; group < size / 32; ++group) {
        const typename V::Float factor = V::set(formats::half_to_float(halves[group]));
        for (int j = 0; j < 32; j += V::width, i += V::width) {
          V::store(out + i, V::mul(V::load_int8(source + i), factor));
        }
      }
      break;
    }
  }
  for (; i < padded; ++i) out[i] = 0;
}

// out[b][v] += sum over k of left[b * left_stride + k] * right[k * right_stride + v * width].
template <class V, int B, int N>
inline void multiply_tile(const float* left, std::int64_t left_stride, const float* right,
                          std::int64_t right_stride, int depth, bool accumulate, float* out,
                          std::int64_t out_stride) {
  typename V::Float sums[B][N];
  for (int b = 0; b < B; ++b) {
    for (int v = 0; v < N; ++v) {
      sums[b][v] = accumulate ? V::load(out + b * out_stride + v * V::width) : V::set(0);
    }
  }
  for (int k = 0; k < depth; ++k) {
    typename V::Float r[N];
    for (int v = 0; v < N; ++v) r[v] = V::load(right + k * right_stride + v * V::width);
    for (int b = 0; b < B; ++b) {
      const typename V::Float l = V::set(left[b * left_stride + k]);
      for (int v = 0; v < N; ++v) sums[b][v] = V::fma(l, r[v], sums[b][v]);
    }
  }
  for (int b = 0; b < B; ++b) {
    for (int v = 0; v < N; ++v) V::store(out + b * out_stride + v * V::width, sums[b][v]);
  }
}

template <class V, int N>
inline void multiply_columns(const float* left, std::int64_t left_stride, int lefts,
                             const float* right, std::int64_t right_stride, int depth,
                             bool accumulate, float* out, std::int64_t out_stride) {
  int b = 0;
  for (; b + V::tile_broadcasts <= lefts; b += V::tile_broadcasts) {
    multiply_tile<V, V::tile_broadcasts, N>(left + b * left_stride, left_stride, right,
                                            right_stride, depth, accumulate, out + b * out_stride,
                                            out_stride);
  }
  for (; b + 2 <= lefts; b += 2) {
    multiply_tile<V, 2, N>(left + b * left_stride, left_stride, right, right_stride, depth,
                           accumulate, out + b * out_stride, out_stride);
  }
  for (; b < lefts; ++b) {
    multiply_tile<V, 1, N>(left + b * left_stride, left_stride, right, right_stride, depth,
                           accumulate, out + b * out_stride, out_stride);
  }
}

// out [lefts, columns] (+)= left [lefts, depth] * right [depth, columns]; columns a multiple of
// width.
template <class V>
void multiply_floats(const float* left, std::int64_t left_stride, int lefts, const float* right,
                     std::int64_t right_stride, int columns, int depth, bool accumulate, float* out,
                     std::int64_t out_stride) {
  constexpr int step = V::tile_vectors * V::width;
  int c = 0;
  for (; c + step <= columns; c += step) {
    multiply_columns<V, V::tile_vectors>(left, left_stride, lefts, right + c, right_stride, depth,
                                         accumulate, out + c, out_stride);
  }
  for (; c < columns; c += V::width) {
    multiply_columns<V, 1>(left, left_stride, lefts, right + c, right_stride, depth, accumulate,
                           out + c, out_stride);
  }
}

// One query's weights from its scores, in place; keys outside from .. to - 1 get 0.
// Returns the factor for what was summed before.
template <class V>
inline float soften(float* scores, int from, int to, float cap, float& highest, float& total) {
  constexpr float infinity = std::numeric_limits<float>::infinity();
  if (cap > 0) soft_cap<V>(scores, key_block, cap);
  for (int i = 0; i < from; ++i) scores[i] = -infinity;
  for (int i = to; i < key_block; ++i) scores[i] = -infinity;
  typename V::Float top = V::set(highest);
  for (int i = 0; i < key_block; i += V::width) top = V::max(V::load(scores + i), top);
  const float peak = V::maximum(top);
  // All -inf is a distribution over nothing; the subtraction below then gives NaN, as it should.
  const float factor = highest == -infinity ? 0.0f : std::exp(highest - peak);
  const typename V::Float peaks = V::set(peak);
  const typename V::Float floor = V::set(-87.0f);
  typename V::Float sums = V::set(0);
  for (int i = 0; i < key_block; i += V::width) {
    const typename V::Float x = V::sub(V::load(scores + i), peaks);
    const typename V::Float w = V::where_less(x, floor, V::set(0), exponential<V>(x));
    V::store(scores + i, w);
    sums = V::add(sums, w);
  }
  total = total * factor + V::sum(sums);
  highest = peak;
  return factor;
}

template <class V>
void attend(const AttentionBlock& block) {
  const ops::Attention& arguments = *block.arguments;
  const ops::CacheLayer& cache = arguments.cache;
  const int size = cache.head_size;
  const int padded = (size + V::width - 1) / V::width * V::width;
  const int group = arguments.heads / cache.kv_heads;
  const int queries = static_cast<int>(block.tokens) * group;

  float* q = block.scratch;
  float* keys = q + static_cast<std::int64_t>(queries) * padded;  // [padded][key_block]
  float* values = keys + key_block * padded;
  float* scores = values + key_block * padded;
  float* sums = scores + static_cast<std::int64_t>(queries) * key_block;
  float* highest = sums + static_cast<std::int64_t>(queries) * padded;
  float* totals = highest + queries;

  for (int i = 0; i < queries; ++i) {
    const std::int64_t token = block.first_token + i / group;
    const int head = block.kv_head * group + i % group;
    const float* source = arguments.q + (token * arguments.heads + head) * size;
    for (int d = 0; d < size; ++d) q[i * padded + d] = source[d] * arguments.scale;
    for (int d = 0; d < padded; ++d) sums[i * padded + d] = 0;
    highest[i] = -std::numeric_limits<float>::infinity();
    totals[i] = 0;
  }

  const std::int64_t first_row = block.kv_head * cache.capacity;
  for (std::int64_t start = block.begin / key_block * key_block; start < block.end;
       start += key_block) {
    const int present =
        static_cast<int>(block.end - start < key_block ? block.end - start : key_block);
    for (int j = 0; j < key_block; j += V::width) {
      for (int i = 0; i < V::width; ++i) {
        // Rows past the end repeat the last one: their scores are masked.
        const int row = j + i < present ? j + i : present - 1;
        load_cache_row<V>(cache, cache.keys, cache.key_scales, first_row + start + row, padded,
                          values + i * padded);
      }
      for (int d = 0; d < padded; d += V::width) {
        typename V::Float r[V::width];
        for (int i = 0; i < V::width; ++i) r[i] = V::load(values + i * padded + d);
        V::transpose(r);
        for (int i = 0; i < V::width; ++i) V::store(keys + (d + i) * key_block + j, r[i]);
      }
    }
    for (int j = 0; j < present; ++j) {
      load_cache_row<V>(cache, cache.values, cache.value_scales, first_row + start + j, padded,
                        values + j * padded);
    }
    multiply_floats<V>(q, padded, queries, keys, key_block, key_block, size, false, scores,
                       key_block);
    for (int i = 0; i < queries; ++i) {
      const std::int64_t position = block.first_position + i / group;
      std::int64_t from = block.begin;
      if (arguments.window > 0 && position + 1 - arguments.window > from) {
        from = position + 1 - arguments.window;
      }
      const std::int64_t to = position + 1 < block.end ? position + 1 : block.end;
      float* row = scores + i * key_block;
      if (from >= start + key_block || to <= start || from >= to) {
        for (int j = 0; j < key_block; ++j) row[j] = 0;
        continue;
      }
      const float factor =
          soften<V>(row, static_cast<int>(from > start ? from - start : 0),
                    static_cast<int>(to < start + key_block ? to - start : key_block),
                    arguments.soft_cap, highest[i], totals[i]);
      if (factor != 1.0f) scale<V>(sums + i * padded, padded, factor);
    }
    multiply_floats<V>(scores, key_block, queries, values, padded, padded, present, true, sums,
                       padded);
  }

  for (int i = 0; i < queries; ++i) {
    const float* source = sums + i * padded;
    if (block.partial != nullptr) {
      float* out = block.partial + i * (size + 2);
      out[0] = highest[i];
      out[1] = totals[i];
      for (int d = 0; d < size; ++d) out[2 + d] = source[d];
      continue;
    }
    const std::int64_t token = block.first_token + i / group;
    const int head = block.kv_head * group + i % group;
    float* out = arguments.out + (token * arguments.heads + head) * size;
    const float inverse = 1.0f / totals[i];
    for (int d = 0; d < size; ++d) out[d] = source[d] * inverse;
  }
}

}  // namespace
}  // namespace quantloom::cpu
