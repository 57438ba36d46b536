// The inner step of attention for one warp: 16 query rows against 16 cached positions with
// mma.m16n8k16.
//
// A sum over head dimensions or positions does not care for their order, so each thread reads 16
// neighbouring bytes of K or V from global memory straight into the fragment registers: no shared
// memory, no ldmatrix. Thread (r = lane / 4, c = lane % 4) holds, for K, positions r and r + 8,
// dimensions (4j + c) * 8 .. + 7 of chunk j; for V, positions 2c, 2c + 1, 2c + 8, 2c + 9,
// dimensions (8m + r) * 8 .. + 7 of group m.
#pragma once

#include <cuda_fp16.h>

#include <type_traits>

#include "transformer/attention_numbers.cuh"
#include "transformer/transformer.h"

namespace quantloom::kernels {

constexpr int tile_positions = 16;

__device__ inline void mma(float c[4], const std::uint32_t a[4], std::uint32_t b0,
                           std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// What a half misses of a float, as a half.
__device__ inline float rest(float x) { return x - __half2float(__float2half_rn(x)); }

// Two bytes that are int8 plus 128, each below 0x64, which makes it the half 1024 + byte; times the
// scales.
__device__ inline std::uint32_t scale_bytes(std::uint32_t raw, __half2 scales) {
  const __half2 bias = __half2half2(__ushort_as_half(0x6480));  // 1024 + 128
  const __half2 value = __hmul2(__hsub2(*reinterpret_cast<const __half2*>(&raw), bias), scales);
  return *reinterpret_cast<const std::uint32_t*>(&value);
}

// 8 int8 times a scale, as 8 halves.
__device__ inline uint4 scale_int8(uint2 quants, __half2 scale) {
  uint4 out;
  const std::uint32_t words[2] = {quants.x ^ 0x80808080u, quants.y ^ 0x80808080u};
  std::uint32_t* to = &out.x;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    to[i] =
        scale_bytes(__byte_perm(words[i / 2], 0x64646464u, i % 2 == 0 ? 0x5140 : 0x7362), scale);
  }
  return out;
}
__device__ inline uint4 scale_int8(uint2 quants, __half scale) {
  return scale_int8(quants, __half2half2(scale));
}

// `count` neighbouring scales, two to a word. Four stand at a multiple of 8 bytes, two of 4.
template <int count>
__device__ inline void load_scales(const std::uint16_t* from,
                                   std::uint32_t (&words)[(count + 1) / 2]) {
  if constexpr (count == 4) {
    const uint2 both = __ldg(reinterpret_cast<const uint2*>(from));
    words[0] = both.x;
    words[1] = both.y;
  } else if constexpr (count == 2) {
    words[0] = __ldg(reinterpret_cast<const std::uint32_t*>(from));
  } else {
#pragma unroll
    for (int i = 0; i < count; i += 2) {
      words[i / 2] = __ldg(from + i);
      if (i + 1 < count) words[i / 2] |= std::uint32_t{__ldg(from + i + 1)} << 16;
    }
  }
}

// What a thread reads of 16 positions, as it stands in the cache.
template <int head_size, bool q8_0>
struct CachedTile {
  static_assert(head_size % 32 == 0 && head_size <= 128);
  static constexpr int key_chunks = head_size / 32;
  static constexpr int value_chunks = head_size / 8;
  static constexpr int value_groups = (value_chunks + 7) / 8;
  static constexpr int scale_words = (head_size / 32 + 1) / 2;  // pairs of scales of a position
  using Chunk = std::conditional_t<q8_0, uint2, uint4>;         // 8 dimensions

  Chunk keys[2][key_chunks];
  Chunk values[4][value_groups];
  std::uint32_t key_scales[2][q8_0 ? scale_words : 1];
  std::uint32_t value_scales[4][q8_0 ? scale_words : 1];

  // `last` is the highest position that may be read.
  __device__ void load_keys(const Cache& cache, int kv_head, int begin, int last) {
    const int r = threadIdx.x % 32 / 4;
    const int c = threadIdx.x % 4;
    const std::int64_t base = kv_head * cache.capacity;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const std::int64_t row = base + min(begin + 8 * i + r, last);
#pragma unroll
      for (int j = 0; j < key_chunks; ++j) {
        keys[i][j] = read_chunk(cache.keys, row, (4 * j + c) * 8);
      }
      if constexpr (q8_0) read_scales(cache.key_scales, row, key_scales[i]);
    }
  }
  __device__ void load_values(const Cache& cache, int kv_head, int begin, int last) {
    const int r = threadIdx.x % 32 / 4;
    const int c = threadIdx.x % 4;
    const std::int64_t base = kv_head * cache.capacity;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const std::int64_t row = base + min(begin + 2 * c + i % 2 + 8 * (i / 2), last);
#pragma unroll
      for (int m = 0; m < value_groups; ++m) {
        const int chunk = 8 * m + r;
        values[i][m] = chunk < value_chunks ? read_chunk(cache.values, row, chunk * 8) : Chunk{};
      }
      if constexpr (q8_0) read_scales(cache.value_scales, row, value_scales[i]);
    }
  }

  // Eight halves of position r + 8i of keys, or of a thread's position i of values.
  __device__ uint4 key(int i, int j) const {
    if constexpr (q8_0) {
      return scale_int8(keys[i][j], twice(key_scales[i][j / 2], j % 2 == 0 ? 0x1010 : 0x3232));
    } else {
      return keys[i][j];
    }
  }
  __device__ uint4 value(int i, int m) const {
    if constexpr (q8_0) {
      const bool is_odd = threadIdx.x % 32 >= 16;  // group (8m + r) / 4
      return scale_int8(values[i][m], twice(value_scales[i][m], is_odd ? 0x3232 : 0x1010));
    } else {
      return values[i][m];
    }
  }

 private:
  static __device__ __half2 twice(std::uint32_t pair, std::uint32_t selector) {
    const std::uint32_t both = __byte_perm(pair, 0, selector);
    return *reinterpret_cast<const __half2*>(&both);
  }
  static __device__ Chunk read_chunk(const void* plane, std::int64_t row, int dimension) {
    constexpr int bytes = q8_0 ? 1 : 2;
    return __ldg(reinterpret_cast<const Chunk*>(static_cast<const std::uint8_t*>(plane) +
                                                (row * head_size + dimension) * bytes));
  }
  static __device__ void read_scales(const void* scales, std::int64_t row,
                                     std::uint32_t (&words)[q8_0 ? scale_words : 1]) {
    constexpr int count = head_size / 32;
    load_scales<count>(static_cast<const std::uint16_t*>(scales) + row * count, words);
  }
};

template <int head_size, bool q8_0>
struct AttentionTile {
  using Cached = CachedTile<head_size, q8_0>;
  static constexpr int key_chunks = Cached::key_chunks;
  static constexpr int value_chunks = Cached::value_chunks;
  static constexpr int value_groups = Cached::value_groups;

  float out[value_groups][8][4] = {};
  float peak[2] = {-INFINITY, -INFINITY};  // rows r and r + 8
  float mass[2] = {0, 0};                  // of this thread's positions only, until finish()

  // The tile of positions begin .. begin + 15 in `cached`. `mask(row_half, position)` says whether
  // row r + 8 * row_half sees it. In split mode rows 8 .. 15 carry what halves miss of rows 0 .. 7,
  // so products have 22 bits. The keys may be overwritten from keys_done() on, the values from
  // values_done() on.
  template <bool split, class Mask, class KeysDone, class ValuesDone>
  __device__ void step(const std::uint32_t (&q)[2 * key_chunks][4], const Cached& cached, int begin,
                       float cap, float cap_scale, Mask mask, KeysDone keys_done,
                       ValuesDone values_done) {
    const int c = threadIdx.x % 4;
    float score[2][4] = {};
#pragma unroll
    for (int tile = 0; tile < 2; ++tile) {
#pragma unroll
      for (int j = 0; j < key_chunks; ++j) {
        const uint4 key = cached.key(tile, j);
        mma(score[tile], q[2 * j], key.x, key.y);
        mma(score[tile], q[2 * j + 1], key.z, key.w);
      }
    }
    keys_done();

    constexpr int halves = split ? 1 : 2;
    float weight[2][4];
#pragma unroll
    for (int half = 0; half < halves; ++half) {
      float top = peak[half];
#pragma unroll
      for (int tile = 0; tile < 2; ++tile) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float s = score[tile][2 * half + i];
          if constexpr (split) s += score[tile][2 + i];
          if (cap > 0.0f) s = cap * tanhf(s / cap) * cap_scale;
          if (!mask(half, begin + 8 * tile + 2 * c + i)) s = -INFINITY;
          score[tile][2 * half + i] = s;
          top = fmaxf(top, s);
        }
      }
      top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
      top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
      const float origin = top == -INFINITY ? 0.0f : top;
      const float shrink = exp2f(peak[half] - origin);
      if (__any_sync(0xffffffffu, top != peak[half])) {
        mass[half] *= shrink;
#pragma unroll
        for (int m = 0; m < value_groups; ++m) {
#pragma unroll
          for (int e = 0; e < 8; ++e) {
            out[m][e][2 * half] *= shrink;
            out[m][e][2 * half + 1] *= shrink;
            if constexpr (split) {
              out[m][e][2] *= shrink;
              out[m][e][3] *= shrink;
            }
          }
        }
      }
      peak[half] = top;
#pragma unroll
      for (int tile = 0; tile < 2; ++tile) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const float p = exp2f(score[tile][2 * half + i] - origin);
          weight[tile][2 * half + i] = p;
          mass[half] += p;
        }
      }
    }

    std::uint32_t p[4];
#pragma unroll
    for (int tile = 0; tile < 2; ++tile) {
      p[2 * tile] = pack_halves(weight[tile][0], weight[tile][1]);
      if constexpr (split) {
        p[2 * tile + 1] = pack_halves(rest(weight[tile][0]), rest(weight[tile][1]));
      } else {
        p[2 * tile + 1] = pack_halves(weight[tile][2], weight[tile][3]);
      }
    }
#pragma unroll
    for (int m = 0; m < value_groups; ++m) {
      uint4 values[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) values[i] = cached.value(i, m);
#pragma unroll
      for (int e = 0; e < 8; ++e) {
        const auto word = [&](int i) {
          const uint4& v = values[i];
          return e < 2 ? v.x : e < 4 ? v.y : e < 6 ? v.z : v.w;
        };
        constexpr std::uint32_t even = 0x5410;
        constexpr std::uint32_t odd = 0x7632;
        const std::uint32_t selector = e % 2 == 0 ? even : odd;
        mma(out[m][e], p, __byte_perm(word(0), word(1), selector),
            __byte_perm(word(2), word(3), selector));
      }
    }
    values_done();
  }

  // Sums the mass over the row's four threads.
  __device__ void finish() {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      mass[half] += __shfl_xor_sync(0xffffffffu, mass[half], 1);
      mass[half] += __shfl_xor_sync(0xffffffffu, mass[half], 2);
    }
  }

  // f(dimension, value) for the two columns of each output tile of row r + 8 * half that this
  // thread holds.
  template <bool split, class Function>
  __device__ void for_each_output(int half, Function f) const {
    const int c = threadIdx.x % 4;
#pragma unroll
    for (int m = 0; m < value_groups; ++m) {
#pragma unroll
      for (int e = 0; e < 8; ++e) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int chunk = 8 * m + 2 * c + i;
          if (chunk >= value_chunks) continue;
          float value = out[m][e][2 * half + i];
          if constexpr (split) value += out[m][e][2 + i];
          f(chunk * 8 + e, value);
        }
      }
    }
  }
};

// Query fragments of one row pair: `row(half)` gives the row's head_size floats or null.
template <int head_size, bool split, class Row>
__device__ void load_queries(std::uint32_t (&q)[head_size / 16][4], float scale, Row row) {
  const int c = threadIdx.x % 4;
#pragma unroll
  for (int j = 0; j < head_size / 32; ++j) {
    float x[2][8] = {};
#pragma unroll
    for (int half = 0; half < (split ? 1 : 2); ++half) {
      const float* source = row(half);
      if (source != nullptr) {
        const float4* from = reinterpret_cast<const float4*>(source + (4 * j + c) * 8);
        const float4 parts[2] = {from[0], from[1]};
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          x[half][4 * i] = parts[i].x * scale;
          x[half][4 * i + 1] = parts[i].y * scale;
          x[half][4 * i + 2] = parts[i].z * scale;
          x[half][4 * i + 3] = parts[i].w * scale;
        }
      }
    }
    if constexpr (split) {
#pragma unroll
      for (int i = 0; i < 8; ++i) x[1][i] = rest(x[0][i]);
    }
#pragma unroll
    for (int k = 0; k < 2; ++k) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        q[2 * j + k][half] = pack_halves(x[half][4 * k], x[half][4 * k + 1]);
        q[2 * j + k][2 + half] = pack_halves(x[half][4 * k + 2], x[half][4 * k + 3]);
      }
    }
  }
}

}  // namespace quantloom::kernels
