// Attention of one token inside the program, with RoPE and the write of its keys and values: the
// cache is split over the blocks (flash decoding, Dao et al. 2023), a block's part over its warps,
// 16 positions a turn. The product that reads the output adds the parts in their order.
#pragma once

#include "decode/block.cuh"
#include "decode/head_tile.cuh"
#include "transformer/attention.cuh"
#include "transformer/rope_head.cuh"

namespace quantloom::kernels {

// Shared memory of attention.
struct AttentionScratch {
  float2* peaks;     // [warps][8 rows]: highest score, mass
  float* shrinks;    // [8 rows][warps]: factors of their sums
  float* heads;      // [10][head_size]: queries, new key, new value
  uint4* fragments;  // [head_size / 16][32 lanes]: the queries as A operand
  float* sums;       // [warps in use][rows][head_size]; overlaps heads and fragments
  __device__ AttentionScratch(std::uint8_t* base, int head_size) {
    peaks = reinterpret_cast<float2*>(base);
    shrinks = reinterpret_cast<float*>(peaks + decode_warps * rows_per_partial);
    heads = shrinks + rows_per_partial * decode_warps;
    fragments = reinterpret_cast<uint4*>(heads + (rows_per_partial + 2) * head_size);
    sums = heads;
  }
  static_assert(attention_scratch_bytes == decode_warps * rows_per_partial * sizeof(float2) +
                                               rows_per_partial * decode_warps * sizeof(float) +
                                               attention_sums_bytes);
};

// What does not depend on the step before: angles and norms to shared memory, the block's first
// item, and a hint to the L2 for what it will read first.
__device__ __noinline__ inline void begin_attention(const DecodeAttention& a, Block& block) {
  const Cache& cache = a.attention.cache;
  const int half = a.rope.dimensions / 2, thread = threadIdx.x;
  if (thread < half) {
    block.angles[thread] = reinterpret_cast<const float2*>(
        a.rope.table)[static_cast<std::int64_t>(block.position) * half + thread];
  }
  if (thread < cache.head_size) {
    if (a.rope.q_norm != nullptr) block.head_norms[0][thread] = a.rope.q_norm[thread];
    if (a.rope.k_norm != nullptr) block.head_norms[1][thread] = a.rope.k_norm[thread];
  }
  if (thread != decode_threads - 32) return;
  const AttentionSplit split(a.attention, block.position);
  block.split = split;
  if (static_cast<int>(blockIdx.x) >= split.items) return;
  const AttentionItem item(split, cache, blockIdx.x);
  block.item = item;
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

// The block's queries, normed and rotated, as fragments in shared memory; the last part's block
// also writes the new key and value to the cache. A warp has one head: warps 0 .. 7 queries, 8 the
// key, 9 the value.
__device__ __noinline__ inline void prepare_heads(const DecodeAttention& a, Block& block,
                                                  std::uint8_t* base) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const RopeStore& rope = a.rope;
  const Cache& cache = a.attention.cache;
  const int head_size = cache.head_size;
  const AttentionScratch scratch(base, head_size);
  const bool is_query = warp < rows_per_partial, is_key = warp == rows_per_partial;
  float* head = scratch.heads + warp * head_size;
  if (is_query && warp >= block.item.rows) {
    for (int i = lane; i < head_size; i += 32) head[i] = 0;
  } else if (is_query || (block.item.writes && warp <= rows_per_partial + 1)) {
    const int kv_head = block.item.kv_head;
    const float* from = is_query ? rope.q + (block.item.head + warp) * head_size
                                 : (is_key ? rope.k : rope.v) + kv_head * head_size;
    for (int i = lane; i < head_size; i += 32) head[i] = __ldcg(from + i);
    __syncwarp();
    if (is_query || is_key) {
      if ((is_query ? rope.q_norm : rope.k_norm) != nullptr) {
        norm_head(head, head_size, lane, block.head_norms[is_query ? 0 : 1],
                  is_query ? rope.q_epsilon : rope.k_epsilon);
      }
      rotate_head(head, lane, rope, block.angles);
    }
    if (!is_query) {
      store_head(head, lane, cache, is_key ? cache.keys : cache.values,
                 is_key ? cache.key_scales : cache.value_scales, kv_head, block.position);
    }
  }
  sync_consumers();
  constexpr float log2_e = 1.44269504088896341f;
  const float scale = a.attention.soft_cap > 0 ? a.attention.scale : a.attention.scale * log2_e;
  // Rows 8 .. 15 of the operand carry what halves miss of rows 0 .. 7.
  if (warp < head_size / 16) {
    const float* row = scratch.heads + lane / 4 * head_size;
    const int at = (4 * (warp / 2) + lane % 4) * 8 + 4 * (warp % 2);
    float x[4];
    for (int i = 0; i < 4; ++i) x[i] = row[at + i] * scale;
    scratch.fragments[warp * 32 + lane] = {pack(x[0], x[1]), pack(rest(x[0]), rest(x[1])),
                                           pack(x[2], x[3]), pack(rest(x[2]), rest(x[3]))};
  }
  sync_consumers();
}

// The warps' sums over their tiles, in shared memory.
template <int head_size, bool q8_0>
__device__ __noinline__ void sum_tiles(const DecodeAttention& a, Block& block, std::uint8_t* base) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const AttentionItem& item = block.item;
  DecodeTile<head_size, q8_0> tile;
  {
    const AttentionScratch scratch(base, head_size);
    const HeadCache cache(a.attention.cache, item.kv_head);
    const int from = item.from, to = item.to, tiles = item.tiles, warps = item.warps;
    const float cap = a.attention.soft_cap;
    if (warp < warps) {
#pragma unroll 1
      for (int i = warp; i < tiles; i += warps) {
        tile.step(scratch.fragments, cache, from + i * tile_positions, to, cap,
                  1.44269504088896341f);
      }
      tile.finish();
    }
  }
  sync_consumers();  // the sums overlap the fragments
  if (warp < item.warps && lane / 4 < item.rows) {
    const AttentionScratch scratch(base, head_size);
    if (lane % 4 == 0) {
      scratch.peaks[warp * rows_per_partial + lane / 4] = {tile.peak, tile.mass};
    }
    tile.store(scratch.sums + (warp * item.rows + lane / 4) * head_size);
  }
  sync_consumers();
}

// out[i] = what the row's sums are worth together; `count` sums lie `stride` apart.
template <class Load, class Store>
__device__ __forceinline__ void add_scaled(const AttentionScratch& scratch, int rows, int head_size,
                                           int count, Load load, Store store) {
#pragma unroll 1
  for (int i = threadIdx.x; i < rows * head_size; i += decode_threads) {
    const int row = i / head_size;
    const float* shrinks = scratch.shrinks + row * decode_warps;
    float sum = 0;
#pragma unroll 8
    for (int k = 0; k < count; ++k) sum += shrinks[k] * load(k, i);
    store(i, row, sum);
  }
}

// For each row of a warp: factors of `count` partial results, and their peak and mass together,
// which end in peaks[row].
template <class Load>
__device__ __forceinline__ void weigh(const AttentionScratch& scratch, int rows, int count,
                                      Load load) {
  const int lane = threadIdx.x % 32, row = threadIdx.x / 32;
  float2 all = {-INFINITY, 0};
  if (row < rows) {
#pragma unroll 1
    for (int k = lane; k < count; k += 32) all.x = fmaxf(all.x, load(k, row).x);
    all.x = warp_max(all.x);
    const float origin = all.x == -INFINITY ? 0.0f : all.x;
#pragma unroll 1
    for (int k = lane; k < count; k += 32) {
      const float2 peak = load(k, row);
      const float shrink = exp2f(peak.x - origin);
      scratch.shrinks[row * decode_warps + k] = shrink;
      all.y += shrink * peak.y;
    }
    all.y = warp_sum(all.y);
  }
  sync_consumers();  // peaks are read no more
  if (row < rows && lane == 0) scratch.peaks[row] = all;
  sync_consumers();
}

// Adds the warps' sums of the block's item: the output, or one of its parts.
__device__ __noinline__ inline void add_sums(const DecodeAttention& step, Block& block,
                                             std::uint8_t* base) {
  const Attention& a = step.attention;
  const AttentionItem& item = block.item;
  const int head_size = a.cache.head_size, rows = item.rows;
  const AttentionScratch scratch(base, head_size);
  const PartialSpace space = partial_space(a.workspace);
  float* out = a.out + item.head * head_size;
  weigh(scratch, rows, item.warps,
        [&](int k, int row) { return scratch.peaks[k * rows_per_partial + row]; });
  const int slot = item.index * rows_per_partial;
  add_scaled(
      scratch, rows, head_size, item.warps,
      [&](int k, int i) { return scratch.sums[k * rows * head_size + i]; },
      [&](int i, int row, float sum) {
        if (item.parts == 1) {
          __stcg(out + i, sum / scratch.peaks[row].y);
        } else {
          __stcg(space.sums + slot * head_size + i, sum);
        }
      });
  if (item.parts > 1 && static_cast<int>(threadIdx.x) < rows) {
    __stcg(&space.peaks[slot + threadIdx.x], scratch.peaks[threadIdx.x]);
  }
}

__device__ __forceinline__ void sum_tiles(const DecodeAttention& a, Block& block,
                                          std::uint8_t* base) {
  const Cache& cache = a.attention.cache;
  switch (cache.head_size) {
#define QL_CASE(size)                                                            \
  case size:                                                                     \
    return cache.type == CacheType::q8_0 ? sum_tiles<size, true>(a, block, base) \
                                         : sum_tiles<size, false>(a, block, base);
    QL_CASE(32)
    QL_CASE(64)
    QL_CASE(96)
    QL_CASE(128)
#undef QL_CASE
    default:
      __trap();
  }
}

__device__ __forceinline__ void attend(const DecodeAttention& a, Block& block, std::uint8_t* base,
                                       const GridBarrier& barrier) {
  begin_attention(a, block);
  barrier.wait();
  block.stamp(1), block.stamp(2);
#pragma unroll 1
  for (int item = blockIdx.x; item < block.split.items; item += gridDim.x) {
    if (item != static_cast<int>(blockIdx.x)) {
      sync_consumers();
      if (threadIdx.x == 0) block.item = AttentionItem(block.split, a.attention.cache, item);
      sync_consumers();
    }
    prepare_heads(a, block, base);
    block.stamp(1);
    sum_tiles(a, block, base);
    block.stamp(2);
    add_sums(a, block, base);
  }
}

}  // namespace quantloom::kernels
