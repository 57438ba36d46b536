#include "matmul/wide.h"

#include "matmul/activations.cuh"
#include "matmul/stream_few.cuh"

namespace quantloom::kernels {
namespace {

constexpr int image_threads = 256;

// One block per token.
__global__ void __launch_bounds__(image_threads)
    token_scale_kernel(const float* x, int columns, float* scales) {
#if defined(QL_TENSOR_STEPS)
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
#endif
  __shared__ unsigned largest_of_warp[image_threads / 32];
  const float* row = x + static_cast<std::int64_t>(blockIdx.x) * columns;
  unsigned largest = 0;
#pragma unroll 8
  for (int c = threadIdx.x * 4; c < columns; c += image_threads * 4) {
    const float4 v = *reinterpret_cast<const float4*>(row + c);
    largest = max(largest, max(max(__float_as_uint(fabsf(v.x)), __float_as_uint(fabsf(v.y))),
                               max(__float_as_uint(fabsf(v.z)), __float_as_uint(fabsf(v.w)))));
  }
  largest = __reduce_max_sync(0xffffffffu, largest);
  if (threadIdx.x % 32 == 0) largest_of_warp[threadIdx.x / 32] = largest;
  __syncthreads();
  largest = __reduce_max_sync(0xffffffffu, largest_of_warp[threadIdx.x % (image_threads / 32)]);
  if (threadIdx.x == 0) scales[blockIdx.x] = 1.0f / power_of_two_scale(__uint_as_float(largest));
#endif
}

// A warp writes a group of 32 columns of eight tokens: lane 8c + i holds core c of token i.
__global__ void __launch_bounds__(image_threads)
    image_kernel(const float* x, int columns, int tokens, int padded_tokens, __half* image,
                 const float* scales) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
#endif
  const int lane = threadIdx.x % 32, core = lane / 8;
  const int token = blockIdx.x * 8 + lane % 8;
  const int group = blockIdx.y * (image_threads / 32) + threadIdx.x / 32;
  const int padded_groups = (columns + 63) / 64 * 2;
  if (group >= padded_groups) return;
  const bool inside = token < tokens && group * 32 < columns;
  const float scale = inside ? 1.0f / scales[token] : 0.0f;
  const float* from = x + static_cast<std::int64_t>(token) * columns + group * 32 + 2 * core;
  std::uint32_t bits[4];
#pragma unroll
  for (int t = 0; t < 4; ++t) {
    const float2 v = inside ? *reinterpret_cast<const float2*>(from + 8 * t) : make_float2(0, 0);
    const __half2 h = __floats2half2_rn(v.x * scale, v.y * scale);
    bits[t] = *reinterpret_cast<const std::uint32_t*>(&h);
  }
  __half* to = image + ((static_cast<std::int64_t>(group) * 4 + core) * padded_tokens + token) * 8;
  *reinterpret_cast<uint4*>(to) = make_uint4(bits[0], bits[1], bits[2], bits[3]);
}

__global__ void __launch_bounds__(image_threads)
    sum_splits_kernel(const __grid_constant__ StripList list, int strips, int splits,
                      int padded_tokens, int padded_rows, const float* sums, const float* scales) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
#endif
  const bool gated = list.epilogue == MatmulEpilogue::gate_up;
  const int i = blockIdx.x * image_threads + threadIdx.x, token = blockIdx.y;
  const int s = i / strip_rows, row = i % strip_rows;
  if (s >= (gated ? strips / 2 : strips)) return;
  const auto total = [&](int strip) {
    const int weight = find_strip(list, strip).weight;
    float sum = 0;
    for (int k = 0; k < splits; ++k) {
      sum += sums[(static_cast<std::int64_t>(k) * padded_tokens + token) * padded_rows +
                  strip * strip_rows + row];
    }
    return sum * (scales[token] / power_of_two_scale(*list.largest[weight]));
  };
  if (gated) {
    store_gated(list, s, row, token, total(2 * s), total(2 * s + 1));
  } else {
    store_sum(list, find_strip(list, s), row, token, total(s));
  }
}

}  // namespace

MatmulStatus prepare_image(const float* x, int columns, int tokens, int padded_tokens,
                           __half* image, float* scales, bool overlap, cudaStream_t stream) {
  cudaLaunchConfig_t config{};
  config.blockDim = dim3(image_threads);
  config.stream = stream;
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &attribute;
  config.numAttrs = overlap ? 1 : 0;
  config.gridDim = dim3(static_cast<unsigned>(tokens));
  if (cudaLaunchKernelEx(&config, token_scale_kernel, x, columns, scales) != cudaSuccess) {
    return MatmulStatus::cuda_error;
  }
  const int groups = (columns + 63) / 64 * 2, warps = image_threads / 32;
  config.numAttrs = 1;
  config.gridDim = dim3(static_cast<unsigned>(padded_tokens / 8),
                        static_cast<unsigned>((groups + warps - 1) / warps));
  return cudaLaunchKernelEx(&config, image_kernel, x, columns, tokens, padded_tokens, image,
                            static_cast<const float*>(scales)) == cudaSuccess
             ? MatmulStatus::done
             : MatmulStatus::cuda_error;
}

MatmulStatus sum_splits(const StripList& list, int strips, int splits, int padded_tokens,
                        int padded_rows, const float* sums, const float* scales,
                        cudaStream_t stream) {
  const int unit = list.epilogue == MatmulEpilogue::gate_up ? 2 : 1;
  const int threads = strips / unit * strip_rows;
  cudaLaunchConfig_t config{};
  config.blockDim = dim3(image_threads);
  config.gridDim = dim3(static_cast<unsigned>((threads + image_threads - 1) / image_threads),
                        static_cast<unsigned>(list.tokens));
  config.stream = stream;
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &attribute;
  config.numAttrs = 1;
  return cudaLaunchKernelEx(&config, sum_splits_kernel, list, strips, splits, padded_tokens,
                            padded_rows, sums, scales) == cudaSuccess
             ? MatmulStatus::done
             : MatmulStatus::cuda_error;
}

WidePlan wide_plan(int tokens, int columns, int strips, int processors) {
  const int pieces = (columns + piece_columns - 1) / piece_columns;
  WidePlan plan;
  double best = 0;
  // Cycles of a block: per column the tensor cores or decoding 256 rows, whichever is longer, and
  // what a block and the sum over splits cost besides (measured on an H200).
  for (const int tile : {16, 64, 128, 256}) {
    const int row_tiles = (strips + wide_strips(tile) - 1) / wide_strips(tile);
    const int tiles = (tokens + tile - 1) / tile;
    for (int splits = 1; splits <= 16 && splits <= pieces; ++splits) {
      const int waves = (row_tiles * tiles * splits + processors - 1) / processors;
      const int columns_each = (pieces + splits - 1) / splits * piece_columns;
      const double per_column = tile == 256 ? 34.0 : tile == 128 ? 20.0 : tile == 64 ? 24.0 : 18.0;
      const double sums = splits == 1 ? 0.0 : 4000.0 + 1e-3 * splits * tokens * strips * strip_rows;
      const double cycles = waves * (columns_each * per_column + 4000.0) + sums;
      if (best == 0 || cycles < best) best = cycles, plan.tile_tokens = tile, plan.splits = splits;
    }
  }
  plan.padded_tokens = (tokens + plan.tile_tokens - 1) / plan.tile_tokens * plan.tile_tokens;
  // Behind the arrival counters of stream_few.cuh, which stay zero between calls.
  plan.bytes = few_most_strips * 4;
  const auto take = [&](std::size_t bytes) {
    const std::size_t start = plan.bytes;
    plan.bytes += (bytes + 255) / 256 * 256;
    return start;
  };
  plan.scales = take(static_cast<std::size_t>(plan.padded_tokens) * 4);
  plan.x = take(static_cast<std::size_t>(plan.padded_tokens) * ((columns + 63) / 64) * 128);
  plan.sums = plan.splits > 1 ? take(static_cast<std::size_t>(plan.splits) * plan.padded_tokens *
                                     (strips + 15) / 16 * 256 * 4)
                              : 0;
  return plan;
}

}  // namespace quantloom::kernels
