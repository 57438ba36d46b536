// The inner step of the program's attention for one warp: eight query rows against 16 cached
// positions.
#pragma once

#include "transformer/attention_tile.cuh"

namespace quantloom::kernels {

// One head's keys and values of one layer.
struct HeadCache {
  const void *keys, *values, *key_scales, *value_scales;
  __device__ HeadCache(const Cache& cache, int head) {
    const std::int64_t at = head * cache.capacity * cache.head_size;
    const std::int64_t bytes = cache.type == CacheType::q8_0 ? at : 2 * at;
    keys = static_cast<const std::uint8_t*>(cache.keys) + bytes;
    values = static_cast<const std::uint8_t*>(cache.values) + bytes;
    key_scales = static_cast<const std::uint16_t*>(cache.key_scales) + at / 32;
    value_scales = static_cast<const std::uint16_t*>(cache.value_scales) + at / 32;
  }
};

// cap * tanh(score / cap), in little code.
__device__ inline float capped(float score, float cap) {
  const float e = __expf(-2.0f * fabsf(score) / cap);
  return copysignf(cap * (1.0f - e) / (1.0f + e), score);
}

// As AttentionTile in its split mode, for eight rows, with registers for 17 warps: the queries stay
// in shared memory, values are read late, and what halves miss of a weight goes through a second
// product into the same sums.
template <int head_size, bool q8_0>
struct DecodeTile {
  static constexpr int key_chunks = head_size / 32;
  static constexpr int value_chunks = head_size / 8;
  static constexpr int value_groups = (value_chunks + 7) / 8;

  float out[value_groups][8][2] = {};
  float peak = -INFINITY;
  float mass = 0;  // of this thread's positions only, until finish()

  // 8 values a lane: `chunk` is that of its first read of the row, further ones are `more` on.
  struct Row {
    const void* values;
    const void* scales;
    __device__ Row(const void* plane, const void* scale_plane, int row, int chunk)
        : values(static_cast<const std::uint8_t*>(plane) +
                 static_cast<std::int64_t>(row * (head_size / 8) + chunk) * (q8_0 ? 8 : 16)),
          scales(static_cast<const std::uint16_t*>(scale_plane) + row * (head_size / 32)) {}
    __device__ uint4 read(int more, int group) const {
      if constexpr (q8_0) {
        const unsigned short scale = __ldcg(static_cast<const unsigned short*>(scales) + group);
        return scale_int8(__ldcg(static_cast<const uint2*>(values) + more),
                          __ushort_as_half(scale));
      } else {
        return __ldcg(static_cast<const uint4*>(values) + more);
      }
    }
  };

  // Positions begin .. begin + 15, of which those from `to` on are masked; to - 1 may be read.
  __device__ __forceinline__ void step(const uint4* fragments, const HeadCache& cache, int begin,
                                       int to, float cap, float cap_scale) {
    const int lane = threadIdx.x % 32, r = lane / 4, c = lane % 4;
    const auto row = [&](int i) { return min(begin + i, to - 1); };
    float score[2][4] = {};
#pragma unroll
    for (int tile = 0; tile < 2; ++tile) {
      uint4 keys[key_chunks];
      const Row from(cache.keys, cache.key_scales, row(8 * tile + r), c);
#pragma unroll
      for (int j = 0; j < key_chunks; ++j) keys[j] = from.read(4 * j, j);
#pragma unroll
      for (int j = 0; j < key_chunks; ++j) {
        const uint4 first = fragments[2 * j * 32 + lane],
                    second = fragments[(2 * j + 1) * 32 + lane];
        const std::uint32_t a[4] = {first.x, first.y, first.z, first.w};
        const std::uint32_t b[4] = {second.x, second.y, second.z, second.w};
        mma(score[tile], a, keys[j].x, keys[j].y);
        mma(score[tile], b, keys[j].z, keys[j].w);
      }
    }
    __syncwarp();  // values are not read before this, which would take too many registers
    float top = peak;
    float weight[2][2];
#pragma unroll
    for (int tile = 0; tile < 2; ++tile) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float s = score[tile][i] + score[tile][2 + i];
        if (cap > 0.0f) s = capped(s, cap) * cap_scale;
        if (begin + 8 * tile + 2 * c + i >= to) s = -INFINITY;
        weight[tile][i] = s;
        top = fmaxf(top, s);
      }
    }
    top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
    top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
    const float origin = top == -INFINITY ? 0.0f : top;
    const float shrink = exp2f(peak - origin);
    if (__any_sync(0xffffffffu, top != peak)) {
      mass *= shrink;
#pragma unroll
      for (int m = 0; m < value_groups; ++m) {
#pragma unroll
        for (int e = 0; e < 8; ++e) {
          out[m][e][0] *= shrink, out[m][e][1] *= shrink;
        }
      }
    }
    peak = top;
#pragma unroll
    for (int tile = 0; tile < 2; ++tile) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        weight[tile][i] = exp2f(weight[tile][i] - origin);
        mass += weight[tile][i];
      }
    }
    const std::uint32_t high[4] = {pack(weight[0][0], weight[0][1]), 0,
                                   pack(weight[1][0], weight[1][1]), 0};
    const std::uint32_t low[4] = {pack(rest(weight[0][0]), rest(weight[0][1])), 0,
                                  pack(rest(weight[1][0]), rest(weight[1][1])), 0};
    const Row rows[4] = {Row(cache.values, cache.value_scales, row(2 * c), r),
                         Row(cache.values, cache.value_scales, row(2 * c + 1), r),
                         Row(cache.values, cache.value_scales, row(2 * c + 8), r),
                         Row(cache.values, cache.value_scales, row(2 * c + 9), r)};
#pragma unroll
    for (int m = 0; m < value_groups; ++m) {
      uint4 values[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        values[i] =
            8 * m + r < value_chunks ? rows[i].read(8 * m, 2 * m + r / 4) : uint4{0, 0, 0, 0};
      }
#pragma unroll
      for (int e = 0; e < 8; ++e) {
        const auto word = [&](const uint4& v) {
          return e < 2 ? v.x : e < 4 ? v.y : e < 6 ? v.z : v.w;
        };
        const std::uint32_t selector = e % 2 == 0 ? 0x5410 : 0x7632;
        const std::uint32_t b0 = __byte_perm(word(values[0]), word(values[1]), selector);
        const std::uint32_t b1 = __byte_perm(word(values[2]), word(values[3]), selector);
        float c[4] = {out[m][e][0], out[m][e][1], 0, 0};
        mma(c, high, b0, b1);
        mma(c, low, b0, b1);
        out[m][e][0] = c[0], out[m][e][1] = c[1];
      }
    }
  }

  // Sums the mass over the row's four threads.
  __device__ void finish() {
    mass += __shfl_xor_sync(0xffffffffu, mass, 1);
    mass += __shfl_xor_sync(0xffffffffu, mass, 2);
  }

  // The sums of this thread's row.
  __device__ void store(float* to) const {
    const int c = threadIdx.x % 4;
#pragma unroll
    for (int m = 0; m < value_groups; ++m) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int chunk = 8 * m + 2 * c + i;
        if (chunk >= value_chunks) continue;
        auto* at = reinterpret_cast<float4*>(to + chunk * 8);
        at[0] = {out[m][0][i], out[m][1][i], out[m][2][i], out[m][3][i]};
        at[1] = {out[m][4][i], out[m][5][i], out[m][6][i], out[m][7][i]};
      }
    }
  }
};

}  // namespace quantloom::kernels
