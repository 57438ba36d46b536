#include "device/overlap.cuh"
#include "transformer/reduce.cuh"
#include "transformer/transformer.h"

namespace quantloom::kernels {
namespace {

constexpr int threads = 512;
constexpr int kept = 4;  // float4 a thread keeps in registers: rows to 8192 wide are read once

__global__ void __launch_bounds__(threads) rms_norm_wide(RmsNorm a) {
  __shared__ float scratch[threads / 32];
  const float4* x = reinterpret_cast<const float4*>(a.x + std::int64_t{blockIdx.x} * a.width);
  const float4* weight = reinterpret_cast<const float4*>(a.weight);
  float4* out = reinterpret_cast<float4*>(a.out + std::int64_t{blockIdx.x} * a.width);
  const int count = a.width / 4;
  float4 held[kept];
  float4 weights[kept];
  float sum = 0;
#pragma unroll
  for (int i = 0; i < kept; ++i) {
    const int at = i * threads + threadIdx.x;
    weights[i] = at < count ? weight[at] : float4{0, 0, 0, 0};
  }
  wait_for_previous();
#pragma unroll
  for (int i = 0; i < kept; ++i) {
    const int at = i * threads + threadIdx.x;
    held[i] = at < count ? x[at] : float4{0, 0, 0, 0};
    sum += held[i].x * held[i].x + held[i].y * held[i].y + held[i].z * held[i].z +
           held[i].w * held[i].w;
  }
  for (int at = kept * threads + threadIdx.x; at < count; at += threads) {
    const float4 v = x[at];
    sum += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
  }
  const float scale =
      1.0f / sqrtf(block_sum(sum, scratch) / static_cast<float>(a.width) + a.epsilon);
  const auto store = [&](int at, const float4& v, const float4& w) {
    out[at] = {v.x * scale * w.x, v.y * scale * w.y, v.z * scale * w.z, v.w * scale * w.w};
  };
#pragma unroll
  for (int i = 0; i < kept; ++i) {
    const int at = i * threads + threadIdx.x;
    if (at < count) store(at, held[i], weights[i]);
  }
  for (int at = kept * threads + threadIdx.x; at < count; at += threads) {
    store(at, x[at], weight[at]);
  }
}

// Rows whose width is not a multiple of 4.
__global__ void __launch_bounds__(threads) rms_norm_any(RmsNorm a) {
  __shared__ float scratch[threads / 32];
  const float* x = a.x + std::int64_t{blockIdx.x} * a.width;
  float* out = a.out + std::int64_t{blockIdx.x} * a.width;
  wait_for_previous();
  float sum = 0;
  for (int i = threadIdx.x; i < a.width; i += threads) sum += x[i] * x[i];
  const float scale =
      1.0f / sqrtf(block_sum(sum, scratch) / static_cast<float>(a.width) + a.epsilon);
  for (int i = threadIdx.x; i < a.width; i += threads) out[i] = x[i] * scale * a.weight[i];
}

}  // namespace

cudaError_t rms_norm(const RmsNorm& arguments, cudaStream_t stream) {
  if (arguments.rows == 0) return cudaSuccess;
  const auto kernel = arguments.width % 4 == 0 ? rms_norm_wide : rms_norm_any;
  return launch_overlapped(kernel, dim3(arguments.rows), threads, 0, stream, arguments);
}

}  // namespace quantloom::kernels
