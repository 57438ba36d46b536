#include "matmul/activations.cuh"

#include "matmul/planes.h"

namespace quantloom::kernels {
namespace {

__global__ void __launch_bounds__(half_threads)
    halves_kernel(const float* x, int columns, int tokens, int padded_tokens, __half* values,
                  float* scales) {
#if defined(QL_TENSOR_STEPS)
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
#endif
  __shared__ unsigned largest_of_warp[half_threads / 32];
  const int token = blockIdx.x;
  const int padded = (columns + piece_columns - 1) / piece_columns * piece_columns;
  constexpr int held = 8;  // float4 per thread kept between the two passes
  float4 part[held];
  const float* row = x + static_cast<std::int64_t>(token) * columns;
  const auto load = [&](int column) {
    return token < tokens && column < columns ? *reinterpret_cast<const float4*>(row + column)
                                              : make_float4(0, 0, 0, 0);
  };
  unsigned largest = 0;
  const auto take = [&](float4 v) {
    largest = max(largest, max(max(__float_as_uint(fabsf(v.x)), __float_as_uint(fabsf(v.y))),
                               max(__float_as_uint(fabsf(v.z)), __float_as_uint(fabsf(v.w)))));
  };
#pragma unroll
  for (int i = 0; i < held; ++i) {
    part[i] = load((i * half_threads + static_cast<int>(threadIdx.x)) * 4);
  }
#pragma unroll
  for (int i = 0; i < held; ++i) take(part[i]);
  for (int c = (held * half_threads + threadIdx.x) * 4; c < columns; c += half_threads * 4) {
    take(load(c));
  }
  largest = __reduce_max_sync(0xffffffffu, largest);
  if (threadIdx.x % 32 == 0) largest_of_warp[threadIdx.x / 32] = largest;
  __syncthreads();
  largest = __reduce_max_sync(0xffffffffu, largest_of_warp[threadIdx.x % (half_threads / 32)]);
  const float scale = power_of_two_scale(__uint_as_float(largest));
  if (threadIdx.x == 0) scales[token] = 1.0f / scale;
  const auto store = [&](int column, float4 v) {
    if (column >= padded) return;
    const __half2 a = __floats2half2_rn(v.x * scale, v.y * scale);
    const __half2 b = __floats2half2_rn(v.z * scale, v.w * scale);
    uint2 bits;
    bits.x = *reinterpret_cast<const unsigned*>(&a),
    bits.y = *reinterpret_cast<const unsigned*>(&b);
    __half* to = values + (static_cast<std::int64_t>(column / 32) * padded_tokens + token) * 32 +
                 column % 32;
    *reinterpret_cast<uint2*>(to) = bits;
  };
#pragma unroll
  for (int i = 0; i < held; ++i) {
    store((i * half_threads + static_cast<int>(threadIdx.x)) * 4, part[i]);
  }
  for (int c = (held * half_threads + threadIdx.x) * 4; c < padded; c += half_threads * 4) {
    store(c, load(c));
  }
#endif
}

}  // namespace

void prepare_halves(const float* x, std::int64_t columns, int tokens, int padded_tokens,
                    void* values, float* scales, bool overlap, cudaStream_t stream) {
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(padded_tokens));
  config.blockDim = dim3(half_threads);
  config.stream = stream;
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &attribute;
  config.numAttrs = overlap ? 1 : 0;
  cudaLaunchKernelEx(&config, halves_kernel, x, static_cast<int>(columns), tokens, padded_tokens,
                     static_cast<__half*>(values), scales);
}

}  // namespace quantloom::kernels
