// The stream of weight pieces through a block's shared memory. Each consumer warp has a ring of
// bytes; a lane of a fetching warp fills it, through all products of the program
// without a stop at their borders. Both sides place pieces by the same rule: one after another, or
// at the ring's start where the end is too near.
#pragma once

#include "decode/decode.h"
#include "decode/grid.cuh"
#include "decode/step.cuh"
#include "matmul/planes.h"
#include "matmul/ring.cuh"

namespace quantloom::kernels {

// A place in the byte ring, and the bytes passed so far, gaps included.
struct RingPlace {
  int offset = 0;
  std::uint32_t passed = 0;
  std::uint32_t count = 0;  // of pieces
  __device__ void fit(int bytes, int ring_bytes) {
    if (offset + bytes > ring_bytes) {
      passed += static_cast<std::uint32_t>(ring_bytes - offset);
      offset = 0;
    }
  }
  __device__ void advance(int bytes) {
    offset += bytes, passed += static_cast<std::uint32_t>(bytes), ++count;
  }
};

struct RingState {
  std::uint64_t filled[decode_warps][ring_pieces];
  std::uint32_t released[decode_warps];  // bytes that a warp has given back, ever
  RingPlace places[decode_warps];        // of the consumers, between two products
};

// What a warp takes of a product: a run of the pieces of its block's strips.
struct WarpShare {
  int first, count;  // the block's strips, pairs in gate_up
  int strips;        // all of them, gates before ups
  int begin, end;    // pieces
  __device__ WarpShare(const DecodeProduct& product, DecodeShare share, int warp)
      : first(share.first),
        count(share.count),
        strips(product.epilogue == MatmulEpilogue::gate_up ? 2 * count : count) {
    const int all = strips * product.pieces;
    begin = all * warp / decode_warps;
    end = all * (warp + 1) / decode_warps;
  }
};

// Strip s of a block's share: which weight, which of its strips, and how many follow there.
struct LocatedStrip {
  int weight, index, run;
  __device__ LocatedStrip(const DecodeProduct& product, int first, int count, int s) {
    if (product.epilogue == MatmulEpilogue::gate_up) {
      weight = s >= count;
      index = first + s - weight * count;
      run = (1 + weight) * count - s;
      return;
    }
    const int at = first + s;
    weight = 0;
    if (product.weight_count > 1 && at >= product.first[1]) weight = 1;
    if (product.weight_count > 2 && at >= product.first[2]) weight = 2;
    index = at - product.first[weight];
    const int end = weight + 1 < product.weight_count ? product.first[weight + 1] : first + count;
    run = min(end, first + count) - at;
  }
};

// Weights are read once: they should not drive the activations and the cache out of the L2.
__device__ inline void fetch_piece(std::uint32_t to, const void* from, std::uint32_t bytes,
                                   std::uint32_t barrier, std::uint64_t policy) {
#if defined(QL_BULK_COPY)
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint "
      "[%0], [%1], %2, [%3], %4;" ::"r"(to),
      "l"(from), "r"(bytes), "r"(barrier), "l"(policy)
      : "memory");
#endif
}

__device__ inline std::uint32_t load_acquire(std::uint32_t shared) {
  std::uint32_t value;
  asm volatile("ld.acquire.cta.shared.u32 %0, [%1];" : "=r"(value) : "r"(shared) : "memory");
  return value;
}

// Whether the copy of piece number `count` of a ring has landed. It has not been asked for later
// than a ring's turn after it was started, so its barrier is in that phase or the next.
__device__ inline bool has_landed(std::uint32_t filled, std::uint32_t count) {
#if defined(QL_BULK_COPY)
  std::uint32_t done;
  asm volatile(
      "{\n.reg .pred done;\n"
      "mbarrier.test_wait.parity.shared::cta.b64 done, [%1], %2;\n"
      "selp.u32 %0, 1, 0, done;\n}"
      : "=r"(done)
      : "r"(filled + 8 * (count % ring_pieces)), "r"(count / ring_pieces & 1)
      : "memory");
  return done != 0;
#else
  return true;
#endif
}

// A fetching warp's whole work.
__device__ inline void fetch_weights(const DecodeProgram& program, std::uint8_t* ring,
                                     RingState& state, StepCopy (&copies)[2]) {
#if defined(QL_BULK_COPY)
  const int lane = threadIdx.x % 32, fetch_warp = threadIdx.x / 32 - decode_warps;
  const int warp = fetch_warp * rings_per_fetch_warp + lane % rings_per_fetch_warp;
  std::uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  const std::uint32_t slots = shared_address(ring + warp * program.layout.ring_bytes);
  const std::uint32_t filled = shared_address(&state.filled[warp][0]);
  const std::uint32_t released = shared_address(&state.released[warp]);
  const int ring_bytes = program.layout.ring_bytes;
  const auto in_flight = static_cast<std::uint32_t>(min(program.in_flight, ring_pieces));

  RingPlace place;
  for (int i = 0; i < program.step_count; ++i) {
    const StepCopy& step = copies[i % 2];
    const StepWords next(program, i + 1);
    if (step.get().kind == DecodeStepKind::product && lane < rings_per_fetch_warp) {
      const DecodeProduct& product = step.get().product;
      const WarpShare share(product, step.share, warp);
      const int pieces = product.pieces, piece_bytes = product.piece_bytes;
      const int tail_bytes = product.tail_bytes;
      const std::int64_t strip_bytes =
          static_cast<std::int64_t>(pieces - 1) * piece_bytes + tail_bytes;
      int s = share.begin / pieces, p = share.begin - s * pieces;
      int run = 0;  // pieces left of the weight
      const std::uint8_t* from = nullptr;
      for (int left = share.end - share.begin; left > 0;) {
        if (run == 0) {
          const LocatedStrip strip(product, share.first, share.count, s);
          from = static_cast<const std::uint8_t*>(product.weights[strip.weight].planes) +
                 strip.index * strip_bytes + static_cast<std::int64_t>(p) * piece_bytes;
          run = strip.run * pieces - p;
        }
        place.fit(piece_bytes, ring_bytes);
        if (place.passed + static_cast<std::uint32_t>(piece_bytes) - load_acquire(released) >
            static_cast<std::uint32_t>(ring_bytes)) {
          __nanosleep(64);
          continue;
        }
        // What all multiprocessors have asked for stands in the memory's queues before what the
        // consumers read: the step's inputs, and the barriers between steps.
        if (in_flight != 0 && place.count >= in_flight &&
            !has_landed(filled, place.count - in_flight)) {
          continue;
        }
        const int bytes = p + 1 == pieces ? tail_bytes : piece_bytes;
        const std::uint32_t barrier = filled + 8 * (place.count % ring_pieces);
        mbarrier_expect(barrier, bytes);
        fetch_piece(slots + place.offset, from, bytes, barrier, policy);
        place.advance(piece_bytes);
        from += bytes;
        --left, --run;
        if (++p == pieces) p = 0, ++s;
      }
    }
    __syncwarp();
    next.store(copies[(i + 1) % 2]);
    __syncwarp();
  }
#endif
}

// The consumer's end of its warp's ring, during one product.
class PieceQueue {
 public:
  __device__ PieceQueue(std::uint8_t* ring, int ring_bytes, RingState& state, int warp)
      : ring_(ring),
        ring_bytes_(ring_bytes),
        filled_(shared_address(&state.filled[warp][0])),
        released_(shared_address(&state.released[warp])),
        place_(state.places[warp]) {}

  // The next piece, once it is there.
  __device__ const std::uint8_t* wait(int bytes) {
    place_.fit(bytes, ring_bytes_);
    mbarrier_wait(filled_ + 8 * (place_.count % ring_pieces), place_.count / ring_pieces & 1);
    return ring_ + place_.offset;
  }

  __device__ void release(int bytes) {
    place_.advance(bytes);
    __syncwarp();
    if (threadIdx.x % 32 == 0) {
      asm volatile("st.release.cta.shared.u32 [%0], %1;" ::"r"(released_), "r"(place_.passed)
                   : "memory");
    }
  }

  __device__ void keep(RingState& state, int warp) const {
    if (threadIdx.x % 32 == 0) state.places[warp] = place_;
    __syncwarp();
  }

 private:
  std::uint8_t* ring_;
  int ring_bytes_;
  std::uint32_t filled_, released_;
  RingPlace place_;
};

}  // namespace quantloom::kernels
