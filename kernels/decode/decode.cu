// The kernel that runs a decode program.
#include "decode/attention.cuh"
#include "decode/block.cuh"
#include "decode/decode.h"
#include "decode/formats.h"
#include "decode/product.cuh"
#include "decode/store.cuh"

namespace quantloom::kernels {
namespace {

// The loop over the steps keeps nothing in registers: the functions it calls need them all.

template <int head_size, bool q8_0>
__device__ __forceinline__ void attend(int turn, Block& block, std::uint8_t* base) {
  bool more = attention_step<head_size, q8_0>(block, base, turn, true);
  while (more) {
    more = attention_step<head_size, q8_0>(block, base, block.turns[threadIdx.x / 32], false);
  }
}

// By halves of the list: a jump table stands in constant memory, which is a trip to the L2 where
// the code of a layer has driven it out.
template <int first, int last>
__device__ __forceinline__ void run_product(int kernel, int turn, Block& block,
                                            std::uint8_t* base) {
  if constexpr (last - first == 1) {
    using Format = DecodeFormat<first / 2>;
    product_step<Planes<Format>, first % 2 == 1>(block, base, turn);
  } else {
    constexpr int middle = (first + last) / 2;
    if (kernel < middle) {
      run_product<first, middle>(kernel, turn, block, base);
    } else {
      run_product<middle, last>(kernel, turn, block, base);
    }
  }
}

__device__ __forceinline__ void run_step(int turn, Block& block, std::uint8_t* base) {
  const int kernel = block.step(turn).get().kernel;
  if (kernel < product_kernels) {
    return run_product<0, product_kernels>(kernel, turn, block, base);
  }
#define QL_CASE(size)                                                                         \
  if (kernel == attention_kernel(size, false)) return attend<size, false>(turn, block, base); \
  if (kernel == attention_kernel(size, true)) return attend<size, true>(turn, block, base);
  QL_DECODE_HEAD_SIZES(QL_CASE)
#undef QL_CASE
  __trap();
}

// Ends the step at hand and begins the next: its number, or -1 behind the last.
__device__ __noinline__ int next_step(Block& block) {
  const int thread = threadIdx.x;
  end_copy();
  sync_consumers();  // what the step had in shared memory is free, and the next one is described
  volatile int& of_warp = block.turns[thread / 32];
  const int turn = of_warp + 1;
  __syncwarp();
  if (thread % 32 == 0) of_warp = turn;
  const DecodeProgram& program = block.program;
  if (turn >= program.step_count) return -1;
  // The last warp has the least to do at the end of a step.
  if (thread / 32 == decode_warps - 1) {
    begin_copy(program, turn + 1, block.steps[(turn + 1) % 2]);
  }
  if (thread == 0) {
    if (program.stamps != nullptr) {
      block.stamps = program.stamps +
                     (static_cast<std::int64_t>(turn) * gridDim.x + blockIdx.x) * decode_stamps;
      block.stamp(0);
    }
  }
  return turn;
}

__global__ void __launch_bounds__(decode_block_threads, 1)
    decode_kernel(const __grid_constant__ DecodeProgram program) {
#if __CUDA_ARCH__ >= 900
  std::uint8_t* const base = decode_table() + program.layout.table_bytes;
  __shared__ Block block;
  const int warp = threadIdx.x / 32;
  if (threadIdx.x < ring_stages) {
    mbarrier_init(shared_address(&block.rings.filled[threadIdx.x]), 1);
    mbarrier_init(shared_address(&block.rings.emptied[threadIdx.x]), stage_pieces * warp_arrivals);
    mbarrier_init_fence();
  }
  if (threadIdx.x < sum_buffers) {
    mbarrier_init(shared_address(&block.sums.squared[threadIdx.x]), decode_warps);
    mbarrier_init(shared_address(&block.sums.summed[threadIdx.x]), decode_warps * warp_arrivals);
    mbarrier_init(shared_address(&block.sums.stored[threadIdx.x]),
                  decode_storing_warps * warp_arrivals);
    // Both places for sums are free. In a build for racecheck, which takes an arrival right behind
    // the initialization for a race, the storing warps say so (store_sums()).
    for (int i = 0; warp_arrivals == 1 && i < decode_storing_warps; ++i) {
      mbarrier_arrive(shared_address(&block.sums.stored[threadIdx.x]));
    }
  }
  if (threadIdx.x == 0) {
    block.rings.multiplied = -1;
    block.table = -1;
    for (volatile int& turn : block.turns) turn = -1;
    block.tag = tag_of_launch(program.launches);
    block.program = program;
    block.position = program.position != nullptr ? *program.position : 0;
    block.stamps = nullptr;
  }
  if (warp == 0) begin_copy(program, 0, block.steps[0]);
  if (warp == decode_warps) begin_copy(program, 0, block.fetch_steps[0]);
  end_copy();
  __syncthreads();
  if (warp == decode_warps) {
    fetch_weights(program, base + program.layout.ring, block.rings, block.fetch_steps,
                  block.position);
    return;
  }
  if (warp > decode_warps) return store_sums(block, base);

  for (int turn; (turn = next_step(block)) >= 0;) run_step(turn, block, base);
  if (threadIdx.x == 0) leave_launch(program.launches);
#endif
}

}  // namespace

DecodeTraits decode_traits(formats::Format format) {
  switch (format) {
#define QL_CASE(F)                                                                    \
  case formats::F::format:                                                            \
    return {formats::F::bytes, formats::F::elements, Planes<formats::F>::table_bytes, \
            x_sums<Planes<formats::F>>};
    QL_QUANTIZED_FORMATS(QL_CASE)
#undef QL_CASE
    default:
      return {};
  }
}

cudaError_t decode(const DecodeProgram& program, cudaStream_t stream) {
  // The same value in every call: threads with other programs set it too.
  int device = 0, limit = 0;
  cudaError_t status = cudaGetDevice(&device);
  if (status != cudaSuccess) return status;
  status = cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  if (status != cudaSuccess) return status;
  status = cudaFuncSetAttribute(decode_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                limit - decode_static_bytes);
  if (status != cudaSuccess) return status;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(program.blocks));
  config.blockDim = dim3(decode_block_threads);
  config.dynamicSmemBytes = static_cast<std::size_t>(program.layout.bytes);
  config.stream = stream;
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeCooperative;
  attribute.val.cooperative = 1;
  config.attrs = &attribute;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, decode_kernel, program);
}

}  // namespace quantloom::kernels
