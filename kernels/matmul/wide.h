// The interface between the dispatcher and the Hopper kernels for many tokens (wide_sm90.cuh).
#pragma once

#include <cuda_fp16.h>

#include <algorithm>

#include "matmul/matmul.h"
#include "matmul/strips.cuh"

namespace quantloom::kernels {

// Rows of the weights per block. From 128 tokens on a thread holds 64 or 128 sums, which leaves
// room for two warpgroups only.
constexpr int wide_rows(int tile_tokens) { return tile_tokens >= 128 ? 128 : 256; }
constexpr int wide_strips(int tile_tokens) { return wide_rows(tile_tokens) / strip_rows; }
// Blocks that share their copies of x: 3% at 256 tokens and 14336 columns, a loss for narrow tiles
// (measured on an H200).
constexpr int wide_cluster(int tile_tokens) { return tile_tokens == 256 ? 2 : 1; }

// Tiles whose splits' sums can meet in clusters (wide_gather.cuh).
constexpr bool wide_gathers(int tile_tokens) { return tile_tokens <= 64; }

// From here on the wide kernel is faster than stream_few (measured on an H200).
constexpr int wide_least_tokens = 9;

// The workspace starts with the arrival counters of stream_few.cuh, which stay zero between calls.
constexpr std::size_t wide_workspace_start = 1024 * 4;

struct WidePlan {
  int tile_tokens = 0;   // 16, 64, 128 or 256
  int tiles = 1;         // of tokens
  int splits = 1;        // of the columns
  int block_pieces = 0;  // that a block multiplies by
  bool gathers = false;  // each block has one item, and the splits' sums meet in clusters
  int padded_tokens = 0;
  std::size_t x = 0, sums = 0, bytes = 0;  // offsets into the workspace
};

// Tokens that x is written for, whatever tile a call takes, so that calls can share it.
__host__ __device__ constexpr int wide_padded_tokens(int tokens) {
  const int unit = tokens <= 16 ? 16 : tokens <= 64 ? 64 : tokens <= 128 ? 128 : 256;
  return (tokens + unit - 1) & -unit;
}

// Splits that depend on the matrix alone, for results that do not depend on the number of tokens:
// what fills an H200 with one tile of tokens, at most 4 so that many tokens do not drown in sums.
inline int wide_fixed_splits(int columns, int strips) {
  const int pieces = (columns + piece_columns - 1) / piece_columns;
  const int row_tiles = (strips + wide_strips(16) - 1) / wide_strips(16);
  return std::clamp(132 / row_tiles, 1, std::min(4, pieces));
}

// Of 64 columns of x: whole pieces, so that short ones are multiplied like others.
__host__ __device__ constexpr int wide_chunks(int columns) {
  return (columns + piece_columns - 1) / piece_columns * (piece_columns / 64);
}

// Offsets into the memory of a prepared x.
struct PreparedLayout {
  int padded_tokens = 0;
  std::size_t scales = 0;  // [padded tokens] float: what a token's sums are multiplied by
  std::size_t image = 0;   // WideImage
  std::size_t steps = 0;   // [columns / 16][padded tokens] int8: coarse_step()s (activations.cuh)
  std::size_t bytes = 0;
};
__host__ __device__ constexpr PreparedLayout prepared_layout(int tokens, int columns) {
  PreparedLayout layout;
  layout.padded_tokens = wide_padded_tokens(tokens);
  const auto padded = static_cast<std::size_t>(layout.padded_tokens);
  const auto round = [](std::size_t bytes) { return (bytes + 255) / 256 * 256; };
  layout.image = round(padded * 4);
  layout.steps = layout.image + padded * static_cast<std::size_t>(wide_chunks(columns)) * 128;
  layout.bytes = layout.steps + round(padded * static_cast<std::size_t>(columns / strip_rows));
  return layout;
}

// x as a launch finds it: prepared, or for one tile of 16 tokens its values, which the kernel then
// converts itself.
struct WideX {
  const __half* image = nullptr;
  const float* scales = nullptr;  // null: 1 each
  const void* values = nullptr;
  formats::Format type = formats::Format::f32;  // of the values
  bool overlap = true;                          // with the kernel before
  bool waits_late = false;                      // MatmulX::prepared_earlier
};

// bound_by_bytes: the weights' bytes take longer than their instructions.
WidePlan wide_plan(int tokens, int columns, int strips, int processors, bool invariant,
                   bool bound_by_bytes);

// x, normed where norm is not null (matmul.h), as the B operand: [wide_chunks][padded tokens][64
// halves], zeros behind the last column, swizzled (wgmma_sm90.cuh) and scaled per token by a power
// of two whose inverse goes to scales. Within a group of 32, the 16 bytes of core 2s + h hold
// columns 8t + 4s + 2h + {0, 1} for t = 0 .. 3: the order in which a lane's eight neighbours of
// planes.h become two steps of 16.
struct WideImage {
  const void* x = nullptr;
  formats::Format x_type = formats::Format::f32;  // no norm with another
  const float* norm = nullptr;
  float epsilon = 0;
  int columns = 0, tokens = 0, padded_tokens = 0;
  __half* image = nullptr;
  float* scales = nullptr;
  // The product's blocks come in before x is waited for, and fetch weights.
  bool lets_in = false;
};
// Whether that pays: 1 us at 16 tokens and 4096 columns, 0.4 to 0.9 at 64, where it costs 0.3 to
// 0.7 with 14336, and up to 1.7 at 128 tokens (4096 and 14336 rows on an H200).
constexpr bool wide_lets_in(int padded_tokens, int columns) {
  return padded_tokens <= 16 || (padded_tokens <= 64 && columns <= 8192);
}
MatmulStatus prepare_image(const WideImage& arguments, bool overlap, cudaStream_t stream);

// Brings the strips of a token to the scale of its largest value, and writes the tokens' scales.
MatmulStatus align_steps(void* prepared, int tokens, int columns, cudaStream_t stream);

// Adds the splits' sums [splits][padded tokens][padded rows] and applies the epilogue. lets_in: the
// next kernel's blocks come in while the sums are still computed, which saves one of few tokens
// that fetches weights 0.4 us and costs one of 64 up to 1.4 (4096 x 14336 on an H200).
MatmulStatus sum_splits(const StripList& list, int strips, int splits, int padded_tokens,
                        int padded_rows, const float* sums, const float* scales, bool lets_in,
                        cudaStream_t stream);

using WideLaunch = MatmulStatus (*)(const StripList&, int strips, const WidePlan&, const WideX&,
                                    void* workspace, int processors, cudaStream_t);

template <class F>
WideLaunch wide_kernel();

}  // namespace quantloom::kernels
