// The stream of weight pieces through a block's shared memory, through all products of the program
// without a stop at their borders. One thread fills a ring with stages of stage_pieces neighbouring
// pieces of the block's share: a copy of some 20 KB each, since the copy engine takes one at a time
// from a thread. Piece i of a share is warp i % decode_warps's.
#pragma once

#include "decode/attention_split.cuh"
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
  std::uint32_t ends[ring_stages];     // the filling thread's: StageQueue::passed_ behind the stage
  int multiplied;                      // the step whose weights the consumers take
};

// An atomic exchange and read, for what one thread writes while another reads it.
__device__ inline void note_step(RingState& rings, int step) {
  atomicExch(&rings.multiplied, step);
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

// The filling thread's end of the ring: stages stand one after another, or at the ring's start
// where the end is too near. What it does for a stage has to take less than 0.5 us, in which the
// memory brings the next; so it works with addresses of shared memory, which need no conversion.
class StageQueue {
 public:
  __device__ StageQueue(RingState& state, const void* ring, int ring_bytes, int ahead)
      : filled_(shared_address(state.filled)),
        emptied_(shared_address(state.emptied)),
        offsets_(shared_address(state.offsets)),
        ends_(shared_address(state.ends)),
        multiplied_(shared_address(&state.multiplied)),
        ring_(shared_address(ring)),
        ring_bytes_(static_cast<std::uint32_t>(ring_bytes)),
        ahead_(static_cast<std::uint32_t>(ahead)) {}

  // Takes the next stage, of step `step`, once its place is free. The copies to `to` count at
  // `barrier`.
  __device__ __forceinline__ void open(std::uint32_t bytes, int step, std::uint32_t& to,
                                       std::uint32_t& barrier) {
    if (offset_ + bytes > ring_bytes_) passed_ += ring_bytes_ - offset_, offset_ = 0;
    while (count_ - released_ >= ring_stages || passed_ + bytes - released_bytes_ > ring_bytes_) {
      const std::uint32_t slot = released_ % ring_stages;
      mbarrier_wait(emptied_ + 8 * slot, released_ / ring_stages & 1);
      released_bytes_ = load_shared(ends_ + 4 * slot);
      ++released_;
    }
    // What all blocks have asked for stands in the memory's queues before what the consumers wait
    // for: between two products the inputs, and the weights of blocks that are
    // late. So few stages of later products are on their way at a time.
    if (step > multiplied() && count_ >= ahead_) {
      const std::uint32_t before = count_ - ahead_;
      mbarrier_wait(filled_ + 8 * (before % ring_stages), before / ring_stages & 1);
    }
    const std::uint32_t slot = count_ % ring_stages;
    to = ring_ + offset_, barrier = filled_ + 8 * slot;
    store_shared(offsets_ + 4 * slot, offset_);
    offset_ += bytes, passed_ += bytes, ++count_;
    store_shared(ends_ + 4 * slot, passed_);
    mbarrier_expect(barrier, bytes);
  }

 private:
  __device__ int multiplied() const {
    std::uint32_t step;
    asm volatile("atom.relaxed.cta.shared.or.b32 %0, [%1], 0;"
                 : "=r"(step)
                 : "r"(multiplied_)
                 : "memory");
    return static_cast<int>(step);
  }
  static __device__ std::uint32_t load_shared(std::uint32_t at) {
    std::uint32_t value;
    asm volatile("ld.volatile.shared.u32 %0, [%1];" : "=r"(value) : "r"(at) : "memory");
    return value;
  }
  static __device__ void store_shared(std::uint32_t at, std::uint32_t value) {
    asm volatile("st.volatile.shared.u32 [%0], %1;" ::"r"(at), "r"(value) : "memory");
  }

  std::uint32_t filled_, emptied_, offsets_, ends_, multiplied_, ring_, ring_bytes_, ahead_;
  std::uint32_t count_ = 0, offset_ = 0;
  std::uint32_t passed_ = 0;                         // bytes, with the gaps at the ring's end
  std::uint32_t released_ = 0, released_bytes_ = 0;  // stages known to be free again, and their end
};

// Where the next piece of a block's share is, and how many of its neighbours stand behind it there.
struct PieceRun {
  const std::uint8_t* from = nullptr;
  const std::uint8_t* other = nullptr;  // gate_up: where the other weight's next strip is
  int left = 0;                         // pieces

  __device__ void find(const DecodeProduct& product, DecodeShare share, int strip,
                       std::int64_t strip_bytes) {
    left = product.pieces;
    if (product.epilogue == MatmulEpilogue::gate_up && strip > 0) {
      const std::uint8_t* here = from;
      from = other, other = here;
      return;
    }
    const LocatedStrip at(product, share, strip);
    const auto start = [&](int weight) {
      return static_cast<const std::uint8_t*>(product.weights[weight].planes) +
             at.index * strip_bytes;
    };
    from = start(at.weight);
    if (product.epilogue == MatmulEpilogue::gate_up) other = start(1);
    left *= at.run;
  }
};

// The filling warp's whole work: lane 0 copies weights, all read the steps ahead of it. Being ahead
// by a ring of weights, some 5 us, it also tells the L2 what an attention will read.
__device__ inline void fetch_weights(const DecodeProgram& program, std::uint8_t* ring,
                                     RingState& state, StepCopy (&copies)[2], int position) {
#if defined(QL_BULK_COPY)
  std::uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  StageQueue queue(state, ring, program.layout.ring_bytes, program.stages_ahead);
  int first = 0;  // of the steps that share x
  AttentionItem item;
  bool has_item = false;
  for (int i = 0; i < program.step_count; ++i) {
    const StepCopy& step = copies[i % 2];
    begin_copy(program, i + 1, copies[(i + 1) % 2]);
    const bool is_product = step.get().kind == DecodeStepKind::product;
    const bool fills = threadIdx.x % 32 == 0;
    if (fills && !is_product) {
      const DecodeAttention& a = step.get().attention;
      if (!a.same_split) {
        const AttentionSplit split(a.attention, position);
        has_item = static_cast<int>(blockIdx.x) < split.items;
        if (has_item) item = AttentionItem(split, a.attention.cache, blockIdx.x);
      }
      if (has_item) prefetch_cache(a.attention.cache, item);
    }
    if (fills && is_product) {
      const DecodeProduct& product = step.get().product;
      const DecodeShare share = step.share;
      if (!product.shares_x) first = i;
      const int pieces = product.pieces, piece_bytes = product.piece_bytes;
      const int missing = piece_bytes - product.tail_bytes;  // in a strip's last piece
      const std::int64_t strip_bytes = static_cast<std::int64_t>(pieces) * piece_bytes - missing;
      // Bytes of `count` pieces from piece p on.
      const auto bytes_from = [&](int p, int count) {
        const int bytes = count * piece_bytes;
        return missing == 0 ? bytes : bytes - (p + count) / pieces * missing;
      };
      PieceRun run;
      int strip = 0, p = 0;
      for (int left = strips_of(product, share) * pieces; left > 0;) {
        int wanted = min(left, stage_pieces);
        left -= wanted;
        std::uint32_t to, barrier;
        queue.open(bytes_from(p, wanted), first, to, barrier);
        do {
          if (run.left == 0) run.find(product, share, strip, strip_bytes);
          const int count = min(wanted, run.left), bytes = bytes_from(p, count);
          fetch_run(to, run.from, bytes, barrier, policy);
          to += bytes, run.from += bytes, run.left -= count, wanted -= count;
          for (p += count; p >= pieces; p -= pieces) ++strip;
        } while (wanted > 0);
      }
    }
    __syncwarp();
    end_copy();
    __syncwarp();
  }
#endif
}

}  // namespace quantloom::kernels
