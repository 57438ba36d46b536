// The splits of a row tile as one cluster: their sums meet in shared memory, each strip's in one of
// the blocks, which stores it. A kernel that adds them afterwards takes 1.1 to 2.9 us longer
// (two splits of 14336 x 4096, 16 and 64 tokens, on an H200).
#pragma once

#include "device/cluster.cuh"
#include "matmul/ring.cuh"
#include "matmul/wide_layout.cuh"

namespace quantloom::kernels {

// Two neighbouring warps, of gate's and up's strip in gate_up, give their sums to one block. It has
// places of a warp's sums, for each of its strips one of every other split.
constexpr int gather_place_bytes(int tile_tokens) { return strip_rows * tile_tokens * 4; }
constexpr int gather_bytes(int tile_tokens, int splits) {
  const int pairs = wide_strips(tile_tokens) / 2, strips = (pairs + splits - 1) / splits * 2;
  return strips * (splits - 1) * gather_place_bytes(tile_tokens);
}

// What a consumer warp has to do with it.
template <int tile_tokens>
class Gather {
 public:
  // barriers: of the block, one for each consumer warp, for one arrival.
  __device__ Gather(int splits, int rank, int warp, std::uint32_t places, std::uint32_t barriers)
      : splits_(splits), rank_(rank), owner_(warp / 2 % splits), barrier_(barriers + 8 * warp) {
    const int strip = warp / 2 / splits * 2 + warp % 2;
    places_ = places + strip * (splits - 1) * gather_place_bytes(tile_tokens);
  }

  __device__ bool is_owner() const { return rank_ == owner_; }

  // Before anything is given.
  __device__ void expect(int lane) const {
    if (is_owner() && lane == 0) {
      mbarrier_expect(barrier_, (splits_ - 1) * gather_place_bytes(tile_tokens));
    }
    __syncwarp();
  }

  // Gives the warp's sums away, or makes them the sums over all splits, in their order. Between
  // expect() and this every block of the cluster is done with what stood in the places.
  __device__ void meet(float (&d)[tile_tokens / 2], int lane) const {
    if (!is_owner()) {
      const std::uint32_t barrier = address_in_block(barrier_, owner_);
      const std::uint32_t to = address_in_block(place_of(rank_) + lane * 16, owner_);
#pragma unroll
      for (int i = 0; i < tile_tokens / 8; ++i) {
        const auto bits = [&](int e) { return __float_as_uint(d[4 * i + e]); };
        send(to + i * 512, make_uint4(bits(0), bits(1), bits(2), bits(3)), barrier);
      }
      return;
    }
    mbarrier_wait(barrier_, 0);
    float sum[tile_tokens / 2] = {};
#pragma unroll 1
    for (int split = 0; split < splits_; ++split) {
      const std::uint32_t from = place_of(split) + lane * 16;
#pragma unroll
      for (int i = 0; i < tile_tokens / 8; ++i) {
        const float4 v = split == rank_
                             ? make_float4(d[4 * i], d[4 * i + 1], d[4 * i + 2], d[4 * i + 3])
                             : load_shared(from + i * 512);
        sum[4 * i] += v.x, sum[4 * i + 1] += v.y, sum[4 * i + 2] += v.z, sum[4 * i + 3] += v.w;
      }
    }
#pragma unroll
    for (int i = 0; i < tile_tokens / 2; ++i) d[i] = sum[i];
  }

 private:
  // Of another split than the owner's.
  __device__ std::uint32_t place_of(int split) const {
    return places_ + (split < owner_ ? split : split - 1) * gather_place_bytes(tile_tokens);
  }
  __device__ static float4 load_shared(std::uint32_t from) {
    float4 v;
    asm volatile("ld.shared.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                 : "r"(from)
                 : "memory");
    return v;
  }
  int splits_, rank_, owner_;
  std::uint32_t places_, barrier_;
};

}  // namespace quantloom::kernels
