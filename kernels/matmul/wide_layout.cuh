// How the wide kernel's threads, shared memory and work are laid out (wide_kernel_sm90.cuh).
#pragma once

#include "matmul/wide.h"

namespace quantloom::kernels {

// A strip per warp, and a warpgroup whose first warp copies x.
constexpr int wide_consumers(int tile_tokens) { return 2 * wide_rows(tile_tokens); }
constexpr int wide_threads(int tile_tokens) { return wide_consumers(tile_tokens) + 128; }
constexpr int wide_chunk = 64;  // columns of x that stand together
// Chunks of a stage: waiting for one and releasing it takes a twentieth of a piece's instructions.
constexpr int wide_stage_chunks(int tile_tokens) {
  return tile_tokens == 16 ? 4 : tile_tokens == 64 ? 2 : 1;
}

struct WideLayout {
  int x, weights, affine, pairs, factors, steps, barriers, table, bytes;
  int x_stages, weight_stages;
  int early_stages;  // of weights, that are fetched before x is waited for
  int tiles;         // of tokens
  int row_tiles;     // rounded up to whole clusters
  int splits, split_pieces;
  int padded_tokens;
  bool waits_late;
  const __half* image;
  const float* scales;
  const void* values;
  formats::Format values_type;
  float* sums;  // [splits][padded tokens][row tiles * wide_rows]
};

// One cluster's share of the product: neighbouring row tiles (one per block), a split of the
// columns, a tile of tokens. Tiles of tokens come first, so that clusters at work share weights.
struct WideItem {
  int first_token, split, row_tile;
};

template <int tile_tokens, int cluster>
__device__ inline WideItem wide_item(const WideLayout& layout, int index, int rank) {
  const int tile = index % layout.tiles, rest = index / layout.tiles;
  return {tile * tile_tokens, rest % layout.splits, rest / layout.splits * cluster + rank};
}

}  // namespace quantloom::kernels
