#include "matmul/wide.h"

#include <algorithm>

#include "device/overlap.cuh"
#include "matmul/activations.cuh"
#include "matmul/few_layout.cuh"

namespace quantloom::kernels {
namespace {

constexpr int sum_threads = 128, sum_rows = 4;  // neighbouring rows of a token for each thread
constexpr int sum_batch = 8;                    // splits whose loads are under way together

__device__ inline void store_sums(const StripList& list, Strip strip, int row_in_strip, int token,
                                  float4 sums) {
  const int row = strip.index * strip_rows + row_in_strip;
  const int rows = list.rows[strip.weight];
  if (list.out_type == formats::Format::f32 && list.bias[strip.weight] == nullptr) {
    float* out =
        static_cast<float*>(list.out[strip.weight]) + static_cast<std::int64_t>(token) * rows + row;
    if (row + 3 < rows && reinterpret_cast<std::uintptr_t>(out) % 16 == 0) {
      auto* to = reinterpret_cast<float4*>(out);
      if (list.epilogue == MatmulEpilogue::add) {
        const float4 old = *to;
        sums.x += old.x, sums.y += old.y, sums.z += old.z, sums.w += old.w;
      }
      *to = sums;
      return;
    }
  }
  store_sum(list, strip, row_in_strip, token, sums.x);
  store_sum(list, strip, row_in_strip + 1, token, sums.y);
  store_sum(list, strip, row_in_strip + 2, token, sums.z);
  store_sum(list, strip, row_in_strip + 3, token, sums.w);
}

__global__ void __launch_bounds__(sum_threads)
    sum_splits_kernel(const __grid_constant__ StripList list, int strips, int splits,
                      int padded_tokens, int padded_rows, const float* sums, const float* scales,
                      bool lets_in) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  if (lets_in) cudaTriggerProgrammaticLaunchCompletion();
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
#endif
  constexpr int parts = strip_rows / sum_rows;
  const bool gated = list.epilogue == MatmulEpilogue::gate_up;
  const int i = blockIdx.x * sum_threads + threadIdx.x, token = blockIdx.y;
  const int s = i / parts, row = i % parts * sum_rows;
  if (s >= (gated ? strips / 2 : strips)) return;
  const float scale = scales == nullptr ? 1.0f : scales[token];
  const std::int64_t step = static_cast<std::int64_t>(padded_tokens) * padded_rows;
  const auto total = [&](int strip) {
    const float largest = *list.largest[find_strip(list, strip).weight];
    const float* from =
        sums + static_cast<std::int64_t>(token) * padded_rows + strip * strip_rows + row;
    float4 sum{};
    for (int first = 0; first < splits; first += sum_batch, from += sum_batch * step) {
      float4 v[sum_batch];
#pragma unroll
      for (int k = 0; k < sum_batch; ++k) {
        if (first + k < splits) v[k] = __ldcg(reinterpret_cast<const float4*>(from + k * step));
      }
#pragma unroll
      for (int k = 0; k < sum_batch; ++k) {
        if (first + k >= splits) break;
        sum.x += v[k].x, sum.y += v[k].y, sum.z += v[k].z, sum.w += v[k].w;
      }
    }
    const float factor = scale / power_of_two_scale(largest);
    return make_float4(sum.x * factor, sum.y * factor, sum.z * factor, sum.w * factor);
  };
  if (gated) {
    const float4 gate = total(2 * s), up = total(2 * s + 1);
    store_gated(list, s, row, token, gate.x, up.x);
    store_gated(list, s, row + 1, token, gate.y, up.y);
    store_gated(list, s, row + 2, token, gate.z, up.z);
    store_gated(list, s, row + 3, token, gate.w, up.w);
  } else {
    store_sums(list, find_strip(list, s), row, token, total(s));
  }
}

}  // namespace

MatmulStatus sum_splits(const StripList& list, int strips, int splits, int padded_tokens,
                        int padded_rows, const float* sums, const float* scales, bool lets_in,
                        cudaStream_t stream) {
  const int unit = list.epilogue == MatmulEpilogue::gate_up ? 2 : 1;
  const int threads = strips / unit * (strip_rows / sum_rows);
  const dim3 grid(static_cast<unsigned>((threads + sum_threads - 1) / sum_threads),
                  static_cast<unsigned>(list.tokens));
  return launch_overlapped(sum_splits_kernel, grid, sum_threads, 0, stream, list, strips, splits,
                           padded_tokens, padded_rows, sums, scales, lets_in) == cudaSuccess
             ? MatmulStatus::done
             : MatmulStatus::cuda_error;
}

WidePlan wide_plan(int tokens, int columns, int strips, int processors, bool invariant,
                   bool bound_by_bytes) {
  const int pieces = (columns + piece_columns - 1) / piece_columns;
  WidePlan plan;
  plan.padded_tokens = wide_padded_tokens(tokens);
  double best = 0;
  // Cycles of a block, and of the sum over splits (fitted to an H200; of a cluster's, estimated).
  for (const int tile : {16, 64, 128, 256}) {
    if (tile > plan.padded_tokens) break;
    const int cluster = wide_cluster(tile), block_strips = wide_strips(tile) * cluster;
    const int clusters = std::max(1, processors / cluster);
    const int row_tiles = (strips + block_strips - 1) / block_strips;
    const int tiles = row_tiles * ((tokens + tile - 1) / tile);
    const double per_column = tile == 256 ? 16.4 : tile == 128 ? 9.9 : tile == 64 ? 12.7 : 10.8;
    const double besides = tile == 256 ? 12e3 : tile == 128 ? 8.5e3 : tile == 64 ? 8e3 : 2e3;
    const int fixed = wide_fixed_splits(columns, strips);
    const int most = invariant ? fixed : std::min(16, pieces);
    for (int splits = invariant ? fixed : 1; splits <= most; ++splits) {
      const int waves = (tiles * splits + clusters - 1) / clusters;
      const int columns_each = (pieces + splits - 1) / splits * piece_columns;
      const bool gathers = wide_gathers(tile) && tokens <= tile && splits == 2 && !invariant &&
                           2 * row_tiles <= processors;
      const double sums = splits == 1 ? 0.0
                          : gathers   ? 1e3
                                      : 2.5e3 + 2e-3 * splits * tokens * strips * strip_rows;
      const double cycles = waves * (columns_each * per_column + besides) + sums;
      if (best != 0 && cycles >= best) continue;
      best = cycles;
      plan.tile_tokens = tile;
      plan.tiles = (tokens + tile - 1) / tile;
      plan.splits = splits;
      plan.block_pieces = waves * columns_each / piece_columns;
      plan.gathers = gathers;
    }
  }
  // Clusters of six leave multiprocessors idle, which weights whose bytes take the time do not miss
  // (16 tokens of Q8_0 on an H200: 4096 x 4096 10.4 to 9.9 us, 4096 x 14336 24.0 to 23.1).
  const int row_tiles = (strips + wide_strips(16) - 1) / wide_strips(16);
  if (bound_by_bytes && plan.tile_tokens == 16 && plan.tiles == 1 && !invariant &&
      plan.splits > 2 && row_tiles <= processors / 8) {
    plan.splits = 6;
    plan.block_pieces = (pieces + 5) / 6;
    plan.gathers = true;
  }
  static_assert(wide_workspace_start == few_most_blocks * 4);
  plan.bytes = wide_workspace_start;
  const auto take = [&](std::size_t bytes) {
    const std::size_t start = plan.bytes;
    plan.bytes += (bytes + 255) / 256 * 256;
    return start;
  };
  plan.x = take(prepared_layout(tokens, columns).bytes);
  plan.sums = plan.splits > 1 && !plan.gathers
                  ? take(static_cast<std::size_t>(plan.splits) * plan.padded_tokens *
                         (strips + 31) / 32 * 512 * 4)
                  : 0;
  return plan;
}

}  // namespace quantloom::kernels
