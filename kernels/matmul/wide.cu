#include "matmul/wide.h"

#include <algorithm>

#include "device/overlap.cuh"
#include "matmul/activations.cuh"
#include "matmul/stream_few.cuh"

namespace quantloom::kernels {
namespace {

constexpr int sum_threads = 256;

__global__ void __launch_bounds__(sum_threads)
    sum_splits_kernel(const __grid_constant__ StripList list, int strips, int splits,
                      int padded_tokens, int padded_rows, const float* sums, const float* scales) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
#endif
  const bool gated = list.epilogue == MatmulEpilogue::gate_up;
  const int i = blockIdx.x * sum_threads + threadIdx.x, token = blockIdx.y;
  const int s = i / strip_rows, row = i % strip_rows;
  if (s >= (gated ? strips / 2 : strips)) return;
  const auto total = [&](int strip) {
    const int weight = find_strip(list, strip).weight;
    float sum = 0;
    for (int k = 0; k < splits; ++k) {
      sum += sums[(static_cast<std::int64_t>(k) * padded_tokens + token) * padded_rows +
                  strip * strip_rows + row];
    }
    const float factor = scales == nullptr ? 1.0f : scales[token];
    return sum * (factor / power_of_two_scale(*list.largest[weight]));
  };
  if (gated) {
    store_gated(list, s, row, token, total(2 * s), total(2 * s + 1));
  } else {
    store_sum(list, find_strip(list, s), row, token, total(s));
  }
}

}  // namespace

MatmulStatus sum_splits(const StripList& list, int strips, int splits, int padded_tokens,
                        int padded_rows, const float* sums, const float* scales,
                        cudaStream_t stream) {
  const int unit = list.epilogue == MatmulEpilogue::gate_up ? 2 : 1;
  const int threads = strips / unit * strip_rows;
  const dim3 grid(static_cast<unsigned>((threads + sum_threads - 1) / sum_threads),
                  static_cast<unsigned>(list.tokens));
  return launch_overlapped(sum_splits_kernel, grid, sum_threads, 0, stream, list, strips, splits,
                           padded_tokens, padded_rows, sums, scales) == cudaSuccess
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
      if (best != 0 && cycles >= best) continue;
      best = cycles;
      plan.tile_tokens = tile;
      plan.tiles = (tokens + tile - 1) / tile;
      plan.splits = splits;
      plan.block_pieces = waves * columns_each / piece_columns;
    }
  }
  static_assert(wide_workspace_start == few_most_blocks * 4);
  plan.bytes = wide_workspace_start;
  const auto take = [&](std::size_t bytes) {
    const std::size_t start = plan.bytes;
    plan.bytes += (bytes + 255) / 256 * 256;
    return start;
  };
  plan.x = take(prepared_layout(tokens, columns).bytes);
  plan.sums = plan.splits > 1 ? take(static_cast<std::size_t>(plan.splits) * plan.padded_tokens *
                                     (strips + 31) / 32 * 512 * 4)
                              : 0;
  return plan;
}

}  // namespace quantloom::kernels
