// How the query heads of one token's attention are grouped, for its plan on the host too.
#pragma once

#include <cuda_runtime_api.h>

#include "transformer/transformer.h"

namespace quantloom::kernels {

// Of a head's cache, for blocks of their own; twice as many where half of the blocks would be idle.
constexpr int usual_parts = 16, most_parts = 32;

// Query heads of a key head in groups, each an item's.
struct AttentionGroups {
  int rows;         // query heads of a key head
  int group_shift;  // of 2^3 rows, or 2^2 where blocks would be idle
  int row_groups;
  int slot_rows;  // places for an item's rows
  int pairs;      // of a key head and a group
  int places;     // for a pair's parts: usual_parts or most_parts
  AttentionGroups() = default;
  __host__ __device__ AttentionGroups(const Attention& a, int blocks) {
    rows = a.heads / a.cache.kv_heads;
    // Twice the blocks read the same cache, each with all its warps.
    const int fours = (rows + 3) / 4;
    group_shift = a.cache.kv_heads * fours * usual_parts <= blocks ? 2 : 3;
    row_groups = group_shift == 2 ? fours : (rows + 7) / 8;
    slot_rows = rows < 1 << group_shift ? rows : 1 << group_shift;
    pairs = a.cache.kv_heads * row_groups;
    places = pairs * most_parts <= blocks ? most_parts : usual_parts;
  }
  __host__ __device__ int slots() const { return pairs * places * slot_rows; }
  __host__ __device__ int slot(int pair, int part) const {
    return (pair * places + part) * slot_rows;
  }
};

}  // namespace quantloom::kernels
