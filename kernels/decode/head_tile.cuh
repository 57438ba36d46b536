// The inner step of the program's attention for one warp: eight query rows against eight
// cached positions.
#pragma once

#include <type_traits>

#include "decode/attention_split.cuh"
#include "transformer/attention_tile.cuh"

namespace quantloom::kernels {

// Eight neighbouring values of a cached row, as the cache has them.
template <bool q8_0>
struct CachedChunk {
  std::conditional_t<q8_0, uint2, uint4> values;
  unsigned short scale;  // where they are int8
  __device__ uint4 halves() const {
    if constexpr (q8_0) {
      return scale_int8(values, __ushort_as_half(scale));
    } else {
      return values;
    }
  }
};

// The key or value that this step writes to the cache, in shared memory, as the cache has it.
struct NewRow {
  uint4 values[most_head_size / 8];
  unsigned short scales[most_head_size / 32];
  template <bool q8_0>
  __device__ CachedChunk<q8_0> chunk(int at) const {
    CachedChunk<q8_0> out;
    out.values = reinterpret_cast<const decltype(out.values)*>(values)[at];
    if constexpr (q8_0) out.scale = scales[at / 4];
    return out;
  }
};

// One head's keys or values of one layer.
template <int head_size, bool q8_0>
struct HeadPlane {
  const std::uint8_t* values;
  const unsigned short* scales;
  __device__ HeadPlane(const void* values, const void* scales, const Cache& cache, int head) {
    const std::int64_t at = head * cache.capacity * head_size;
    this->values = static_cast<const std::uint8_t*>(values) + (q8_0 ? at : 2 * at);
    this->scales = static_cast<const unsigned short*>(scales) + at / 32;
  }
  // From chunk `at` of a row on.
  struct Row {
    const std::uint8_t* values;
    const unsigned short* scales;
    __device__ CachedChunk<q8_0> chunk(int more) const {
      using Values = decltype(CachedChunk<q8_0>::values);
      CachedChunk<q8_0> out;
      out.values = __ldcg(reinterpret_cast<const Values*>(values) + more);
      if constexpr (q8_0) out.scale = __ldcg(scales + more / 4);
      return out;
    }
  };
  __device__ Row row(int row, int at) const {
    const std::uint32_t index = row * (head_size / 8) + at;
    return {values + index * (q8_0 ? 8 : 16), scales + index / 4};
  }
};

// Eight positions' keys and values on their way through the registers of a warp, whose thread
// (r = lane / 4, c = lane % 4) holds, for K, position r, dimensions (4j + c) * 8 .. + 7 of chunk j;
// for V, positions 2c and 2c + 1, dimensions (8m + r) * 8 .. + 7 of group m.
template <int head_size, bool q8_0>
struct HeldTile {
  using Plane = HeadPlane<head_size, q8_0>;
  static constexpr int key_chunks = head_size / 32;
  static constexpr int value_chunks = head_size / 8;
  static constexpr int value_groups = (value_chunks + 7) / 8;

  CachedChunk<q8_0> keys[key_chunks];
  CachedChunk<q8_0> values[value_groups][2];

  // Positions from `begin` on; those behind `last` are read as `last`.
  __device__ void read_keys(const Plane& from, int begin, int last) {
    const auto row = from.row(min(begin + r(), last), c());
#pragma unroll
    for (int j = 0; j < key_chunks; ++j) keys[j] = row.chunk(4 * j);
  }
  __device__ void read_values(const Plane& from, int begin, int last) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const auto row = from.row(min(begin + 2 * c() + i, last), r());
#pragma unroll
      for (int m = 0; m < value_groups; ++m) {
        values[m][i] = 8 * m + r() < value_chunks ? row.chunk(8 * m) : CachedChunk<q8_0>{};
      }
    }
  }
  // Puts the new key and value in the place of what was read before they were written.
  __device__ void renew(const NewRow& key, const NewRow& value, int begin, int last) {
    if (begin + r() >= last) {
#pragma unroll
      for (int j = 0; j < key_chunks; ++j) keys[j] = key.chunk<q8_0>(4 * j + c());
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (begin + 2 * c() + i < last) continue;
#pragma unroll
      for (int m = 0; m < value_groups; ++m) {
        if (8 * m + r() < value_chunks) values[m][i] = value.chunk<q8_0>(8 * m + r());
      }
    }
  }

 private:
  static __device__ int r() { return threadIdx.x % 32 / 4; }
  static __device__ int c() { return threadIdx.x % 4; }
};

// cap * tanh(score / cap), without a division that could call a function: what is in registers
// around a call is spilled.
__device__ inline float capped(float score, float cap) {
  const float e = __expf(__fdividef(-2.0f * fabsf(score), cap));
  return copysignf(__fdividef(cap * (1.0f - e), 1.0f + e), score);
}

// As AttentionTile in its split mode, for eight rows and eight positions, with registers for 17
// warps: the queries stay in shared memory, and a weight and what halves miss of it stand as two
// positions of the same value.
template <int head_size, bool q8_0>
struct TileSums {
  using Tile = HeldTile<head_size, q8_0>;
  static constexpr int value_groups = Tile::value_groups;

  // Of group m, dimensions 2t and 2t + 1 of the thread's eight, each for rows 2c and 2c + 1.
  float out[value_groups][4][4] = {};
  float peak = -INFINITY;  // of row r
  float mass = 0;          // of this thread's positions only, until finish()

  // Adds positions begin .. begin + 7, of which those from `to` on are masked; loads() is called
  // when the tile's keys are used.
  template <class Loads>
  __device__ __forceinline__ void add(const uint4* fragments, const Tile& tile, int begin, int to,
                                      float cap, Loads loads) {
    float weight[2];
    score(fragments, tile, weight);
    loads();
    float top = peak;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (cap > 0.0f) weight[i] = capped(weight[i], cap) * 1.44269504088896341f;
      if (begin + 2 * static_cast<int>(threadIdx.x % 4) + i >= to) weight[i] = -INFINITY;
      top = fmaxf(top, weight[i]);
    }
    top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
    top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
    const float origin = top == -INFINITY ? 0.0f : top;
    if (__any_sync(0xffffffffu, top != peak)) {
      const float shrink = exp2f(peak - origin);
      mass *= shrink;
      const float even = __shfl_sync(0xffffffffu, shrink, threadIdx.x % 4 * 8),
                  odd = __shfl_sync(0xffffffffu, shrink, threadIdx.x % 4 * 8 + 4);
#pragma unroll
      for (int m = 0; m < value_groups; ++m) {
#pragma unroll
        for (int t = 0; t < 4; ++t) {
          out[m][t][0] *= even, out[m][t][1] *= odd;
          out[m][t][2] *= even, out[m][t][3] *= odd;
        }
      }
    }
    peak = top;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      weight[i] = exp2f(weight[i] - origin);
      mass += weight[i];
    }
    add_values(tile, weight);
  }

  // Sums the mass over the row's four threads.
  __device__ void finish() {
    mass += __shfl_xor_sync(0xffffffffu, mass, 1);
    mass += __shfl_xor_sync(0xffffffffu, mass, 2);
  }

  // The sums of the first `rows` rows, which lie `stride` apart.
  __device__ void store(float* to, int rows, int stride) const {
    const int r = threadIdx.x % 32 / 4, c = threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (2 * c + i >= rows) break;
#pragma unroll
      for (int m = 0; m < value_groups; ++m) {
        const int chunk = 8 * m + r;
        if (chunk >= Tile::value_chunks) continue;
        auto* at = reinterpret_cast<float4*>(to + (2 * c + i) * stride + chunk * 8);
        at[0] = {out[m][0][i], out[m][0][2 + i], out[m][1][i], out[m][1][2 + i]};
        at[1] = {out[m][2][i], out[m][2][2 + i], out[m][3][i], out[m][3][2 + i]};
      }
    }
  }

 private:
  static __device__ void score(const uint4* fragments, const Tile& tile, float (&out)[2]) {
    const int lane = threadIdx.x % 32;
    float sums[2][4] = {};  // two, for products that need not wait for each other
#pragma unroll
    for (int j = 0; j < Tile::key_chunks; ++j) {
      const uint4 first = fragments[2 * j * 32 + lane], second = fragments[(2 * j + 1) * 32 + lane];
      const std::uint32_t a[4] = {first.x, first.y, first.z, first.w};
      const std::uint32_t b[4] = {second.x, second.y, second.z, second.w};
      const uint4 keys = tile.keys[j].halves();
      mma(sums[0], a, keys.x, keys.y);
      mma(sums[1], b, keys.z, keys.w);
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      out[i] = sums[0][i] + sums[1][i] + (sums[0][2 + i] + sums[1][2 + i]);
    }
  }

  // Dimensions are the operand's rows and query rows its columns, whose sums are all wanted.
  __device__ void add_values(const Tile& tile, const float (&weight)[2]) {
    const std::uint32_t high = pack(weight[0], weight[1]),
                        low = pack(rest(weight[0]), rest(weight[1]));
#pragma unroll
    for (int m = 0; m < value_groups; ++m) {
      const uint4 values[2] = {tile.values[m][0].halves(), tile.values[m][1].halves()};
#pragma unroll
      for (int t = 0; t < 4; ++t) {
        const auto word = [&](const uint4& v) {
          return t == 0 ? v.x : t == 1 ? v.y : t == 2 ? v.z : v.w;
        };
        const std::uint32_t even = __byte_perm(word(values[0]), word(values[1]), 0x5410),
                            odd = __byte_perm(word(values[0]), word(values[1]), 0x7632);
        const std::uint32_t a[4] = {even, odd, even, odd};
        mma(out[m][t], a, high, low);
      }
    }
  }
};

}  // namespace quantloom::kernels
