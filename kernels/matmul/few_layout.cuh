// How stream_few.cuh divides a call among blocks, and a block's shared memory.
#pragma once

#include <algorithm>

#include "matmul/geometry.h"
#include "matmul/strips.cuh"

namespace quantloom::kernels {

constexpr int few_tokens = 8;
constexpr int few_warps = 16;          // most of a block
constexpr int few_most_blocks = 1024;  // of a slice
constexpr int few_depth = 4;           // most units whose sums are under way, of each team
// Of weights under way in a block: x queues behind more, of eight tokens sooner (Q4_K on an H200, 8
// tokens, 14336 x 4096: 14.9 us with four stages of 36864 bytes, 13.7 with three or two).
constexpr int few_ring_bytes(int tiles) { return tiles == 1 ? 114688 : 98304; }

struct FewLayout {
  int partial;  // [teams][depth units][strips][slice_pieces][32 lanes][2][tiles] float
  int scales;   // per warp: few_scale_bytes
  int handing;  // [teams][2: full, empty][few_depth] barriers
  int given;    // per warp: a barrier for x from the other block
  int barriers;
  int ring;
  int bytes;
  int stages;
  int early_stages;  // that are fetched before x is waited for,
  int next_stages;   // and after those when x is under way
  int slices;
  int slice_pieces;
  int teams;         // slice_pieces warps each, of which a team has every teams-th unit
  int blocks;        // of a slice
  bool shares;       // x is converted by the two blocks of a cluster
  int unit;          // strips: 1, or 2 in gate_up
  int depth;         // units whose sums are under way: a power of two
  int share, extra;  // units per block, and blocks with one more
  const float* x;
  float* slice_sums;   // [slices][strips][32 lanes][2][tiles]
  unsigned* arrivals;  // [blocks], zero before and after
};

// A kernel each for up to 4 and up to 8 tokens.
inline int few_tiles(int tokens) { return tokens <= 4 ? 1 : 2; }

// Of a warp, for the sums of a strip.
constexpr int few_place_bytes(int tiles) { return 256 * tiles; }

// Most pieces of a slice: so many that two stages of every format's fit, beside a codebook's table,
// into the shared memory of Hopper and Blackwell's data centre chips, of compute capability 8.0,
// and of 8.6, 8.9 and 12.0.
inline int few_slice_pieces(int shared_limit) {
  return shared_limit >= 232448 ? 16 : shared_limit >= 166912 ? 12 : 5;
}

inline int few_slices(int columns, int shared_limit) {
  const int pieces = (columns + piece_columns - 1) / piece_columns;
  const int most = few_slice_pieces(shared_limit);
  return (pieces + most - 1) / most;
}

struct FewWorkspace {
  std::size_t arrivals, sums, bytes;
};

inline FewWorkspace few_workspace(int tokens, int columns, int strips, int shared_limit) {
  FewWorkspace w{};
  const auto take = [&](std::size_t bytes) {
    const std::size_t start = w.bytes;
    w.bytes += (bytes + 255) / 256 * 256;
    return start;
  };
  const auto tiles = static_cast<std::size_t>(few_tiles(tokens));
  const auto slices = static_cast<std::size_t>(few_slices(columns, shared_limit));
  // First and of one size, so that it stays zero whatever the shapes of the calls that share the
  // workspace.
  w.arrivals = take(few_most_blocks * 4);
  w.sums = slices > 1 ? take(slices * static_cast<std::size_t>(strips) * tiles * 256) : 0;
  return w;
}

// What a format needs in shared memory: of a piece, of a warp's scales, of its codebook.
struct FewFormat {
  int piece_bytes, scale_bytes, table_bytes;
};

// x and the workspace are left to the caller. No teams where not even one has room.
inline FewLayout few_layout(const StripList& list, int strips, int processors, int shared_limit,
                            const FewFormat& format) {
  const int tiles = few_tiles(list.tokens);
  FewLayout layout{};
  const int pieces = (list.columns + piece_columns - 1) / piece_columns;
  layout.slices = few_slices(list.columns, shared_limit);
  layout.slice_pieces = (pieces + layout.slices - 1) / layout.slices;
  layout.unit = list.epilogue == MatmulEpilogue::gate_up ? 2 : 1;
  const int units = strips / layout.unit;
  layout.blocks = std::clamp(processors / layout.slices, 1, std::min(units, few_most_blocks));
  // Chips with so much shared memory have clusters.
  layout.shares = tiles == 2 && shared_limit >= 232448;
  if (layout.shares) {
    const int most = std::max(processors / layout.slices / 2 * 2, 2);
    layout.blocks = std::min({(units + 1) / 2 * 2, most, few_most_blocks});
  }
  layout.share = units / layout.blocks;
  layout.extra = units % layout.blocks;

  int stage_bytes = 0;
  const auto fits = [&] {
    const int warps = layout.slice_pieces * layout.teams;
    stage_bytes = warps * format.piece_bytes;
    int at = 0;
    const auto take = [&](int bytes) {
      const int start = at;
      at += (bytes + 127) / 128 * 128;
      return start;
    };
    take(format.table_bytes);
    layout.partial = take(warps * layout.depth * layout.unit * few_place_bytes(tiles));
    layout.scales = take(warps * format.scale_bytes);
    layout.handing = take(layout.teams * few_depth * 16);
    layout.given = take(warps * 8);
    layout.barriers = take(warps * 8 * 8);
    layout.ring = at;
    layout.stages = std::min((shared_limit - at) / stage_bytes,
                             std::clamp(few_ring_bytes(tiles) / stage_bytes, 2, 4));
    layout.bytes = at + layout.stages * stage_bytes;
    return layout.stages >= 2;
  };
  layout.depth = few_depth, layout.teams = few_warps / layout.slice_pieces;
  while (layout.teams > 0 && !fits()) {
    // The places of four strips take x from the other block, too.
    if (layout.depth * layout.unit > 4) {
      layout.depth /= 2;
    } else {
      layout.depth = few_depth, --layout.teams;
    }
  }
  // What an SM reads until x comes, which queues behind it: 8 tokens' x is more than 4's. Where a
  // warp has two pieces at most, small ones come behind x early enough (4096 x 4096 and 8 tokens of
  // Q4_0 on an H200: 7.3 to 6.8 us), the second when x is converted.
  const bool is_short = (layout.share + 1) * layout.unit <= 2 * layout.teams;
  const int most_early = tiles == 1 ? 73728 : 36864;
  layout.early_stages = !is_short ? std::clamp(most_early / stage_bytes, 1, layout.stages)
                        : stage_bytes <= 57344 ? 0
                                               : 1;
  layout.next_stages = is_short ? 1 : layout.stages;
  return layout;
}

}  // namespace quantloom::kernels
