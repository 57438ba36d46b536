// The stream of weight pieces through a block's shared memory, through all products of the program
// without a stop at their borders. One thread fills a ring with stages of stage_pieces neighbouring
// pieces of the block's share: a copy of some 20 KB each, since the copy engine takes one at a time
// from a thread. Piece i of a share is warp i % decode_warps's.
#pragma once

#include "decode/decode.h"
#include "decode/grid.cuh"
#include "decode/step.cuh"
#include "matmul/planes.h"
#include "matmul/ring.cuh"

namespace quantloom::kernels {

struct RingState {
  std::uint64_t filled[ring_stages];
  std::uint64_t emptied[ring_stages];  // by the warps of its pieces
  std::uint32_t offsets[ring_stages];  // in the ring's bytes
  std::uint32_t ends[ring_stages];     // the filling thread's: RingPlace::passed behind the stage
};

// A block's strips in their order: in gate_up an up follows its gate.
__device__ inline int strips_of(const DecodeProduct& product, DecodeShare share) {
  return product.epilogue == MatmulEpilogue::gate_up ? 2 * share.count : share.count;
}

// Strip s of a block's share: which weight, which of its strips, and how many of the share stand
// there from it on.
struct LocatedStrip {
  int weight, index, run;
  __device__ LocatedStrip(const DecodeProduct& product, DecodeShare share, int s) {
    if (product.epilogue == MatmulEpilogue::gate_up) {
      weight = s % 2, index = share.first + s / 2, run = 1;
      return;
    }
    const int at = share.first + s, last = share.first + share.count;
    weight = 0;
    if (product.weight_count > 1 && at >= product.first[1]) weight = 1;
    if (product.weight_count > 2 && at >= product.first[2]) weight = 2;
    index = at - product.first[weight];
    run = (weight + 1 < product.weight_count ? min(product.first[weight + 1], last) : last) - at;
  }
};

// Bytes of `count` pieces from piece p < pieces of a strip on.
__device__ inline int bytes_of_pieces(const DecodeProduct& product, int p, int count) {
  const int missing = product.piece_bytes - product.tail_bytes;
  const int bytes = count * product.piece_bytes;
  return missing == 0 ? bytes : bytes - (p + count) / product.pieces * missing;
}

// Weights are read once: they should not drive the activations and the cache out of the L2.
__device__ inline void fetch_run(std::uint32_t to, const void* from, int bytes,
                                 std::uint32_t barrier, std::uint64_t policy) {
#if defined(QL_BULK_COPY)
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1], %2, [%3], %4;" ::"r"(to),
      "l"(from), "r"(bytes), "r"(barrier), "l"(policy)
      : "memory");
#endif
}

// The filling thread's end of the ring. Stages stand one after another, or at the ring's start
// where the end is too near.
class StageQueue {
 public:
  __device__ StageQueue(RingState& state, int ring_bytes, int in_flight)
      : state_(state),
        filled_(shared_address(state.filled)),
        emptied_(shared_address(state.emptied)),
        ring_bytes_(static_cast<std::uint32_t>(ring_bytes)),
        in_flight_(static_cast<std::uint32_t>(in_flight)) {}

  // Takes the next stage once its place is free; the copies to `offset` count at `barrier`.
  __device__ void open(std::uint32_t bytes, std::uint32_t& offset, std::uint32_t& barrier) {
    if (offset_ + bytes > ring_bytes_) passed_ += ring_bytes_ - offset_, offset_ = 0;
    while (count_ - released_.count >= ring_stages ||
           passed_ + bytes - released_.bytes > ring_bytes_) {
      wait(emptied_, released_);
    }
    // What all blocks have asked for stands in the memory's queues before what the consumers read:
    // a step's inputs, and the barriers between steps.
    while (in_flight_ != 0 && landed_.count != count_ &&
           passed_ + bytes - landed_.bytes > in_flight_) {
      wait(filled_, landed_);
    }
    const std::uint32_t slot = count_ % ring_stages;
    offset = offset_, barrier = filled_ + 8 * slot;
    offset_ += bytes, passed_ += bytes, ++count_;
    state_.offsets[slot] = offset;
    state_.ends[slot] = passed_;
    mbarrier_expect(barrier, bytes);
  }

 private:
  struct Behind {
    std::uint32_t count = 0, bytes = 0;  // of the stages that were waited for
  };
  __device__ void wait(std::uint32_t barriers, Behind& behind) {
    const std::uint32_t slot = behind.count % ring_stages;
    mbarrier_wait(barriers + 8 * slot, behind.count / ring_stages & 1);
    behind.bytes = state_.ends[slot];
    ++behind.count;
  }

  RingState& state_;
  std::uint32_t filled_, emptied_, ring_bytes_, in_flight_;
  std::uint32_t count_ = 0, offset_ = 0;
  std::uint32_t passed_ = 0;  // bytes, with the gaps at the ring's end
  Behind released_, landed_;
};

// The filling warp's whole work: lane 0 copies weights, all read the steps ahead of it.
__device__ inline void fetch_weights(const DecodeProgram& program, std::uint8_t* ring,
                                     RingState& state, StepCopy (&copies)[2]) {
#if defined(QL_BULK_COPY)
  std::uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  StageQueue queue(state, program.layout.ring_bytes, program.in_flight);
  for (int i = 0; i < program.step_count; ++i) {
    const StepCopy& step = copies[i % 2];
    const StepWords next(program, i + 1);
    if (step.get().kind == DecodeStepKind::product && threadIdx.x % 32 == 0) {
      const DecodeProduct& product = step.get().product;
      const int pieces = product.pieces;
      const std::int64_t strip_bytes = bytes_of_pieces(product, 0, pieces);
      int s = 0, p = 0;
      int run = 0;  // pieces left where `from` points to
      const std::uint8_t* from = nullptr;
      for (int left = strips_of(product, step.share) * pieces; left > 0;) {
        int wanted = min(left, stage_pieces);
        left -= wanted;
        std::uint32_t offset, barrier;
        queue.open(bytes_of_pieces(product, p, wanted), offset, barrier);
        while (wanted > 0) {
          if (run == 0) {
            const LocatedStrip strip(product, step.share, s);
            from = static_cast<const std::uint8_t*>(product.weights[strip.weight].planes) +
                   strip.index * strip_bytes;
            run = strip.run * pieces;
          }
          const int count = min(wanted, run), bytes = bytes_of_pieces(product, p, count);
          fetch_run(shared_address(ring) + offset, from, bytes, barrier, policy);
          offset += bytes, from += bytes, run -= count, wanted -= count;
          for (p += count; p >= pieces; p -= pieces) ++s;
        }
      }
    }
    __syncwarp();
    next.store(copies[(i + 1) % 2]);
    __syncwarp();
  }
#endif
}

}  // namespace quantloom::kernels
