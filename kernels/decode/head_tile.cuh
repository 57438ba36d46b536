// The inner step of the program's attention for one warp: eight query rows against eight
// cached positions.
#pragma once

#include <type_traits>

#include "decode/attention_split.cuh"
#include "transformer/attention_tile.cuh"

namespace quantloom::kernels {

// The key or value that this step writes to the cache, in shared memory, as the cache has it.
struct NewRow {
  uint4 values[most_head_size / 8];
  alignas(8) unsigned short scales[most_head_size / 32];
};

// 16 int8 of two neighbouring positions each, as eight pairs of halves times the positions' scales.
__device__ inline void pair_int8(uint2 first, uint2 second, std::uint32_t scales,
                                 std::uint32_t (&pairs)[8]) {
  const __half2 both = *reinterpret_cast<const __half2*>(&scales);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const std::uint32_t a = (i < 2 ? first.x : first.y) ^ 0x80808080u,
                        b = (i < 2 ? second.x : second.y) ^ 0x80808080u;
    const std::uint32_t bytes = __byte_perm(a, b, i % 2 == 0 ? 0x5140 : 0x7362);
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      pairs[2 * i + k] =
          scale_bytes(__byte_perm(bytes, 0x64646464u, k == 0 ? 0x4140 : 0x4342), both);
    }
  }
}

// Keys or values of one layer, from a head's first row on; a layer has less than 2^32 rows.
struct HeadPlane {
  const void* values;
  const void* scales;
  std::uint32_t first_row;
};

// Eight positions' keys and values on their way through the registers of a warp, whose thread
// (r = lane / 4, c = lane % 4) holds, for K, chunks of eight dimensions of position r; for V,
// chunks of positions 2c and 2c + 1. Int8 chunks that 16 bytes hold side by side are read together.
template <int head_size, bool q8_0>
struct HeldTile {
  using Chunk = std::conditional_t<q8_0, uint2, uint4>;
  static constexpr int key_chunks = head_size / 32;
  static constexpr int value_chunks = head_size / 8;
  static constexpr int value_groups = (value_chunks + 7) / 8;
  static constexpr bool keys_paired = q8_0 && head_size % 64 == 0;
  static constexpr bool values_paired = q8_0 && head_size == 128;

  Chunk keys[key_chunks];
  Chunk values[value_groups][2];
  std::uint32_t key_scales[q8_0 ? (key_chunks + 1) / 2 : 1];
  unsigned short value_scales[values_paired || !q8_0 ? 1 : value_groups][2];

  // Which of a row's chunks lane c holds as keys[j], and lane r as values[m].
  static __device__ int key_chunk(int j, int c) {
    return keys_paired ? j / 2 * 8 + 2 * c + j % 2 : 4 * j + c;
  }
  static __device__ int value_chunk(int m, int r) { return values_paired ? 2 * r + m : 8 * m + r; }
  // Where a row's chunk is among the keys: j and c.
  static __device__ int2 place_of_key_chunk(int chunk) {
    return keys_paired ? make_int2(chunk / 8 * 2 + chunk % 2, chunk / 2 % 4)
                       : make_int2(chunk / 4, chunk % 4);
  }

  // Positions from `begin` on; those behind `last` are read as `last`.
  __device__ void read_keys(const HeadPlane& from, int begin, int last) {
    const CachedRow row(from, min(begin + r(), last));
    read_key(row.values, row.scales);
  }
  __device__ void read_values(const HeadPlane& from, int begin, int last) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const CachedRow row(from, min(begin + 2 * c() + i, last));
      read_value(i, row.values, row.scales);
    }
  }
  // Puts the new key and value in the place of what was read before they were written.
  __device__ void renew(const NewRow& key, const NewRow& value, int begin, int last) {
    if (begin + r() >= last) read_key<false>(key.values, key.scales);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      if (begin + 2 * c() + i >= last) read_value<false>(i, value.values, value.scales);
    }
  }

  // Eight halves of a key, and of a chunk m of the two values the pairs that an operand wants.
  __device__ uint4 key(int j) const {
    if constexpr (q8_0) {
      const int at = keys_paired ? c() / 2 : j % 2;
      const std::uint32_t both = __byte_perm(key_scales[j / 2], 0, at == 0 ? 0x1010 : 0x3232);
      return scale_int8(keys[j], *reinterpret_cast<const __half2*>(&both));
    } else {
      return keys[j];
    }
  }
  __device__ void value_pairs(int m, std::uint32_t (&pairs)[8]) const {
    if constexpr (q8_0) {
      const auto& scales = value_scales[values_paired ? 0 : m];
      pair_int8(values[m][0], values[m][1], scales[0] | std::uint32_t{scales[1]} << 16, pairs);
    } else {
#pragma unroll
      for (int k = 0; k < 8; ++k) {
        const auto word = [&](const uint4& v) {
          return k < 2 ? v.x : k < 4 ? v.y : k < 6 ? v.z : v.w;
        };
        pairs[k] =
            __byte_perm(word(values[m][0]), word(values[m][1]), k % 2 == 0 ? 0x5410 : 0x7632);
      }
    }
  }

 private:
  static __device__ int r() { return threadIdx.x % 32 / 4; }
  static __device__ int c() { return threadIdx.x % 4; }

  struct CachedRow {
    const void* values;
    const unsigned short* scales;
    __device__ CachedRow(const HeadPlane& from, int position) {
      const std::uint64_t row = from.first_row + static_cast<std::uint32_t>(position);
      values = static_cast<const Chunk*>(from.values) + row * value_chunks;
      scales = static_cast<const unsigned short*>(from.scales) + row * key_chunks;
    }
  };
  // From global memory, past the L1, or from shared memory.
  template <bool global, class Value>
  static __device__ Value read(const void* from) {
    return global ? __ldcg(static_cast<const Value*>(from)) : *static_cast<const Value*>(from);
  }
  // Two neighbouring chunks.
  template <bool global>
  static __device__ void read_two(const void* from, uint2& first, uint2& second) {
    const auto both = read<global, uint4>(from);
    first = {both.x, both.y}, second = {both.z, both.w};
  }
  template <bool global = true>
  __device__ void read_key(const void* row, const unsigned short* scales) {
    const auto* chunks = static_cast<const Chunk*>(row);
    if constexpr (keys_paired) {
#pragma unroll
      for (int j = 0; j < key_chunks; j += 2) {
        read_two<global>(chunks + key_chunk(j, c()), keys[j], keys[j + 1]);
      }
    } else {
#pragma unroll
      for (int j = 0; j < key_chunks; ++j) {
        keys[j] = read<global, Chunk>(chunks + key_chunk(j, c()));
      }
    }
    if constexpr (!q8_0) {
      return;
    } else if constexpr (key_chunks == 4) {
      const auto words = read<global, uint2>(scales);
      key_scales[0] = words.x, key_scales[1] = words.y;
    } else if constexpr (key_chunks == 2) {
      key_scales[0] = read<global, std::uint32_t>(scales);
    } else {
#pragma unroll
      for (int j = 0; j < key_chunks; ++j) {
        const std::uint32_t scale = read<global, unsigned short>(scales + j);
        key_scales[j / 2] = j % 2 == 0 ? scale : key_scales[j / 2] | scale << 16;
      }
    }
  }
  template <bool global = true>
  __device__ void read_value(int i, const void* row, const unsigned short* scales) {
    const auto* chunks = static_cast<const Chunk*>(row);
    if constexpr (values_paired) {
      read_two<global>(chunks + value_chunk(0, r()), values[0][i], values[1][i]);
      value_scales[0][i] = read<global, unsigned short>(scales + r() / 2);
    } else {
#pragma unroll
      for (int m = 0; m < value_groups; ++m) {
        const int chunk = value_chunk(m, r());
        const bool is_there = chunk < value_chunks;
        values[m][i] = is_there ? read<global, Chunk>(chunks + chunk) : Chunk{};
        if constexpr (q8_0) {
          value_scales[m][i] = is_there ? read<global, unsigned short>(scales + chunk / 4) : 0;
        }
      }
    }
  }
};

// cap * tanh(score / cap), without a division that could call a function: what is in registers
// around a call is spilled.
__device__ inline float capped(float score, float cap) {
  const float e = __expf(__fdividef(-2.0f * fabsf(score), cap));
  return copysignf(__fdividef(cap * (1.0f - e), 1.0f + e), score);
}

// As mma(), with half the columns of A: m16n8k8.
__device__ inline void mma_8(float c[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t b) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5}, {%6}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(b));
}

// As AttentionTile in its split mode, for eight rows and eight positions, with registers for 17
// warps: the queries stay in shared memory, and a weight and what halves miss of it are multiplied
// one after the other.
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
      const float shrink = exp2_fast(peak - origin);
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
      weight[i] = exp2_fast(weight[i] - origin);
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
        const int chunk = Tile::value_chunk(m, r);
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
      const uint4 keys = tile.key(j);
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
    const std::uint32_t high = pack_halves(weight[0], weight[1]),
                        low = pack_halves(rest(weight[0]), rest(weight[1]));
#pragma unroll
    for (int m = 0; m < value_groups; ++m) {
      std::uint32_t pairs[8];
      tile.value_pairs(m, pairs);
#pragma unroll
      for (int t = 0; t < 4; ++t) {
        const std::uint32_t even = pairs[2 * t], odd = pairs[2 * t + 1];
        mma_8(out[m][t], even, odd, high);
        mma_8(out[m][t], even, odd, low);
      }
    }
  }
};

}  // namespace quantloom::kernels
