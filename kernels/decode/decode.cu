// The kernel that runs a decode program.
#include "decode/attention.cuh"
#include "decode/block.cuh"
#include "decode/decode.h"
#include "decode/product.cuh"

namespace quantloom::kernels {
namespace {

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
    block.layout = program.layout;
    block.position = program.position != nullptr ? *program.position : 0;
    block.stamps = nullptr;
  }
  if (warp == 0) StepWords(program, 0).store(block.steps[0]);
  if (warp == decode_warps) StepWords(program, 0).store(block.fetch_steps[0]);
  __syncthreads();
  if (warp == decode_warps) {
    fetch_weights(program, base + program.layout.ring, block.rings, block.fetch_steps);
    return;
  }

  GridBarrier barrier{program.barrier, 0};
  for (int i = 0; i < program.step_count; ++i) {
    const DecodeStep& step = block.steps[i % 2].get();
    const DecodeShare share = block.steps[i % 2].share;
    // The last warp has the least to do at the end of a step.
    const bool copies_step = warp == decode_warps - 1;
    const StepWords next(program, copies_step ? i + 1 : program.step_count);
    if (program.stamps != nullptr && threadIdx.x == 0) {
      block.stamps =
          program.stamps + (static_cast<std::int64_t>(i) * gridDim.x + blockIdx.x) * decode_stamps;
    }
    block.stamp(0);
    if (step.kind == DecodeStepKind::product) {
      const DecodeProduct& product = step.product;
      if (!product.shares_x) convert_x(product, block, base, barrier);
      block.stamp(1);
      block.stamp(2);
      multiply_share(product, share, block, base);
    } else {
      attend(step.attention, block, base, barrier);
    }
    if (copies_step) next.store(block.steps[(i + 1) % 2]);
    block.stamp(3);
    barrier.arrive();
    barrier.target += static_cast<int>(gridDim.x);
  }
  barrier.leave();
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
