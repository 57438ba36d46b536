#include "matmul/wide.h"

#include <algorithm>

#include "matmul/activations.cuh"
#include "matmul/stream_few.cuh"

namespace quantloom::kernels {
namespace {

constexpr int image_threads = 256;

__device__ inline float2 load_pair(const float* from) {
  return *reinterpret_cast<const float2*>(from);
}
__device__ inline float2 load_pair(const __half* from) {
  return __half22float2(*reinterpret_cast<const __half2*>(from));
}
__device__ inline float2 load_pair(const __nv_bfloat16* from) {
  return __bfloat1622float2(*reinterpret_cast<const __nv_bfloat162*>(from));
}

// One block per token. Lane 4i + c of a warp takes core c of group i: four pairs of columns, which
// it keeps between finding the largest value and writing, for up to `held` spans of 256 columns a
// warp.
template <class X, int held, bool normed>
__global__ void __launch_bounds__(image_threads) image_kernel(const __grid_constant__ WideImage a) {
#if defined(QL_TENSOR_STEPS)
  constexpr int warps = image_threads / 32, step = 8 * warps;
  __shared__ unsigned largest_of_warp[warps];
  __shared__ float squares_of_warp[warps];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, core = lane % 4;
  const int token = blockIdx.x;
  const int groups = a.columns / 32, padded_groups = (groups + 1) / 2 * 2;
  const X* row = static_cast<const X*>(a.x) + static_cast<std::int64_t>(token) * a.columns;
  const int first = warp * 8 + lane / 4;
  using Pairs = float2[4];
  const auto load = [&](const auto* from, int group, Pairs& v) {
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      v[t] = token < a.tokens && group < groups ? load_pair(from + group * 32 + 8 * t + 2 * core)
                                                : make_float2(0, 0);
    }
  };
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
#endif
  Pairs kept[held];
#pragma unroll
  for (int i = 0; i < held; ++i) load(row, first + i * step, kept[i]);

  float factor = 1.0f;
  const auto norm = [&](int group, Pairs& v) {
    Pairs weight;
    load(a.norm, group, weight);
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      v[t] = {v[t].x * factor * weight[t].x, v[t].y * factor * weight[t].y};
    }
  };
  // What is not kept is read again each time.
  const auto read = [&](int group, Pairs& v) {
    load(row, group, v);
    if constexpr (normed) norm(group, v);
  };
  if constexpr (normed) {
    float squares = 0;
    const auto add = [&](const Pairs& v) {
#pragma unroll
      for (int t = 0; t < 4; ++t) squares += v[t].x * v[t].x + v[t].y * v[t].y;
    };
#pragma unroll
    for (int i = 0; i < held; ++i) add(kept[i]);
    for (int group = first + held * step; group < groups; group += step) {
      Pairs v;
      load(row, group, v);
      add(v);
    }
#pragma unroll
    for (int i = 1; i < 32; i *= 2) squares += __shfl_xor_sync(0xffffffffu, squares, i);
    if (lane == 0) squares_of_warp[warp] = squares;
    __syncthreads();
    squares = 0;
#pragma unroll
    for (int i = 0; i < warps; ++i) squares += squares_of_warp[i];
    factor = 1.0f / sqrtf(squares / static_cast<float>(a.columns) + a.epsilon);
#pragma unroll
    for (int i = 0; i < held; ++i) norm(first + i * step, kept[i]);
  }

  unsigned largest = 0;
  const auto take = [&](const Pairs& v) {
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      largest = max(largest, max(__float_as_uint(fabsf(v[t].x)), __float_as_uint(fabsf(v[t].y))));
    }
  };
#pragma unroll
  for (int i = 0; i < held; ++i) take(kept[i]);
  for (int group = first + held * step; group < groups; group += step) {
    Pairs v;
    read(group, v);
    take(v);
  }
  largest = __reduce_max_sync(0xffffffffu, largest);
  if (lane == 0) largest_of_warp[warp] = largest;
  __syncthreads();
  largest = __reduce_max_sync(0xffffffffu, largest_of_warp[lane % warps]);
  const float scale = power_of_two_scale(__uint_as_float(largest));
  if (threadIdx.x == 0) a.scales[token] = 1.0f / scale;
  const auto store = [&](int group, const Pairs& v) {
    if (group >= padded_groups) return;
    std::uint32_t bits[4];
#pragma unroll
    for (int t = 0; t < 4; ++t) {
      const __half2 h = __floats2half2_rn(v[t].x * scale, v[t].y * scale);
      bits[t] = *reinterpret_cast<const std::uint32_t*>(&h);
    }
    const int part = (group % 2 * 4 + core) ^ (token % 8);
    __half* to =
        a.image + (static_cast<std::int64_t>(group / 2) * a.padded_tokens + token) * 64 + part * 8;
    *reinterpret_cast<uint4*>(to) = make_uint4(bits[0], bits[1], bits[2], bits[3]);
  };
#pragma unroll
  for (int i = 0; i < held; ++i) store(first + i * step, kept[i]);
  for (int group = first + held * step; group < padded_groups; group += step) {
    Pairs v;
    read(group, v);
    store(group, v);
  }
#endif
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

MatmulStatus prepare_image(const WideImage& arguments, bool overlap, cudaStream_t stream) {
  cudaLaunchConfig_t config{};
  config.blockDim = dim3(image_threads);
  config.stream = stream;
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &attribute;
  config.numAttrs = overlap ? 1 : 0;
  config.gridDim = dim3(static_cast<unsigned>(arguments.padded_tokens));
  constexpr int span = image_threads / 32 * 256;
  const bool narrow = arguments.columns <= 2 * span;
  const auto kernel_of = [&]<class X>() {
    return narrow ? image_kernel<X, 2, false> : image_kernel<X, 7, false>;
  };
  const auto kernel =
      arguments.norm != nullptr
          ? (narrow ? image_kernel<float, 2, true> : image_kernel<float, 7, true>)
      : arguments.x_type == formats::Format::f16  ? kernel_of.template operator()<__half>()
      : arguments.x_type == formats::Format::bf16 ? kernel_of.template operator()<__nv_bfloat16>()
                                                  : kernel_of.template operator()<float>();
  return cudaLaunchKernelEx(&config, kernel, arguments) == cudaSuccess ? MatmulStatus::done
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

WidePlan wide_plan(int tokens, int columns, int strips, int processors, bool invariant) {
  const int pieces = (columns + piece_columns - 1) / piece_columns;
  WidePlan plan;
  plan.padded_tokens = wide_padded_tokens(tokens);
  double best = 0;
  // Cycles of a block, and of the sum over splits (fitted to an H200).
  for (const int tile : {16, 64, 128, 256}) {
    if (tile > plan.padded_tokens) break;
    const int cluster = wide_cluster(tile), block_strips = wide_strips(tile) * cluster;
    const int clusters = std::max(1, processors / cluster);
    const int tiles = (strips + block_strips - 1) / block_strips * ((tokens + tile - 1) / tile);
    const double per_column = tile == 256 ? 16.4 : tile == 128 ? 9.9 : tile == 64 ? 12.7 : 10.8;
    const double besides = tile == 256 ? 12e3 : tile == 128 ? 8.5e3 : tile == 64 ? 8e3 : 2e3;
    const int fixed = wide_fixed_splits(columns, strips);
    const int most = invariant ? fixed : std::min(16, pieces);
    for (int splits = invariant ? fixed : 1; splits <= most; ++splits) {
      const int waves = (tiles * splits + clusters - 1) / clusters;
      const int columns_each = (pieces + splits - 1) / splits * piece_columns;
      const double sums = splits == 1 ? 0.0 : 2.5e3 + 2e-3 * splits * tokens * strips * strip_rows;
      const double cycles = waves * (columns_each * per_column + besides) + sums;
      if (best == 0 || cycles < best) best = cycles, plan.tile_tokens = tile, plan.splits = splits;
    }
  }
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
                                     (strips + 31) / 32 * 512 * 4)
                              : 0;
  return plan;
}

}  // namespace quantloom::kernels
