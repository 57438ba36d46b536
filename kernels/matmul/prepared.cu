// What the kernel for many tokens multiplies: x in halves (wide.h), from values, or from the strips
// that gate_up leaves.
#include <algorithm>

#include "device/overlap.cuh"
#include "matmul/activations.cuh"
#include "matmul/wide.h"

namespace quantloom::kernels {
namespace {

constexpr int image_threads = 256;

// One block per token. Lane 4i + c of a warp takes core c of group i: four pairs of columns, which
// it keeps between finding the largest value and writing, for up to `held` spans of 256 columns a
// warp.
template <class X, int held, bool normed>
__global__ void __launch_bounds__(image_threads) image_kernel(const __grid_constant__ WideImage a) {
  constexpr int warps = image_threads / 32, step = 8 * warps;
  __shared__ unsigned largest_of_warp[warps];
  __shared__ float squares_of_warp[warps];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, core = lane % 4;
  const int token = blockIdx.x;
  const int groups = a.columns / 32, padded_groups = 2 * wide_chunks(a.columns);
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
  if (a.lets_in) cudaTriggerProgrammaticLaunchCompletion();
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
}

// A block takes 16 tokens and a share of their strips; sixteen threads side by side read these
// tokens' steps of a strip. At 512 tokens 32 blocks alone took 17 us a layer more (Qwen2.5-3B on an
// H200).
constexpr int align_tokens = 16, align_threads = 512;
constexpr int align_blocks = 264;  // two for each multiprocessor of an H200
constexpr int align_most_shares = 8;

// Calls use(bits) for the four parts of a token's strip, which it may change.
template <class Use>
__device__ inline void each_part(std::uint8_t* image, int padded_tokens, int strip, int token,
                                 Use&& use) {
  std::uint8_t* row = image + (static_cast<std::int64_t>(strip / 4) * padded_tokens + token) * 128;
#pragma unroll
  for (int core = 0; core < 4; ++core) {
    use(*reinterpret_cast<uint2*>(row + ((strip / 2 % 2 * 4 + core) ^ (token % 8)) * 16 +
                                  strip % 2 * 8));
  }
}

__device__ inline void scale_pair(std::uint32_t& pair, float factor) {
  const float2 v = __half22float2(*reinterpret_cast<const __half2*>(&pair));
  const __half2 scaled = __floats2half2_rn(v.x * factor, v.y * factor);
  pair = *reinterpret_cast<const std::uint32_t*>(&scaled);
}

__global__ void __launch_bounds__(align_threads)
    align_kernel(std::uint8_t* prepared, int tokens, int columns) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
  constexpr int strips_at_once = align_threads / align_tokens, held = 8;
  __shared__ int common_of[align_tokens];
  const PreparedLayout layout = prepared_layout(tokens, columns);
  const int strips = columns / strip_rows, padded_strips = 4 * wide_chunks(columns);
  const int first = threadIdx.x / align_tokens;
  const int token = blockIdx.x * align_tokens + threadIdx.x % align_tokens;
  const auto* steps = reinterpret_cast<const signed char*>(prepared + layout.steps) + token;
  // Tiles reach beyond the last token, and pieces beyond the last column: zeros stand there.
  const bool is_used = token < tokens;
  if (threadIdx.x < align_tokens) common_of[threadIdx.x] = coarse_least;
  __syncthreads();
  // Loads for several strips are under way at a time.
  const auto each = [&](int begin, int end, auto&& use) {
    for (int strip = begin + first; strip < end; strip += held * strips_at_once) {
      int step[held];
#pragma unroll
      for (int i = 0; i < held; ++i) {
        const int at = strip + i * strips_at_once;
        step[i] = at < strips && is_used
                      ? steps[static_cast<std::int64_t>(at) * layout.padded_tokens]
                      : coarse_least;
      }
#pragma unroll
      for (int i = 0; i < held; ++i) {
        const int at = strip + i * strips_at_once;
        if (at < end) use(at, step[i]);
      }
    }
  };
  int largest = coarse_least;
  each(0, strips, [&](int, int step) { largest = max(largest, step); });
  atomicMax(&common_of[threadIdx.x % align_tokens], largest);
  __syncthreads();
  const int common = common_of[threadIdx.x % align_tokens];
  if (first == 0 && blockIdx.y == 0) {
    reinterpret_cast<float*>(prepared + layout.scales)[token] =
        power_of_two(-coarse_exponent(common));
  }
  std::uint8_t* image = prepared + layout.image;
  const int share = (padded_strips + gridDim.y - 1) / gridDim.y, begin = blockIdx.y * share;
  each(begin, min(begin + share, padded_strips), [&](int strip, int step) {
    if (!is_used || strip >= strips) {
      each_part(image, layout.padded_tokens, strip, token,
                [](uint2& part) { part = make_uint2(0, 0); });
    } else if (step != common) {
      const int exponent = coarse_exponent(common) - coarse_exponent(step);
      const float factor = power_of_two(max(-126, min(126, exponent)));
      each_part(image, layout.padded_tokens, strip, token, [&](uint2& part) {
        uint2 bits = part;
        scale_pair(bits.x, factor), scale_pair(bits.y, factor);
        part = bits;
      });
    }
  });
#endif
}

}  // namespace

MatmulStatus prepare_image(const WideImage& arguments, bool overlap, cudaStream_t stream) {
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
  const dim3 grid(static_cast<unsigned>(arguments.padded_tokens));
  return launch_kernel(kernel, grid, image_threads, 0, overlap, stream, arguments) == cudaSuccess
             ? MatmulStatus::done
             : MatmulStatus::cuda_error;
}

MatmulStatus align_steps(void* prepared, int tokens, int columns, cudaStream_t stream) {
  const int blocks = wide_padded_tokens(tokens) / align_tokens;
  const dim3 grid(static_cast<unsigned>(blocks),
                  static_cast<unsigned>(std::clamp(align_blocks / blocks, 1, align_most_shares)));
  return launch_overlapped(align_kernel, grid, align_threads, 0, stream,
                           static_cast<std::uint8_t*>(prepared), tokens, columns) == cudaSuccess
             ? MatmulStatus::done
             : MatmulStatus::cuda_error;
}

}  // namespace quantloom::kernels
