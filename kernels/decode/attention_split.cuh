// How the cache of one token's attention is cut over blocks and warps.
#pragma once

#include "decode/attention_groups.h"
#include "decode/decode.h"
#include "decode/sizes.h"
#include "transformer/attention.cuh"

namespace quantloom::kernels {

constexpr int least_part = 32;  // positions
constexpr int most_head_size = 128;
constexpr int sums_padding = 8;    // floats, against bank conflicts
constexpr int held_positions = 8;  // whose keys and values a warp has in registers

// Floats of a warp's sums. Those of four warps start in different banks of 16 bytes, two apart.
__device__ constexpr int sums_region(int rows, int head_size) {
  return rows * (head_size + sums_padding) + ((1 - rows) & 3) * 8;
}

// The parts of an attention's output at `at`: sums [slots][head size], then their peaks and masses.
struct AttentionParts {
  float* sums;
  float2* peaks;
  __device__ AttentionParts(void* at, const AttentionGroups& groups, int head_size)
      : sums(static_cast<float*>(at)),
        peaks(reinterpret_cast<float2*>(sums + groups.slots() * head_size)) {}
};

struct AttentionSplit : AttentionGroups {
  int parts, items;
  int begin, end, part;  // positions that the token sees, and of one part
  AttentionSplit() = default;
  __device__ AttentionSplit(const Attention& a, int position)
      : AttentionGroups(a, static_cast<int>(gridDim.x)) {
    end = position + 1;
    begin = a.window > 0 && end > a.window ? end - static_cast<int>(a.window) : 0;
    const int length = end - begin;
    const int most = max(1, static_cast<int>(gridDim.x) / pairs);
    parts = min(min(most, places), (length + least_part - 1) / least_part);
    part = (length + parts - 1) / parts;
    part = (part + held_positions - 1) / held_positions * held_positions;
    parts = (length + part - 1) / part;
    items = pairs * parts;
  }
};

// One part for one key head and at most eight of its query heads.
struct AttentionItem {
  int index, pair, part, parts, kv_head;
  int head, rows;    // the first query head and their number
  int from, to;      // positions
  int tiles, warps;  // of eight positions, and the warps that take them in turn
  bool writes;       // the new key and value, which are in this part
  AttentionItem() = default;
  __device__ AttentionItem(const AttentionSplit& split, const Cache& cache, int item)
      : index(item), pair(item / split.parts), parts(split.parts) {
    part = item - pair * parts;
    kv_head = pair / split.row_groups;
    const int first = (pair - kv_head * split.row_groups) << split.group_shift;
    head = kv_head * split.rows + first;
    rows = min(1 << split.group_shift, split.rows - first);
    from = split.begin + part * split.part;
    to = min(split.end, from + split.part);
    tiles = (to - from + held_positions - 1) / held_positions;
    const int room = attention_sums_bytes /
                     (sums_region(rows, cache.head_size) * static_cast<int>(sizeof(float)));
    warps = min(min(decode_warps, room), tiles);
    writes = part + 1 == parts;
  }
};

// A hint to the L2 for what the block reads first of the cache. One thread calls it.
__device__ inline void prefetch_cache(const Cache& cache, const AttentionItem& item) {
#if __CUDA_ARCH__ >= 900
  constexpr int positions = 768;
  const int row_bytes = cache.head_size * (cache.type == CacheType::q8_0 ? 1 : 2);
  const std::int64_t at = (item.kv_head * cache.capacity + item.from) * row_bytes;
  const auto bytes = static_cast<std::uint32_t>(min(item.to - item.from, positions)) * row_bytes;
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(
                   static_cast<const std::uint8_t*>(cache.keys) + at),
               "r"(bytes)
               : "memory");
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(
                   static_cast<const std::uint8_t*>(cache.values) + at),
               "r"(bytes)
               : "memory");
#endif
}

}  // namespace quantloom::kernels
