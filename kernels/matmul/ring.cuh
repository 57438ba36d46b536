// A warp's own ring of pieces in shared memory, filled ahead of its use: bulk copies on Hopper and
// later, 16-byte cp.async before.
#pragma once

#include <cstdint>

namespace quantloom::kernels {

__device__ inline std::uint32_t shared_address(const void* p) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
#define QL_BULK_COPY 1
#endif

__device__ inline void mbarrier_init(std::uint32_t barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}

// Makes barrier initialization visible to the copy engine.
__device__ inline void mbarrier_init_fence() {
#if defined(QL_BULK_COPY)
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}

__device__ inline void mbarrier_expect(std::uint32_t barrier, std::uint32_t bytes) {
#if defined(QL_BULK_COPY)
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
#endif
}

__device__ inline void mbarrier_arrive(std::uint32_t barrier) {
  asm volatile("{\n.reg .b64 state;\nmbarrier.arrive.shared::cta.b64 state, [%0];\n}" ::"r"(barrier)
               : "memory");
}

// How often a warp arrives: once, as __syncwarp() orders its lanes before the one that arrives.
// racecheck follows only what the arriving lane did itself (tools/sanitizers/handover.cu), so that
// in a build for it every lane arrives.
#if defined(QUANTLOOM_RACECHECK)
constexpr int warp_arrivals = 32;
#else
constexpr int warp_arrivals = 1;
#endif

// Every lane calls it, after what its warp wrote or read.
__device__ inline void mbarrier_arrive_warp(std::uint32_t barrier, int lane) {
  __syncwarp();
  if (warp_arrivals == 32 || lane == 0) mbarrier_arrive(barrier);
}

__device__ inline void mbarrier_wait(std::uint32_t barrier, std::uint32_t parity) {
#if defined(QL_BULK_COPY)
#define QL_WAIT "try_wait"
#else
#define QL_WAIT "test_wait"
#endif
  asm volatile(
      "{\n.reg .pred done;\n"
      "again:\n"
      "mbarrier." QL_WAIT
      ".parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n}" ::"r"(barrier),
      "r"(parity)
      : "memory");
#undef QL_WAIT
}

__device__ inline void bulk_copy(std::uint32_t to, const void* from, std::uint32_t bytes,
                                 std::uint32_t barrier) {
#if defined(QL_BULK_COPY)
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(to),
      "l"(from), "r"(bytes), "r"(barrier)
      : "memory");
#endif
}

// Slots of slot_bytes (a multiple of 16) for one warp. Every lane calls every function.
class PieceRing {
 public:
  __device__ PieceRing(std::uint8_t* slots, std::uint64_t* barriers, int stages, int slot_bytes)
      : slots_(slots), barriers_(shared_address(barriers)), stages_(stages), bytes_(slot_bytes) {
    if (threadIdx.x % 32 == 0) {
#pragma unroll 1
      for (int i = 0; i < stages; ++i) mbarrier_init(barriers_ + 8 * i, 1);
      mbarrier_init_fence();
    }
    __syncwarp();
  }

  // Starts a copy into the next free slot.
  __device__ void fetch(const std::uint8_t* from, int bytes) {
    if (from != nullptr) copy(in_, from, bytes);
    end_copy();
    in_ = in_ + 1 == stages_ ? 0 : in_ + 1;
  }

  // Keeps the count of slots where nothing is left to copy.
  __device__ void fetch_nothing() { fetch(nullptr, 0); }

  // Waits for the oldest slot. `stages` fetches must have been started since the last release.
  __device__ const std::uint8_t* wait() {
#if defined(QL_BULK_COPY)
    mbarrier_wait(barriers_ + 8 * out_, parity_);
#else
    switch (stages_) {
      case 2:
        asm volatile("cp.async.wait_group 1;" ::: "memory");
        break;
      case 3:
        asm volatile("cp.async.wait_group 2;" ::: "memory");
        break;
      case 4:
        asm volatile("cp.async.wait_group 3;" ::: "memory");
        break;
      default:
        asm volatile("cp.async.wait_all;" ::: "memory");
    }
    __syncwarp();
#endif
    return slots_ + out_ * bytes_;
  }

  __device__ void release() {
    __syncwarp();
    if (++out_ == stages_) out_ = 0, parity_ ^= 1;
  }

  // release() and fetch() in fewer instructions, for a ring that `stages` fetches have filled.
  __device__ void refill(bool any, const std::uint8_t* from, int bytes) {
    __syncwarp();
    if (any) copy(out_, from, bytes);
    end_copy();
    if (++out_ == stages_) out_ = 0, parity_ ^= 1;
  }

 private:
  __device__ void copy(int index, const std::uint8_t* from, int bytes) {
    std::uint8_t* slot = slots_ + index * bytes_;
#if defined(QL_BULK_COPY)
    if (threadIdx.x % 32 == 0) {
      mbarrier_expect(barriers_ + 8 * index, bytes);
      bulk_copy(shared_address(slot), from, bytes, barriers_ + 8 * index);
    }
#else
    for (int i = static_cast<int>(threadIdx.x % 32) * 16; i < bytes; i += 512) {
      asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(slot) + i),
                   "l"(from + i)
                   : "memory");
    }
#endif
  }
  __device__ static void end_copy() {
#if !defined(QL_BULK_COPY)
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
  }

  std::uint8_t* slots_;
  std::uint32_t barriers_;
  int stages_, bytes_;
  int in_ = 0, out_ = 0;
  std::uint32_t parity_ = 0;
};

}  // namespace quantloom::kernels
