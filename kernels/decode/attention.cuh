// Attention of one token inside the program, with RoPE and the write of its keys and values: the
// cache is split over the blocks (flash decoding, Dao et al. 2023), a block's part over its warps,
// eight positions a turn. The product that reads the output adds the parts in their order.
#pragma once

#include "decode/block.cuh"
#include "decode/head_tile.cuh"
#include "transformer/attention.cuh"
#include "transformer/rope_head.cuh"

namespace quantloom::kernels {

// Shared memory of attention.
struct AttentionScratch {
  float2* peaks;     // [warps][8 rows]: highest score, mass
  NewRow* new_rows;  // key, value
  uint4* fragments;  // [head_size / 16][32 lanes]: the queries as A operand
  float* heads;      // [9][head_size]: queries, new key
  float* sums;       // [warps in use][sums_region]: [rows][head_size + sums_padding]
  __device__ explicit AttentionScratch(std::uint8_t* base) {
    peaks = reinterpret_cast<float2*>(base);
    new_rows = reinterpret_cast<NewRow*>(peaks + decode_warps * rows_per_partial);
    fragments = reinterpret_cast<uint4*>(new_rows + 2);
    heads = reinterpret_cast<float*>(fragments + most_head_size / 16 * 32);
    sums = heads + (rows_per_partial + 1) * most_head_size;
  }
  static_assert(attention_scratch_bytes ==
                decode_warps * rows_per_partial * sizeof(float2) + 2 * sizeof(NewRow) +
                    most_head_size / 16 * 32 * sizeof(uint4) +
                    (rows_per_partial + 1) * most_head_size * sizeof(float) + attention_sums_bytes);
};

// Angles and norm weights to shared memory, past the registers; end_copy() waits for them.
__device__ inline void copy_constants(const RopeStore& rope, Block& block) {
  const int half = rope.dimensions / 2, thread = threadIdx.x;
  if (thread < half) {
    copy_async<8>(&block.angles[thread],
                  rope.table + 2 * (static_cast<std::int64_t>(block.position) * half + thread));
  }
  if (thread < rope.cache.head_size) {
    if (rope.q_norm != nullptr) copy_async<4>(&block.head_norms[0][thread], rope.q_norm + thread);
    if (rope.k_norm != nullptr) copy_async<4>(&block.head_norms[1][thread], rope.k_norm + thread);
  }
}

// The block's first item.
__device__ inline void plan_items(const Attention& a, Block& block) {
  const AttentionSplit split(a, block.position);
  block.split = split;
  const int first = blockIdx.x;
  if (first < split.items) block.item = AttentionItem(split, a.cache, first);
}

// What does not depend on the step before, and tells what to read of the cache.
__device__ __noinline__ inline void begin_attention(Block& block) {
  const DecodeAttention& a = block.step().get().attention;
  copy_constants(a.rope, block);
  if (threadIdx.x == decode_threads - 32) plan_items(a.attention, block);
  sync_consumers();
}

// The head that the warp prepares: warps 0 .. 7 have queries, 8 the new key, 9 the new value, in
// the block that writes them.
__device__ inline const float* head_source(const RopeStore& rope, const AttentionItem& item,
                                           int head_size) {
  const int warp = threadIdx.x / 32;
  if (warp < item.rows) return rope.q + (item.head + warp) * head_size;
  if (!item.writes || warp < rows_per_partial || warp > rows_per_partial + 1) return nullptr;
  return (warp == rows_per_partial ? rope.k : rope.v) + item.kv_head * head_size;
}

// a / b, rounded as the operator does it for numbers that are not extreme, but without its call of
// a function, around which the tile in registers would be spilled.
__device__ inline float divided(float a, float b) {
  const float inverse = __fdividef(1.0f, b);
  const float quotient = a * inverse;
  return fmaf(fmaf(-b, quotient, a), inverse, quotient);
}

// Four neighbouring values a lane to the cache, and to shared memory as the cache has them.
template <int head_size, bool q8_0>
__device__ __forceinline__ void store_new(float4 x, NewRow& copy, void* plane, void* scales,
                                          std::int64_t row) {
  const int lane = threadIdx.x % 32;
  if constexpr (q8_0) {
    // As store_q8_0, for groups of eight lanes.
    float magnitude = fmaxf(fmaxf(fabsf(x.x), fabsf(x.y)), fmaxf(fabsf(x.z), fabsf(x.w)));
    bool finite = isfinite(x.x) && isfinite(x.y) && isfinite(x.z) && isfinite(x.w);
#pragma unroll
    for (int step = 4; step > 0; step /= 2) {
      magnitude = fmaxf(magnitude, __shfl_xor_sync(0xffffffffu, magnitude, step));
    }
    finite = (__ballot_sync(0xffffffffu, finite) >> (lane & 24) & 0xff) == 0xff;
    const float step = divided(magnitude, 127.0f);
    const float inverse = step > 0.0f ? divided(1.0f, step) : 0.0f;
    const auto quant = [&](float value) {
      return static_cast<signed char>(finite ? __float2int_rn(value * inverse) : 1);
    };
    if (lane >= head_size / 4) return;
    const char4 quants = {quant(x.x), quant(x.y), quant(x.z), quant(x.w)};
    reinterpret_cast<char4*>(copy.values)[lane] = quants;
    reinterpret_cast<char4*>(plane)[row * (head_size / 4) + lane] = quants;
    if (lane % 8 == 0) {
      const __half scale = __float2half_rn(finite ? step : nanf(""));
      copy.scales[lane / 8] = __half_as_ushort(scale);
      static_cast<__half*>(scales)[row * (head_size / 32) + lane / 8] = scale;
    }
  } else {
    if (lane >= head_size / 4) return;
    const uint2 halves = {pack(x.x, x.y), pack(x.z, x.w)};
    reinterpret_cast<uint2*>(copy.values)[lane] = halves;
    static_cast<uint2*>(plane)[row * (head_size / 4) + lane] = halves;
  }
}

// The block's queries, normed and rotated, as fragments in shared memory; the last part's block
// also writes the new key and value to the cache. A lane has four neighbouring values.
template <int head_size, bool q8_0>
__device__ __forceinline__ void prepare_heads(const DecodeAttention& a, Block& block,
                                              const AttentionScratch& scratch,
                                              const float* source) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const bool is_query = warp < rows_per_partial, is_value = warp == rows_per_partial + 1;
  const bool has_values = lane < head_size / 4;
  const RopeStore& rope = a.rope;
  float4 x = {0, 0, 0, 0};
  if (source != nullptr && has_values) x = __ldcg(reinterpret_cast<const float4*>(source) + lane);
  if (source != nullptr && !is_value) {
    float* head = scratch.heads + warp * head_size;
    auto* own = reinterpret_cast<float4*>(head) + lane;
    if ((is_query ? rope.q_norm : rope.k_norm) != nullptr) {
      const float squares = warp_sum(x.x * x.x + x.y * x.y + x.z * x.z + x.w * x.w);
      const float scale =
          rsqrtf(squares * (1.0f / head_size) + (is_query ? rope.q_epsilon : rope.k_epsilon));
      if (has_values) {
        const float4 w = reinterpret_cast<const float4*>(block.head_norms[is_query ? 0 : 1])[lane];
        x = {x.x * scale * w.x, x.y * scale * w.y, x.z * scale * w.z, x.w * scale * w.w};
      }
    }
    if (has_values) *own = x;
    __syncwarp();
    rotate_head(head, lane, rope, block.angles);
    if (has_values) x = *own;
  }
  if (is_query && has_values) {
    constexpr float log2_e = 1.44269504088896341f;
    const float scale = a.attention.soft_cap > 0 ? a.attention.scale : a.attention.scale * log2_e;
    x = {x.x * scale, x.y * scale, x.z * scale, x.w * scale};
    // Rows 8 .. 15 of the operand carry what halves miss of rows 0 .. 7.
    const int chunk = lane / 2;
    scratch.fragments[(chunk / 4 * 2 + lane % 2) * 32 + warp * 4 + chunk % 4] = {
        pack(x.x, x.y), pack(rest(x.x), rest(x.y)), pack(x.z, x.w), pack(rest(x.z), rest(x.w))};
  } else if (!is_query && source != nullptr) {
    const Cache& cache = a.attention.cache;
    store_new<head_size, q8_0>(x, scratch.new_rows[is_value ? 1 : 0],
                               is_value ? cache.values : cache.keys,
                               is_value ? cache.value_scales : cache.key_scales,
                               block.item.kv_head * cache.capacity + block.position);
  }
}

// The warp's sums over its tiles, to shared memory; the first one is in its registers.
template <int head_size, bool q8_0>
__device__ __forceinline__ void sum_tiles(const DecodeAttention& a, const AttentionItem& item,
                                          const AttentionScratch& scratch,
                                          HeldTile<head_size, q8_0>& tile) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int step = item.warps * held_positions, to = item.to;
  int begin = item.from + warp * held_positions;
  const Cache& cache = a.attention.cache;
  if (item.writes && begin + held_positions >= to) {
    tile.renew(scratch.new_rows[0], scratch.new_rows[1], begin, to - 1);
  }
  TileSums<head_size, q8_0> sums;
#pragma unroll 1
  for (;;) {
    const int next = begin + step;
    __syncwarp();  // queries are not kept in registers from turn to turn
    sums.add(scratch.fragments, tile, begin, to, a.attention.soft_cap, [&] {
      if (next >= to) return;
      tile.read_keys({cache.keys, cache.key_scales, cache, item.kv_head}, next, to - 1);
    });
    if (next >= to) break;
    tile.read_values({cache.values, cache.value_scales, cache, item.kv_head}, next, to - 1);
    begin = next;
  }
  sums.finish();
  if (lane % 4 == 0) scratch.peaks[warp * rows_per_partial + lane / 4] = {sums.peak, sums.mass};
  constexpr int stride = head_size + sums_padding;
  sums.store(scratch.sums + warp * sums_region(item.rows, head_size), item.rows, stride);
}

// Adds the warps' sums of the block's item: the output, or one of its parts. `split` neighbouring
// threads have four neighbouring values of a row, and weigh every split-th warp.
template <int head_size, int split>
__device__ __forceinline__ void add_sums(const Attention& a, const AttentionItem& item,
                                         const AttentionScratch& scratch) {
  constexpr int quads = head_size / 4, stride = quads + sums_padding / 4;
  constexpr int most = decode_warps / split;
  const int quad = static_cast<int>(threadIdx.x) / split, own = threadIdx.x % split;
  const int rows = item.rows, row = min(quad / quads, rows - 1);
  const int region = sums_region(rows, head_size) / 4;
  const auto* sums = reinterpret_cast<const float4*>(scratch.sums) + row * stride + quad % quads;
  float2 peaks[most];
  float4 parts[most];
#pragma unroll
  for (int i = 0; i < most; ++i) {
    const int w = own + i * split;
    const bool there = w < item.warps;
    peaks[i] = there ? scratch.peaks[w * rows_per_partial + row] : make_float2(-INFINITY, 0);
    parts[i] = there ? sums[w * region] : make_float4(0, 0, 0, 0);
  }
  float top = -INFINITY;
#pragma unroll
  for (int i = 0; i < most; ++i) top = fmaxf(top, peaks[i].x);
#pragma unroll
  for (int i = 1; i < split; i *= 2) top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, i));
  const float origin = top == -INFINITY ? 0.0f : top;
  float mass = 0;
  float4 sum = {0, 0, 0, 0};
#pragma unroll
  for (int i = 0; i < most; ++i) {
    const float factor = exp2f(peaks[i].x - origin);
    mass += factor * peaks[i].y;
    sum.x += factor * parts[i].x, sum.y += factor * parts[i].y;
    sum.z += factor * parts[i].z, sum.w += factor * parts[i].w;
  }
#pragma unroll
  for (int i = 1; i < split; i *= 2) {
    mass += __shfl_xor_sync(0xffffffffu, mass, i);
    sum.x += __shfl_xor_sync(0xffffffffu, sum.x, i);
    sum.y += __shfl_xor_sync(0xffffffffu, sum.y, i);
    sum.z += __shfl_xor_sync(0xffffffffu, sum.z, i);
    sum.w += __shfl_xor_sync(0xffffffffu, sum.w, i);
  }
  if (own != 0 || quad >= rows * quads) return;
  if (item.parts == 1) {
    const float inverse = 1.0f / mass;
    __stcg(reinterpret_cast<float4*>(a.out + item.head * head_size) + quad,
           make_float4(sum.x * inverse, sum.y * inverse, sum.z * inverse, sum.w * inverse));
    return;
  }
  const PartialSpace space = partial_space(a.workspace);
  const int slot = item.index * rows_per_partial;
  __stcg(reinterpret_cast<float4*>(space.sums + slot * head_size) + quad, sum);
  if (quad % quads == 0) __stcg(&space.peaks[slot + row], make_float2(top, mass));
}

template <int head_size>
__device__ __forceinline__ void add_sums(const Attention& a, const AttentionItem& item,
                                         const AttentionScratch& scratch) {
  if (item.rows * head_size <= decode_threads) {
    add_sums<head_size, 4>(a, item, scratch);
  } else {
    add_sums<head_size, 2>(a, item, scratch);
  }
}

// The block's item. What depends on no step before is read before the wait for them.
template <int head_size, bool q8_0>
__device__ __noinline__ void attend_item(Block& block, std::uint8_t* base) {
  const DecodeAttention& a = block.step().get().attention;
  const AttentionScratch scratch(base);
  const AttentionItem& item = block.item;
  const int warp = threadIdx.x / 32;
  // Warps without a tile read too: registers that only some warps set would be taken from the
  // function's start.
  HeldTile<head_size, q8_0> tile;
  {
    const Cache& cache = a.attention.cache;
    const int begin = item.from + warp * held_positions;
    const int last = max(item.to - (item.writes ? 2 : 1), 0);  // that stands there already
    tile.read_keys({cache.keys, cache.key_scales, cache, item.kv_head}, begin, last);
    tile.read_values({cache.values, cache.value_scales, cache, item.kv_head}, begin, last);
  }
  const float* source = head_source(a.rope, item, head_size);
  if (item.index == static_cast<int>(blockIdx.x)) {
    GridBarrier{block.barrier}.poll();
    end_copy();
    sync_consumers();
    block.stamp(1), block.stamp(2);
  }
  prepare_heads<head_size, q8_0>(a, block, scratch, source);
  sync_consumers();
  block.stamp(1);
  if (warp < item.warps) sum_tiles(a, item, scratch, tile);
  sync_consumers();
  block.stamp(2);
  add_sums<head_size>(a.attention, item, scratch);
}

__device__ __noinline__ inline void attend_item(Block& block, std::uint8_t* base) {
  const Cache& cache = block.step().get().attention.attention.cache;
  switch (cache.head_size) {
#define QL_CASE(size)                                                           \
  case size:                                                                    \
    return cache.type == CacheType::q8_0 ? attend_item<size, true>(block, base) \
                                         : attend_item<size, false>(block, base);
    QL_CASE(32)
    QL_CASE(64)
    QL_CASE(96)
    QL_CASE(128)
#undef QL_CASE
    default:
      __trap();
  }
}

// False behind the block's last item.
__device__ __noinline__ inline bool next_item(Block& block) {
  const int next = block.item.index + static_cast<int>(gridDim.x);
  if (next >= block.split.items) return false;
  sync_consumers();
  if (threadIdx.x == 0) {
    block.item = AttentionItem(block.split, block.step().get().attention.attention.cache, next);
  }
  sync_consumers();
  return true;
}

__device__ __noinline__ inline void attend(Block& block, std::uint8_t* base) {
  begin_attention(block);
  if (static_cast<int>(blockIdx.x) >= block.split.items) {
    GridBarrier{block.barrier}.wait();
    block.stamp(1), block.stamp(2);
    return;
  }
#pragma unroll 1
  do {
    attend_item(block, base);
  } while (next_item(block));
}

}  // namespace quantloom::kernels
