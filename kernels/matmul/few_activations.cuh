// x of 2 to 8 tokens in the registers of the warp that multiplies a piece: 16-bit fixed point with
// a step per token and 256 columns, q = 256 * high + low, as two int8 planes.
#pragma once

#include "device/cluster.cuh"
#include "matmul/few_product.cuh"
#include "matmul/ring.cuh"

namespace quantloom::kernels {

// Of `count` sums the lanes that differ in a bit of their number keep half each, for both.
template <int count>
__device__ inline void fold_sums(std::uint32_t (&sums)[piece_groups], int lane, int bit) {
#pragma unroll
  for (int i = 0; i < count / 2; ++i) {
    const std::uint32_t lower = sums[i], upper = sums[i + count / 2];
    const std::uint32_t other = __shfl_xor_sync(0xffffffffu, lane & bit ? lower : upper, bit);
    sums[i] = (lane & bit ? upper : lower) + other;
  }
}

// Tiles of four tokens, whose high and low plane are the columns 2i and 2i + 1 of an int8 step.
template <class P, int tiles>
struct FewX {
  uint2 values[piece_groups][tiles];
  float steps[tiles];  // of the tokens t
  SumsOfX<P> sums;

  // `converted` tiles of x [tokens, columns], from first_tile on, become the first ones here; piece
  // p has n groups of 32 columns. place: few_scale_bytes of the warp, where the sums stay until
  // read_sums(). With an infinity or NaN the step is NaN, and so is every sum with it. loading():
  // called when the loads of x are under way.
  template <int converted, class Loading>
  __device__ void convert(const float* x, int columns, int tokens, int first_tile, int p, int n,
                          int lane, float* place, Loading&& loading) {
    constexpr unsigned all = 0xffffffffu;
    // The lanes of a token's two planes convert four of their eight columns each, and give each
    // other the plane that the other one holds.
    const int t = lane & 3, in_tile = lane >> 3;
    const bool is_low = lane & 4;
    // 1.5 * 2^23 + q has q in its low bits.
    constexpr float rounding = 12582912.0f;
    constexpr std::uint32_t rounding_bits = 0x4b400000;
    const auto* from = reinterpret_cast<const float4*>(
        x + static_cast<std::int64_t>(4 * first_tile + in_tile) * columns + p * piece_columns +
        t * 8 + (lane & 4));
    // All loads are under way before the first is used.
    float4 v[converted][piece_groups];
#pragma unroll
    for (int tile = 0; tile < converted; ++tile) {
#pragma unroll
      for (int j = 0; j < piece_groups; ++j) {
        const bool is_there =
            4 * (first_tile + tile) + in_tile < tokens && (P::block_groups == 8 || j < n);
        v[tile][j] = is_there ? from[tile * columns + j * 8] : float4{};
      }
    }
    loading();
#pragma unroll
    for (int tile = 0; tile < converted; ++tile) {
      // As integers the absolute values are ordered, with NaN above infinity above everything.
      unsigned largest_bits = 0;
      const auto take = [&](float f) {
        largest_bits = max(largest_bits, __float_as_uint(fabsf(f)));
      };
      for (const float4& f : v[tile]) take(f.x), take(f.y), take(f.z), take(f.w);
#pragma unroll
      for (int i = 1; i < 8; i *= 2) {
        largest_bits = max(largest_bits, __shfl_xor_sync(all, largest_bits, i));
      }
      const float largest = __uint_as_float(largest_bits);
      const float inverse = largest > 1e-34f ? 32512.0f * __frcp_rn(largest) : 0.0f;
      const float step = largest <= 1e-34f    ? 0.0f
                         : largest < INFINITY ? largest * (1.0f / 32512.0f)
                                              : __int_as_float(0x7fffffff);
      steps[tile] = __shfl_sync(all, step, t * 8);
      std::uint32_t of_group[piece_groups];
#pragma unroll
      for (int j = 0; j < piece_groups; ++j) {
        const auto q = [&](float value) { return __float_as_uint(fmaf(value, inverse, rounding)); };
        const float4& f = v[tile][j];
        const std::uint32_t q0 = q(f.x), q1 = q(f.y), q2 = q(f.z), q3 = q(f.w);
        of_group[j] = q0 + q1 + (q2 + q3) - 4 * rounding_bits;
        const auto plane = [](std::uint32_t a, std::uint32_t b, std::uint32_t c, std::uint32_t d,
                              std::uint32_t selector) {
          return __byte_perm(__byte_perm(a, b, selector), __byte_perm(c, d, selector), 0x5410);
        };
        // high = (q + 128) >> 8; the low byte of q itself is q - 256 * high.
        const std::uint32_t high = plane(q0 + 128, q1 + 128, q2 + 128, q3 + 128, 0x0051);
        const std::uint32_t low = plane(q0, q1, q2, q3, 0x0040);
        const std::uint32_t got = __shfl_xor_sync(all, is_low ? high : low, 4);
        values[j][tile] = is_low ? make_uint2(got, low) : make_uint2(high, got);
      }
      if constexpr (P::has_offset) {
        constexpr int parts = 32 / P::group;  // scale groups of a group
        fold_sums<8>(of_group, lane, 4);
        fold_sums<4>(of_group, lane, 1);
        if constexpr (parts == 1) fold_sums<2>(of_group, lane, 2);
#pragma unroll
        for (int i = 0; i < parts; ++i) {
          const int j = (lane & 4) + 2 * (t & 1) + (parts == 1 ? t >> 1 : i);
          const int group = parts == 1 ? j : 2 * j + (t >> 1);
          place[(group * tiles + tile) * 4 + in_tile] =
              static_cast<float>(static_cast<int>(of_group[i]));
        }
      }
    }
    __syncwarp();
  }

  // The first tile becomes the second one of the same warp in block `rank`. given (four parts of
  // 512 bytes, so many bytes apart), place and barrier are those that it takes it with.
  static constexpr int given_bytes = 2048 + (4 + P::has_offset * piece_scale_groups<P> * 4) * 4;
  __device__ void give(int rank, const float* given, int apart, const float* place,
                       std::uint32_t barrier, int lane) const {
    const std::uint32_t to = address_in_block(shared_address(given), rank) + lane * 16;
    const std::uint32_t place_there = address_in_block(shared_address(place), rank);
    const std::uint32_t count = address_in_block(barrier, rank);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint2 a = values[2 * i][0], b = values[2 * i + 1][0];
      send(to + i * apart, make_uint4(a.x, a.y, b.x, b.y), count);
    }
    if (lane < 4) send(place_there + (steps_at + lane) * 4, steps[0], count);
    if constexpr (P::has_offset) {
#pragma unroll
      for (int i = 0; i < piece_scale_groups<P> / 8; ++i) {
        const int at = i * 64 + lane / 4 * 8 + lane % 4;  // [scale group][0][token]
        send(place_there + (at + 4) * 4, place[at], count);
      }
    }
  }
  __device__ void take(const float* given, int apart, const float* place, std::uint32_t barrier,
                       int lane) {
    mbarrier_wait(barrier, 0);
    const auto* from = reinterpret_cast<const std::uint8_t*>(given) + lane * 16;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const uint4 v = *reinterpret_cast<const uint4*>(from + i * apart);
      values[2 * i][tiles - 1] = make_uint2(v.x, v.y);
      values[2 * i + 1][tiles - 1] = make_uint2(v.z, v.w);
    }
    steps[tiles - 1] = place[steps_at + lane % 4];
  }

  __device__ void read_sums(const float* place, int lane) {
    if constexpr (P::has_offset) sums.template read<tiles>(place, lane);
    __syncwarp();
  }

 private:
  static constexpr int steps_at = piece_scale_groups<P> * 8;  // behind the sums of two tiles
};

}  // namespace quantloom::kernels
