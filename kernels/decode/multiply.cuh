// The products of a warp's pieces of a batch of strips, as partial sums in shared memory.
#pragma once

#include "decode/block.cuh"
#include "decode/fetch.cuh"
#include "decode/formats.h"
#include "matmul/codebook_planes.h"
#include "matmul/linear_planes.h"
#include "matmul/one_token.cuh"

namespace quantloom::kernels {

// Where the dynamic shared memory begins, so that a table's address needs no addition.
__device__ inline std::uint8_t* decode_table() {
  extern __shared__ __align__(128) std::uint8_t table[];
  return table;
}

template <class P>
constexpr XSums x_sums = !P::has_offset   ? XSums::none
                         : P::group == 16 ? XSums::per_16
                                          : XSums::per_32;

// Makes the table that of P, where another stands there or none; all multiplying warps together.
template <class P>
__device__ __forceinline__ void take_table(Block& block) {
  if constexpr (P::table_bytes > 0) {
    constexpr int own = decode_index(P::Format::format);
    if (block.table == own) return;
    load_table<P>(decode_table(), decode_threads);
    sync_consumers();
    if (threadIdx.x == 0) block.table = own;
  }
}

// Strips first .. last - 1 of a block's share, whose sums stand in shared memory together.
struct StripBatch {
  int first, last;
  std::uint32_t number;  // of the launch
  __device__ StripBatch(const DecodeShare& share, int strips, int first)
      : first(first),
        last(min(strips, first + decode_batch_strips)),
        number(share.batches_before + static_cast<std::uint32_t>(first / decode_batch_strips)) {}
};

// Each warp's sum of a strip has a place of its own, and where a strip has fewer pieces than there
// are warps, each piece.
__device__ inline int sums_of_strip(int pieces) { return min(pieces, decode_warps); }

// A warp's way through the pieces of a batch: piece i of the share is warp i % decode_warps's, and
// comes in stage i / stage_pieces of the share.
struct StageWalk {
  std::uint32_t filled, emptied;
  std::uint32_t stage;
  __device__ StageWalk(Block& block, std::uint32_t first_stage, int i)
      : filled(shared_address(block.rings.filled)),
        emptied(shared_address(block.rings.emptied)),
        stage(first_stage + static_cast<std::uint32_t>(i / stage_pieces)) {}
  __device__ std::uint32_t slot() const { return stage % ring_stages; }
  __device__ void wait() const { mbarrier_wait(filled + 8 * slot(), stage / ring_stages & 1); }
  __device__ void release(int lane) {
    mbarrier_arrive_warp(emptied + 8 * slot(), lane);
    stage += decode_warps / stage_pieces;
  }
};

// A warp's sums of rows g and g + 8 over its lanes, to `to` of the strip's 16.
__device__ __forceinline__ void store_partial(float sum_g, float sum_g8, int lane, float* to) {
  const bool odd = lane & 1;
  float sum = odd ? sum_g8 : sum_g;
  sum += __shfl_xor_sync(0xffffffffu, odd ? sum_g : sum_g8, 1);
  sum += __shfl_xor_sync(0xffffffffu, sum, 2);
  if ((lane & 2) == 0) to[lane / 4 + 8 * (lane & 1)] = sum;
}

// x of the one piece that a warp multiplies by, in registers.
template <class P>
struct HeldPiece {
  using Shared = SharedPiece<P>;
  uint2 operands[Shared::quads][Shared::steps];
  float scales[Shared::quads], sums[Shared::quads];

  // Whether take() can do without shared memory.
  static constexpr bool takes = P::group == 32;
  // From what the lanes have converted (lane_column() in convert.cuh): a lane has four of the eight
  // columns that it needs, in both planes, and the lane four from it the others.
  __device__ __forceinline__ void take(const FixedColumns (&fixed)[2], const OwnColumns& own,
                                       int lane) {
    const bool low = (lane & 4) != 0;
#pragma unroll
    for (int q = 0; q < min(Shared::quads, 2); ++q) {
      const std::uint32_t taken =
          __shfl_xor_sync(0xffffffffu, low ? fixed[q].high : fixed[q].low, 4);
      const uint2 x = {low ? taken : fixed[q].high, low ? fixed[q].low : taken};
#pragma unroll
      for (int j = 0; j < Shared::steps; ++j) {
        operands[q][j] = {x.x * own.factor[j], x.y * own.factor[j]};
      }
      scales[q] = __shfl_sync(0xffffffffu, fixed[q].step, 8 * (lane & 3));
      sums[q] = P::has_offset ? __shfl_sync(0xffffffffu, fixed[q].sum, 8 * (lane & 3)) : 0.0f;
    }
  }
  __device__ __forceinline__ void read(const Shared& from) {
#pragma unroll
    for (int q = 0; q < Shared::quads; ++q) {
      const auto quad = from.quad(q);
#pragma unroll
      for (int j = 0; j < Shared::steps; ++j) operands[q][j] = quad.operand(j);
      scales[q] = from.scale(q);
      sums[q] = P::has_offset ? from.sum(q) : 0.0f;
    }
  }
  struct Quad {
    const uint2 (&operands)[Shared::steps];
    __device__ uint2 operand(int step) const { return operands[step]; }
  };
  __device__ __forceinline__ Quad quad(int quad) const { return {operands[quad]}; }
  __device__ float scale(int quad) const { return scales[quad]; }
  __device__ float sum(int quad) const { return sums[quad]; }
};

// A warp's way through a block's share where all of its pieces have the same columns
// (DecodeProduct::own_columns).
struct OwnWalk {
  int pieces;  // of a strip
  std::uint32_t first_stage;
  const std::uint8_t* ring;
  float* partial;  // the warp's place in the first buffer
  __device__ OwnWalk(const Block& block, int pieces, const DecodeShare& share, std::uint8_t* base)
      : pieces(pieces),
        first_stage(share.stages_before),
        ring(base + block.program.layout.ring),
        partial(partial_sums(block.program.layout, base, 0) + threadIdx.x / 32 * strip_rows) {}
};

template <class P>
__device__ __forceinline__ void multiply_batch(const HeldPiece<P>& x, const OwnWalk& own,
                                               StripBatch batch, Block& block) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const std::uint8_t* ring = own.ring + warp % stage_pieces * P::piece_bytes;
  const int begin = batch.first * own.pieces, end = batch.last * own.pieces;
  int left = end - begin - warp;  // of the batch, from the warp's next piece on
  // Where the share ends amid a stage, the warps of the pieces that are missing release it too.
  const int least = 1 - (-end & (stage_pieces - 1));
  StageWalk walk(block, own.first_stage, begin + warp);
  float* to = own.partial + batch.number % sum_buffers * sums_of_batch;
#pragma unroll 1
  for (; left >= least; left -= decode_warps, to += decode_warps * strip_rows) {
    walk.wait();
    float sum_g = 0, sum_g8 = 0;
    if (left > 0) {
      multiply_piece<P>(ring + block.rings.offsets[walk.slot()], piece_groups, x, decode_table(),
                        lane, sum_g, sum_g8);
    }
    walk.release(lane);
    if (left > 0) store_partial(sum_g, sum_g8, lane, to);
  }
}

// Where x stands in shared memory for all warps.
template <class P>
__device__ __forceinline__ void multiply_batch(const DecodeProduct& a, DecodeShare share,
                                               StripBatch batch, Block& block, std::uint8_t* base) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const SharedX x(block.program.layout, base);
  float* partial = partial_sums(block.program.layout, base, batch.number);
  const std::uint8_t* ring = base + block.program.layout.ring;
  const OwnColumns own = OwnColumns::of<P>(lane);
  const int pieces = a.pieces, sums_each = sums_of_strip(pieces);
  // Blocks of 256 leave no part of a piece.
  const int tail_groups =
      P::block_groups == piece_groups ? piece_groups : a.columns / 32 - (pieces - 1) * piece_groups;
  const int end = batch.last * pieces;
  // Where the share ends amid a stage, the warps of the pieces that are missing release it too.
  const int last = end + (-end & (stage_pieces - 1));
  int i = batch.first * pieces;
  i += (warp - i) & (decode_warps - 1);
  StageWalk walk(block, share.stages_before, i);
  int s = i / pieces, p = i - s * pieces;
  float sum_g = 0, sum_g8 = 0;
  for (; i < last; i += decode_warps) {
    walk.wait();
    if (i < end) {
      const int in_stage = i % stage_pieces;
      int offset = in_stage * P::piece_bytes;
      if (tail_groups != piece_groups) {
        offset -= (s - (i - in_stage) / pieces) * (a.piece_bytes - a.tail_bytes);
      }
      const std::uint8_t* weights = ring + block.rings.offsets[walk.slot()] + offset;
      const std::int8_t* values = x.values + p * 512;
      const float* scales = x.scales + p * piece_groups;
      const float* sums = x.sums + p * (piece_columns / P::group);
      if (p + 1 == pieces && tail_groups != piece_groups) {
        multiply_piece<P>(weights, tail_groups, values, scales, sums, decode_table(), lane, own,
                          sum_g, sum_g8);
      } else {
        multiply_piece<P>(weights, piece_groups, values, scales, sums, decode_table(), lane, own,
                          sum_g, sum_g8);
      }
    }
    walk.release(lane);
    if (i >= end) break;
    if (p + decode_warps >= pieces || i + decode_warps >= end) {
      const int place = (s - batch.first) * sums_each + (pieces > decode_warps ? warp : p);
      store_partial(sum_g, sum_g8, lane, partial + place * strip_rows);
      sum_g = sum_g8 = 0;
    }
    for (p += decode_warps; p >= pieces; p -= pieces) ++s;
  }
}

}  // namespace quantloom::kernels
