// The kernel that runs a decode program.
#include "decode/attention.cuh"
#include "decode/block.cuh"
#include "decode/decode.h"
#include "decode/product.cuh"

namespace quantloom::kernels {
namespace {

// The loop over the steps keeps nothing in registers: the functions it calls need them all.

// Ends the step at hand and begins the next: what runs it, or -1 behind the last.
__device__ __noinline__ int next_step(Block& block) {
  const int thread = threadIdx.x;
  block.stamp(3);
  end_copy();
  sync_consumers();  // what the step had in shared memory is free, and the next one is described
  const int turn = block.turn() + 1;
  __syncwarp();
  if (thread % 32 == 0) block.turns[thread / 32] = turn;
  __syncwarp();
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
  return block.steps[turn % 2].get().kernel;
}

__global__ void __launch_bounds__(decode_threads + 32, 1)
    decode_kernel(const __grid_constant__ DecodeProgram program) {
#if __CUDA_ARCH__ >= 900
  extern __shared__ __align__(128) std::uint8_t base[];
  __shared__ Block block;
  const int warp = threadIdx.x / 32;
  if (threadIdx.x < ring_stages) {
    mbarrier_init(shared_address(&block.rings.filled[threadIdx.x]), 1);
    mbarrier_init(shared_address(&block.rings.emptied[threadIdx.x]), stage_pieces);
    mbarrier_init_fence();
  }
  if (threadIdx.x == 0) {
    block.stages = 0;
    block.rings.multiplied = -1;
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

  for (int kernel; (kernel = next_step(block)) >= 0;) {
    if (kernel == attention_kernel) {
      attend(block, base);
    } else {
      multiply(kernel, block, base);
    }
  }
  if (threadIdx.x == 0) leave_launch(program.launches);
#endif
}

}  // namespace

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
  config.blockDim = dim3(decode_threads + 32);
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
