// A product of the program: x converted to fixed point by every block, and the block's strips
// multiplied piece by piece. Other warps add the sums and store them (store.cuh).
#pragma once

#include "decode/block.cuh"
#include "decode/convert.cuh"
#include "decode/fixed_columns.cuh"
#include "decode/multiply.cuh"
#include "transformer/reduce.cuh"

namespace quantloom::kernels {

// A whole step, so that what it keeps in registers lives through no call.
template <class P, bool own>
__device__ __noinline__ void product_step(Block& block, std::uint8_t* base, int turn) {
  constexpr XSums kind = x_sums<P>;
  const StepCopy& step = block.step(turn);
  const DecodeProduct& a = step.get().product;
  const DecodeShare share = step.share;
  const int strips = strips_of(a, share), pieces = a.pieces;
  if (strips == 0) {
    for (int i = 1; i < decode_stamps; ++i) block.stamp(i);
    return;
  }
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const bool converts = share.converts_for != 0;
  // Here and below what is known without x stands before the wait for it.
  take_table<P>(block);
  const StripBatch first_batch(share, strips, 0);
  wait_for_stores(block, first_batch.number - (sum_buffers - 1));
  float squares = 0;
  const auto batches = [&](auto multiply) {
    if (threadIdx.x == decode_threads - 1) note_step(block.rings, turn);
    block.stamp(1);
    for (StripBatch batch = first_batch;;) {
      const std::uint32_t buffer = batch.number % sum_buffers;
      if (lane == 0) {
        if (batch.first == 0) block.squares[buffer][warp] = squares;
        mbarrier_arrive(shared_address(&block.sums.squared[buffer]));
      }
      multiply(batch);
      mbarrier_arrive_warp(shared_address(&block.sums.summed[buffer]), lane);
      if (batch.last >= strips) break;
      batch = StripBatch(share, strips, batch.last);
      wait_for_stores(block, batch.number - (sum_buffers - 1));
    }
  };
  if constexpr (own) {
    // Warps without a piece, where a block's share is small, leave the others theirs of the
    // multiprocessor.
    const int most_pieces = max(strips, static_cast<int>(share.converts_for)) * pieces;
    const bool works = warp < ((most_pieces + stage_pieces - 1) & -stage_pieces);
    const SharedX x(block.program.layout, base);
    const OwnColumns columns = OwnColumns::of<P>(lane);
    const OwnWalk walk(block, pieces, share, base);
    HeldPiece<P> held;
    FixedColumns fixed[2] = {};
    if (converts && works) {
      if (a.x_is_fixed) {
        copy_fixed<own, kind>(a, block, base);
      } else {
        squares = convert_x<own, kind>(a, block, base, fixed);
      }
    }
    if (a.norm != nullptr) squares = warp_sum(squares);
    if (HeldPiece<P>::takes && converts && !a.x_is_fixed) {
      held.take(fixed, columns, lane);
    } else {
      held.read({x.values + warp * 512, x.scales + warp * piece_groups,
                 x.sums + warp * (piece_columns / P::group), columns, lane});
    }
    batches([&](StripBatch batch) { multiply_batch<P>(held, walk, batch, block); });
  } else {
    if (converts && a.x_is_fixed) {
      copy_fixed<own, kind>(a, block, base);
    } else if (converts) {
      FixedColumns fixed[chunks_at_a_time(own)];
      squares = warp_sum(convert_x<own, kind>(a, block, base, fixed));
    }
    batches([&](StripBatch batch) { multiply_batch<P>(a, share, batch, block, base); });
  }
}

}  // namespace quantloom::kernels
