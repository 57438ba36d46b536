// x of a product, converted to fixed point in shared memory, where it is not handed over so
// (fixed_columns.cuh).
//
// Where a strip has a power of two of whole pieces, at most one a warp, or no block more than one
// strip (DecodeProduct::own_columns), a warp only ever multiplies by the columns of one piece: it
// converts those for itself, and no warp waits for another; a later product of the same x finds
// them in shared memory. Otherwise the warps convert all columns for all.
#pragma once

#include "decode/block.cuh"
#include "decode/decode.h"
#include "matmul/one_token.cuh"

namespace quantloom::kernels {

// The chunks of 128 columns that a warp converts, and their places in shared memory.
struct Chunks {
  int first, step, count;
  int place, place_step;
  __device__ Chunks(const DecodeProduct& a, int warp, bool own) {
    if (own) {
      first = 2 * own_piece(warp, a.pieces), step = 1, count = 2;
      place = 2 * warp, place_step = 1;
    } else {
      first = warp, step = decode_warps,
      count = (2 * a.pieces - warp + decode_warps - 1) / decode_warps;
      place = warp, place_step = decode_warps;
    }
  }
};

template <XSums kind>
constexpr int lanes_of_sums = kind == XSums::none     ? 0
                              : kind == XSums::per_16 ? 4
                                                      : 8;

// The lane's four columns of a chunk: those of the operands that it needs itself or the lane four
// from it does (HeldPiece::take()), or where there are sums per 16 columns simply its own in turn.
template <bool own, XSums kind>
__device__ __forceinline__ int lane_column(int lane) {
  return own && kind != XSums::per_16 ? (lane & 24) * 4 + (lane & 3) * 8 + (lane & 4) : lane * 4;
}

// Converts n chunks side by side: one alone is a chain of shuffles.
template <bool own, XSums kind, int n>
__device__ __forceinline__ void convert_chunks(const float4 (&x)[n], const SharedX& to, int lane,
                                               const Chunks& chunks, int begin,
                                               FixedColumns (&fixed)[n]) {
  constexpr int lanes = lanes_of_sums<kind>;
#pragma unroll
  for (int i = 0; i < n; ++i) fixed[i] = fix_columns<lanes>(x[i], group_largest(x[i]));
#pragma unroll
  for (int i = 0; i < n; ++i) {
    if (begin + i >= chunks.count) break;
    const int at = chunks.place + (begin + i) * chunks.place_step;
    store_columns<lanes>(fixed[i], lane, lane_column<own, kind>(lane) % 32, to.values + at * 256,
                         to.scales + at * 4,
                         lanes == 0 ? nullptr : to.sums + at * (32 / max(lanes, 1)));
  }
}

// Converted side by side, and on their way behind them.
constexpr int chunks_at_a_time(bool own) { return own ? 2 : 4; }

// x, times the norm's weights where there is a norm: groups have scales of their own, so the factor
// 1 / rms is as well applied to the sums. The weights are read before the wait. `fixed` is what the
// lane has converted last: all of its own columns. Returns its part of the sum of squares.
template <bool normed, bool own, XSums kind>
__device__ __forceinline__ float convert_x(const DecodeProduct& a, Block& block, std::uint8_t* base,
                                           FixedColumns (&fixed)[chunks_at_a_time(own)]) {
  constexpr int n = chunks_at_a_time(own);
  const SharedX to(block.program.layout, base);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int columns = a.columns;
  const Chunks chunks(a, warp, own);
  const float* x_source = a.x;
  const float* norm_source = a.norm;
  const Tag tag{block.tag, a.x_is_tagged ? 1u : 0u};
  // Four columns of the lane in the warp's chunk i; -1 behind the last, which own columns never
  // are.
  const auto column = [&](int i) {
    const int at = (chunks.first + i * chunks.step) * 128 + lane_column<own, kind>(lane);
    return own || (i < chunks.count && at < columns) ? at : -1;
  };
  const auto load_x = [&](int i) {
    const int at = column(i);
    const float zero = tag.zero();
    return own || at >= 0 ? tag.read(reinterpret_cast<const float4*>(x_source + at))
                          : make_float4(zero, zero, zero, zero);
  };
  const auto load_weight = [&](int i) {
    const int at = column(i);
    return own || at >= 0 ? __ldcg(reinterpret_cast<const float4*>(norm_source + at))
                          : make_float4(0, 0, 0, 0);
  };
  float4 weight[n];
  if constexpr (normed) {
#pragma unroll
    for (int i = 0; i < n; ++i) weight[i] = load_weight(i);
  }
  float squares = 0;
  float4 next[n];
#pragma unroll
  for (int i = 0; i < n; ++i) next[i] = load_x(i);
  const auto turn = [&](int begin) {
    // One chunk first, so that a long wait asks little of the L2.
    read_again_until_there(
        tag, [&] { return tag.differs(next[0]); }, [&] { next[0] = load_x(begin); });
    read_again_until_there(
        tag,
        [&] {
          std::uint32_t differs = 0;
#pragma unroll
          for (int i = 1; i < n; ++i) differs |= tag.differs(next[i]);
          return differs;
        },
        [&] {
#pragma unroll
          for (int i = 1; i < n; ++i) next[i] = load_x(begin + i);
        });
    float4 x[n];
#pragma unroll
    for (int i = 0; i < n; ++i) x[i] = tag.value(next[i]);
    if constexpr (!own) {
#pragma unroll
      for (int i = 0; i < n; ++i) next[i] = load_x(begin + n + i);
    }
    if constexpr (normed) {
#pragma unroll
      for (int i = 0; i < n; ++i) {
        const float4 w = begin == 0 ? weight[i] : load_weight(begin + i);
        squares += x[i].x * x[i].x + x[i].y * x[i].y + x[i].z * x[i].z + x[i].w * x[i].w;
        x[i] = {x[i].x * w.x, x[i].y * w.y, x[i].z * w.z, x[i].w * w.w};
      }
    }
    convert_chunks<own, kind>(x, to, lane, chunks, begin, fixed);
  };
  if constexpr (own) {
    turn(0);
  } else {
    // A loop, though a short one: code that runs once a step comes from the L2 each time.
#pragma unroll 1
    for (int begin = 0; begin < chunks.count; begin += n) turn(begin);
  }
  if constexpr (own) {
    __syncwarp();
  } else {
    sync_consumers();
  }
  return own && warp >= a.pieces ? 0.0f : squares;
}

template <bool own, XSums kind>
__device__ __forceinline__ float convert_x(const DecodeProduct& a, Block& block, std::uint8_t* base,
                                           FixedColumns (&fixed)[chunks_at_a_time(own)]) {
  if (a.norm != nullptr) return convert_x<true, own, kind>(a, block, base, fixed);
  convert_x<false, own, kind>(a, block, base, fixed);
  return 0;
}

}  // namespace quantloom::kernels
