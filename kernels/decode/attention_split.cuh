// How the cache of one token's attention is cut over blocks and warps.
#pragma once

#include "decode/decode.h"
#include "decode/sizes.h"
#include "transformer/attention.cuh"
#include "transformer/attention_tile.cuh"

namespace quantloom::kernels {

// The readers of the attention's output add the parts, which spares a meeting of the blocks.
constexpr int most_parts = 4;
constexpr int least_part = 128;  // positions
constexpr int most_head_size = 128;

struct AttentionSplit {
  int rows, row_groups, parts, items;
  int begin, end, part;  // positions that the token sees, and of one part
  AttentionSplit() = default;
  __device__ AttentionSplit(const Attention& a, int position) {
    rows = a.heads / a.cache.kv_heads;
    row_groups = (rows + rows_per_partial - 1) / rows_per_partial;
    const int pairs = a.cache.kv_heads * row_groups;
    end = position + 1;
    begin = a.window > 0 && end > a.window ? end - static_cast<int>(a.window) : 0;
    const int length = end - begin;
    const int most = max(1, static_cast<int>(gridDim.x) / pairs);
    parts = min(min(most, most_parts), (length + least_part - 1) / least_part);
    part = (length + parts - 1) / parts;
    part = (part + tile_positions - 1) / tile_positions * tile_positions;
    parts = (length + part - 1) / part;
    items = pairs * parts;
  }
};

// One part for one key head and at most eight of its query heads.
struct AttentionItem {
  int index, pair, parts, kv_head;
  int head, rows;    // the first query head and their number
  int from, to;      // positions
  int tiles, warps;  // of 16 positions, and the warps that take them in turn
  bool writes;       // the new key and value, which are in this part
  AttentionItem() = default;
  __device__ AttentionItem(const AttentionSplit& split, const Cache& cache, int item)
      : index(item), pair(item / split.parts), parts(split.parts) {
    const int part = item - pair * parts;
    kv_head = pair / split.row_groups;
    const int first = (pair - kv_head * split.row_groups) * rows_per_partial;
    head = kv_head * split.rows + first;
    rows = min(rows_per_partial, split.rows - first);
    from = split.begin + part * split.part;
    to = min(split.end, from + split.part);
    tiles = (to - from + tile_positions - 1) / tile_positions;
    const int room =
        attention_sums_bytes / (rows * cache.head_size * static_cast<int>(sizeof(float)));
    warps = min(min(decode_warps, room), tiles);
    writes = part + 1 == parts;
  }
};

}  // namespace quantloom::kernels
