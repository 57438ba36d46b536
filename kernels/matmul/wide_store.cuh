// What a warp of the wide kernel does with its 16 x tile_tokens sums. Lane 4g + t holds, for each
// block of eight tokens, row g of tokens 2t and 2t + 1 and the same of row g + 8.
#pragma once

#include "matmul/activations.cuh"
#include "matmul/strips.cuh"
#include "matmul/wide.h"

namespace quantloom::kernels {

// The tokens' scales of a tile, for each warp a copy of its own in shared memory: reads from global
// memory would queue behind the sums that were stored before them, a trip to the L2 for each batch.
constexpr int factor_bytes(int tile_tokens) { return tile_tokens * 4; }

// Starts the copy; finish_factors() waits for it. No lane may still read the tile before.
template <int tile_tokens>
__device__ inline void start_factors(const float* scales, std::uint32_t to, int lane) {
#pragma unroll
  for (int i = 0; i < tile_tokens; i += 128) {
    const int token = i + lane * 4;
    if (token < tile_tokens) {
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to + token * 4),
                   "l"(scales + token)
                   : "memory");
    }
  }
}

__device__ inline void finish_factors() {
  asm volatile("cp.async.wait_all;" ::: "memory");
  __syncwarp();
}

// Sums that are added to, loaded at a time, in blocks of eight tokens.
constexpr int store_batch = 4;

template <int tile_tokens>
__device__ inline void store_split(const float (&d)[tile_tokens / 2], float* sums, int padded_rows,
                                   int tokens, int lane) {
  const int t = lane & 3, g = lane >> 2;
  float* to = sums + static_cast<std::int64_t>(2 * t) * padded_rows + g;
#pragma unroll
  for (int i = 0; i < tile_tokens / 8; ++i, to += 8 * static_cast<std::int64_t>(padded_rows)) {
    if (8 * i + 2 * t < tokens) to[0] = d[4 * i], to[8] = d[4 * i + 2];
    if (8 * i + 2 * t + 1 < tokens) {
      to[padded_rows] = d[4 * i + 1], to[padded_rows + 8] = d[4 * i + 3];
    }
  }
}

// factors: of the tile's tokens.
template <int tile_tokens>
__device__ inline void store_tile(const float (&d)[tile_tokens / 2], const StripList& list,
                                  Strip strip, int first_token, const float* factors, float back,
                                  int lane) {
  const int t = lane & 3, g = lane >> 2;
  const int row = strip.index * strip_rows + g, rows = list.rows[strip.weight];
  const bool inside[2] = {row < rows, row + 8 < rows};
  const float* bias = list.bias[strip.weight];
  const float shift[2] = {bias != nullptr && inside[0] ? bias[row] : 0.0f,
                          bias != nullptr && inside[1] ? bias[row + 8] : 0.0f};
  const bool add = list.epilogue == MatmulEpilogue::add;
  float* out = static_cast<float*>(list.out[strip.weight]) +
               static_cast<std::int64_t>(first_token + 2 * t) * rows + row;
  const int left = list.tokens - first_token - 2 * t;
  constexpr int blocks = tile_tokens / 8, batch = blocks < store_batch ? blocks : store_batch;
  // Element e of a block: token 2t + (e & 1), row g + 8 (e >> 1).
  const auto at = [&](int i, int e) {
    return out + static_cast<std::int64_t>(8 * i + (e & 1)) * rows + 8 * (e >> 1);
  };
  const auto valid = [&](int i, int e) { return inside[e >> 1] && 8 * i + (e & 1) < left; };
  const auto load = [&](int first, float (&old)[4 * batch]) {
#pragma unroll
    for (int i = 0; i < batch; ++i) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        old[4 * i + e] = add && valid(first + i, e) ? *at(first + i, e) : 0.0f;
      }
    }
  };
  // The next batch is asked for before this one is stored, behind which its loads would queue.
  float old[2][4 * batch];
  load(0, old[0]);
#pragma unroll
  for (int b = 0; b < blocks; b += batch) {
    if (b + batch < blocks) load(b + batch, old[(b / batch + 1) % 2]);
#pragma unroll
    for (int i = b; i < b + batch; ++i) {
      const float2 factor = *reinterpret_cast<const float2*>(factors + 8 * i + 2 * t);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float sum = d[4 * i + e] * ((e & 1 ? factor.y : factor.x) * back);
        if (valid(i, e)) {
          *at(i, e) = sum + (old[b / batch % 2][4 * (i - b) + e] + shift[e >> 1]);
        }
      }
    }
  }
}

__device__ inline std::uint32_t pack_pair(float low, float high, __half) {
  const __half2 pair = __floats2half2_rn(low, high);
  return *reinterpret_cast<const std::uint32_t*>(&pair);
}
__device__ inline std::uint32_t pack_pair(float low, float high, __nv_bfloat16) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const std::uint32_t*>(&pair);
}

// From row g's pair of columns 2t and 2t + 1 to column g's pair of rows.
__device__ inline std::uint32_t transpose_pairs(std::uint32_t pair) {
  std::uint32_t result;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(result) : "r"(pair));
  return result;
}

// store_tile() of 16-bit results, of a number of rows in fours: four lanes write the 32 bytes of a
// token.
template <class Out, int tile_tokens>
__device__ inline void store_halves(const float (&d)[tile_tokens / 2], const StripList& list,
                                    Strip strip, int first_token, const float* factors, float back,
                                    int lane) {
  const int t = lane & 3, g = lane >> 2, odd = t & 1;
  const int first_row = strip.index * strip_rows, rows = list.rows[strip.weight];
  const float* bias = list.bias[strip.weight];
  const auto shift_of = [&](int row) { return bias != nullptr && row < rows ? bias[row] : 0.0f; };
  const float shift[2] = {shift_of(first_row + g), shift_of(first_row + g + 8)};
  // Even lanes end with four rows of the first eight, odd ones with four of the others.
  const int row = first_row + 2 * t + 6 * odd;
  const int left = row < rows ? list.tokens - first_token - g : 0;
  Out* out = static_cast<Out*>(list.out[strip.weight]) +
             static_cast<std::int64_t>(first_token + g) * rows + row;
#pragma unroll
  for (int i = 0; i < tile_tokens / 8; ++i, out += 8 * static_cast<std::int64_t>(rows)) {
    const float2 factor = *reinterpret_cast<const float2*>(factors + 8 * i + 2 * t);
    float sum[4];
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      sum[e] = d[4 * i + e] * ((e & 1 ? factor.y : factor.x) * back) + shift[e >> 1];
    }
    const std::uint32_t low = transpose_pairs(pack_pair(sum[0], sum[1], Out{}));
    const std::uint32_t high = transpose_pairs(pack_pair(sum[2], sum[3], Out{}));
    const std::uint32_t got = __shfl_xor_sync(0xffffffffu, odd ? low : high, 1);
    if (8 * i < left) {
      *reinterpret_cast<uint2*>(out) = odd ? make_uint2(got, high) : make_uint2(low, got);
    }
  }
}

// x * sigmoid(linear * x + cubic * x^3): SiLU, or GELU by tanh, without a branch or a slow
// division.
struct SigmoidGate {
  float linear = 1.0f, cubic = 0.0f;
  __device__ explicit SigmoidGate(Activation activation) {
    // (1 + tanh(u)) / 2 = sigmoid(2 u)
    if (activation == Activation::gelu_tanh) linear = 1.5957691f, cubic = 0.0713548f;
  }
  __device__ float operator()(float x) const {
    return __fdividef(x, 1.0f + __expf(-x * (linear + cubic * x * x)));
  }
};

// Blocks of eight tokens that two warps give each other at a time.
constexpr int pair_blocks(int tile_tokens) {
  return tile_tokens >= 128 ? 4 : tile_tokens >= 64 ? 2 : 1;
}
constexpr int pair_bytes(int tile_tokens) { return 2 * pair_blocks(tile_tokens) * 128 * 4; }

// Two warps, an even one with the gate and the next with the other weight: each ends with both for
// half of the tokens, and calls use(i, values) for its blocks of eight of them. Element e of a
// block: token 2t + (e & 1), row g + 8 (e >> 1). `pair` holds pair_bytes(tile_tokens).
template <int tile_tokens, class Use>
__device__ inline void gate_pair(const float (&d)[tile_tokens / 2], const StripList& list,
                                 Strip strip, bool stored, const float* factors, float back,
                                 int warp, int lane, float* pair, Use&& use) {
  constexpr int half = tile_tokens / 16, chunk = pair_blocks(tile_tokens);
  static_assert(half % chunk == 0);
  const int t = lane & 3, g = lane >> 2;
  const bool has_up = warp % 2 == 1;
  const int rows = list.rows[0], row = strip.index * strip_rows + g;
  const auto bias = [&](int weight, int i) {
    const bool inside = stored && row + 8 * i < rows;
    return list.bias[weight] != nullptr && inside ? list.bias[weight][row + 8 * i] : 0.0f;
  };
  const float gate_bias[2] = {bias(0, 0), bias(0, 1)}, up_bias[2] = {bias(1, 0), bias(1, 1)};
  const SigmoidGate gated(list.activation);
  const float* scale = factors + 2 * t;
  auto* give = reinterpret_cast<float4*>(pair) + (has_up ? 32 * chunk : 0) + lane;
  const auto* take = reinterpret_cast<const float4*>(pair) + (has_up ? 0 : 32 * chunk) + lane;
  const auto meet = [&] { asm volatile("bar.sync %0, 64;" ::"r"(1 + warp / 2) : "memory"); };
#pragma unroll
  for (int b = 0; b < half; b += chunk) {
    float kept[chunk][4];
#pragma unroll
    for (int i = 0; i < chunk; ++i) {
      const float2 low = *reinterpret_cast<const float2*>(scale + 8 * (b + i));
      const float2 high = *reinterpret_cast<const float2*>(scale + 8 * (half + b + i));
      float given[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float first = d[4 * (b + i) + e] * ((e & 1 ? low.y : low.x) * back);
        const float second = d[4 * (half + b + i) + e] * ((e & 1 ? high.y : high.x) * back);
        kept[i][e] = has_up ? second : first;
        given[e] = has_up ? first : second;
      }
      give[32 * i] = make_float4(given[0], given[1], given[2], given[3]);
    }
    meet();
#pragma unroll
    for (int i = 0; i < chunk; ++i) {
      const float4 taken = take[32 * i];
      const float other[4] = {taken.x, taken.y, taken.z, taken.w};
      float value[4];
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float gate = (has_up ? other[e] : kept[i][e]) + gate_bias[e >> 1];
        const float up = (has_up ? kept[i][e] : other[e]) + up_bias[e >> 1];
        value[e] = gated(gate) * up;
      }
      use(b + i, value);
    }
    meet();
  }
}

// The first token of the half that a warp ends with.
template <int tile_tokens>
__device__ inline int first_kept(int first_token, int warp) {
  return first_token + warp % 2 * (tile_tokens / 2);
}

template <int tile_tokens>
__device__ inline void store_pair(const float (&d)[tile_tokens / 2], const StripList& list,
                                  Strip strip, bool stored, int first_token, const float* factors,
                                  float back, int warp, int lane, float* pair) {
  const int t = lane & 3, g = lane >> 2;
  const int rows = list.rows[0], row = strip.index * strip_rows + g;
  const bool inside[2] = {stored && row < rows, stored && row + 8 < rows};
  const int first = first_kept<tile_tokens>(first_token, warp) + 2 * t;
  float* out = static_cast<float*>(list.out[0]) + static_cast<std::int64_t>(first) * rows + row;
  gate_pair<tile_tokens>(
      d, list, strip, stored, factors, back, warp, lane, pair, [&](int i, const float (&value)[4]) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          const int token = 8 * i + (e & 1);
          if (inside[e >> 1] && first + token < list.tokens) {
            out[static_cast<std::int64_t>(token) * rows + 8 * (e >> 1)] = value[e];
          }
        }
      });
}

// store_pair() into a prepared x (wide.h), whose rows are whole chunks of 64. A strip scales a
// token by its own largest value, in coarse steps: align_steps() makes them agree.
template <int tile_tokens>
__device__ inline void prepare_pair(const float (&d)[tile_tokens / 2], const StripList& list,
                                    Strip strip, bool stored, int first_token, const float* factors,
                                    float back, int warp, int lane, float* pair) {
  const int t = lane & 3, g = lane >> 2;
  const PreparedLayout layout = prepared_layout(list.tokens, list.rows[0]);
  auto* base = static_cast<std::uint8_t*>(list.out[0]);
  const int first = first_kept<tile_tokens>(first_token, warp);
  // Lane 4g + t ends with token g's rows 2t, 2t + 1, 2t + 8 and 2t + 9: half of core t's 16 bytes
  // of its group (WideImage).
  auto* image =
      base + layout.image +
      (static_cast<std::int64_t>(strip.index / 4) * layout.padded_tokens + first + g) * 128 +
      ((strip.index / 2 % 2 * 4 + t) ^ g) * 16 + strip.index % 2 * 8;
  auto* steps = reinterpret_cast<char2*>(
      base + layout.steps + static_cast<std::int64_t>(strip.index) * layout.padded_tokens + first +
      2 * t);
  gate_pair<tile_tokens>(
      d, list, strip, stored, factors, back, warp, lane, pair, [&](int i, const float (&value)[4]) {
        // The exponents of the lane's two tokens in one word.
        const auto exponent = [](float v) { return __float_as_uint(v) >> 23 & 255u; };
        unsigned largest = max(exponent(value[0]), exponent(value[2])) |
                           max(exponent(value[1]), exponent(value[3])) << 16;
#pragma unroll
        for (int l = 4; l < 32; l *= 2) {
          largest = __vmaxu2(largest, __shfl_xor_sync(0xffffffffu, largest, l));
        }
        const int step[2] = {coarse_step(largest & 0xffffu), coarse_step(largest >> 16)};
        const float scale[2] = {coarse_scale(step[0]), coarse_scale(step[1])};
        const std::uint32_t low =
            transpose_pairs(pack_pair(value[0] * scale[0], value[1] * scale[1], __half{}));
        const std::uint32_t high =
            transpose_pairs(pack_pair(value[2] * scale[0], value[3] * scale[1], __half{}));
        if (!stored) return;
        *reinterpret_cast<uint2*>(image + i * 1024) = make_uint2(low, high);
        if (g == 0) {
          steps[4 * i] = make_char2(static_cast<char>(step[0]), static_cast<char>(step[1]));
        }
      });
}

}  // namespace quantloom::kernels
