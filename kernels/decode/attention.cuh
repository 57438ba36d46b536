// Attention of one token inside the program, with RoPE and the write of its keys and values: the
// cache is split over the blocks (flash decoding, Dao et al. 2023), a block's part over its warps,
// eight positions a turn. Blocks of the same heads give each other their parts, and each adds those
// of some columns of the output.
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

// What all layers have in common: the block's first item, and the angles, past the registers.
__device__ __noinline__ inline void begin_attention(Block& block, const DecodeAttention& a) {
  const int half = a.rope.dimensions / 2, thread = threadIdx.x;
  if (thread < half) {
    copy_async<8>(&block.angles[thread],
                  a.rope.table + 2 * (static_cast<std::int64_t>(block.position) * half + thread));
  }
  if (thread == decode_threads - 32) {
    const AttentionSplit split(a.attention, block.position);
    block.split = split;
    const int first = blockIdx.x;
    if (first < split.items) block.item = AttentionItem(split, a.attention.cache, first);
  }
  end_copy();
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
    const uint2 halves = {pack_halves(x.x, x.y), pack_halves(x.z, x.w)};
    reinterpret_cast<uint2*>(copy.values)[lane] = halves;
    static_cast<uint2*>(plane)[row * (head_size / 4) + lane] = halves;
  }
}

// A warp's head on its way: lanes have four neighbouring values each.
template <int head_size>
struct HeadRead {
  const float* source;
  bool normed = false;
  float4 x = {0, 0, 0, 0}, weight = {1, 1, 1, 1};
  __device__ HeadRead(const RopeStore& rope, const AttentionItem& item, const Tag& tag)
      : source(head_source(rope, item, head_size)) {
    const int warp = threadIdx.x / 32;
    const float* norm = warp == rows_per_partial + 1 ? nullptr
                        : warp < rows_per_partial    ? rope.q_norm
                                                     : rope.k_norm;
    normed = norm != nullptr;
    if (source == nullptr) return;
    x = again(tag);
    if (normed) weight = __ldcg(reinterpret_cast<const float4*>(norm) + quad());
  }
  __device__ void wait(const Tag& tag) {
    if (source == nullptr) return;
    read_again_until_there(tag, [&] { return tag.differs(x); }, [&] { x = again(tag); });
    x = tag.value(x);
  }

 private:
  __device__ float4 again(const Tag& tag) const {
    return tag.read(reinterpret_cast<const float4*>(source) + quad());
  }
  __device__ static int quad() {
    const int lane = threadIdx.x % 32;
    return lane < head_size / 4 ? lane : 0;
  }
};

// The block's queries, normed and rotated, as fragments in shared memory; the last part's block
// also writes the new key and value to the cache. A lane has four neighbouring values.
template <int head_size, bool q8_0>
__device__ __forceinline__ void prepare_heads(const DecodeAttention& a, Block& block,
                                              const AttentionScratch& scratch,
                                              const HeadRead<head_size>& read,
                                              std::uint32_t batches_before) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const bool is_query = warp < rows_per_partial, is_value = warp == rows_per_partial + 1;
  const bool has_values = lane < head_size / 4;
  const RopeStore& rope = a.rope;
  const float* source = read.source;
  const float4 weight = read.weight;
  float4 x = has_values ? read.x : make_float4(0, 0, 0, 0);
  // Sums of the product before may stand where the heads come to stand.
  wait_for_stores(block, batches_before);
  if (source != nullptr && !is_value) {
    float* head = scratch.heads + warp * head_size;
    auto* own = reinterpret_cast<float4*>(head) + lane;
    if (read.normed) {
      const float squares = warp_sum(x.x * x.x + x.y * x.y + x.z * x.z + x.w * x.w);
      const float scale =
          rsqrtf(squares * (1.0f / head_size) + (is_query ? rope.q_epsilon : rope.k_epsilon));
      x = {x.x * scale * weight.x, x.y * scale * weight.y, x.z * scale * weight.z,
           x.w * scale * weight.w};
    }
    if (has_values) *own = x;
    __syncwarp();
    rotate_head(head, lane, rope, block.angles);
    if (has_values) x = *own;
  }
  if (is_query && has_values) {
    const float scale = a.attention.soft_cap > 0 ? a.attention.scale : a.attention.scale * log2_e;
    x = {x.x * scale, x.y * scale, x.z * scale, x.w * scale};
    // Rows 8 .. 15 of the operand carry what halves miss of rows 0 .. 7.
    const int2 place = HeldTile<head_size, q8_0>::place_of_key_chunk(lane / 2);
    scratch.fragments[(place.x * 2 + lane % 2) * 32 + warp * 4 + place.y] = {
        pack_halves(x.x, x.y), pack_halves(rest(x.x), rest(x.y)), pack_halves(x.z, x.w),
        pack_halves(rest(x.z), rest(x.w))};
  } else if (!is_query && source != nullptr) {
    const Cache& cache = a.attention.cache;
    store_new<head_size, q8_0>(x, scratch.new_rows[is_value ? 1 : 0],
                               is_value ? cache.values : cache.keys,
                               is_value ? cache.value_scales : cache.key_scales,
                               block.item.kv_head * cache.capacity + block.position);
  }
}

__device__ inline std::uint32_t first_row_of(const AttentionItem& item, const Cache& cache) {
  return static_cast<std::uint32_t>(item.kv_head) * static_cast<std::uint32_t>(cache.capacity);
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
  const std::uint32_t first_row = first_row_of(item, cache);
  TileSums<head_size, q8_0> sums;
#pragma unroll 1
  for (;;) {
    const int next = begin + step;
    __syncwarp();  // queries are not kept in registers from turn to turn
    sums.add(scratch.fragments, tile, begin, to, a.attention.soft_cap, [&] {
      if (next >= to) return;
      tile.read_keys({cache.keys, cache.key_scales, first_row}, next, to - 1);
    });
    if (next >= to) break;
    tile.read_values({cache.values, cache.value_scales, first_row}, next, to - 1);
    begin = next;
  }
  sums.finish();
  if (lane % 4 == 0) scratch.peaks[warp * rows_per_partial + lane / 4] = {sums.peak, sums.mass};
  constexpr int stride = head_size + sums_padding;
  sums.store(scratch.sums + warp * sums_region(item.rows, head_size), item.rows, stride);
}

// Four neighbouring values of a row of the output, summed over some positions, whose highest score
// all are weighed by.
struct WeighedSum {
  float top = -INFINITY, mass = 0;
  float4 sum = {0, 0, 0, 0};

  // Adds n sums at a time, so that what is read for them is on its way together.
  template <int n>
  __device__ __forceinline__ void add(const float2 (&peaks)[n], const float4 (&sums)[n]) {
    float highest = top;
#pragma unroll
    for (int i = 0; i < n; ++i) highest = fmaxf(highest, peaks[i].x);
    const float origin = highest == -INFINITY ? 0.0f : highest;
    const float shrink = exp2f(top - origin);
    top = highest, mass *= shrink;
    sum = {sum.x * shrink, sum.y * shrink, sum.z * shrink, sum.w * shrink};
#pragma unroll
    for (int i = 0; i < n; ++i) {
      const float factor = exp2f(peaks[i].x - origin);
      mass += factor * peaks[i].y;
      sum.x += factor * sums[i].x, sum.y += factor * sums[i].y;
      sum.z += factor * sums[i].z, sum.w += factor * sums[i].w;
    }
  }
};

// Adds the warps' sums of the block's item, and hands them to the blocks of the other parts. A
// thread has four neighbouring values of a row.
template <int head_size>
__device__ __forceinline__ void add_warps(const Attention& a, const Block& block,
                                          const AttentionScratch& scratch) {
  constexpr int quads = head_size / 4, stride = quads + sums_padding / 4, at_a_time = 4;
  const AttentionItem& item = block.item;
  const int rows = item.rows, quad = threadIdx.x;
  if (quad >= rows * quads) return;
  const int row = quad / quads, region = sums_region(rows, head_size) / 4, warps = item.warps;
  const auto* from = reinterpret_cast<const float4*>(scratch.sums) + row * stride + quad % quads;
  WeighedSum all;
#pragma unroll 1
  for (int first = 0; first < warps; first += at_a_time) {
    float2 peaks[at_a_time];
    float4 sums[at_a_time];
#pragma unroll
    for (int i = 0; i < at_a_time; ++i) {
      const int warp = first + i;
      const bool used = warp < warps;
      peaks[i] = used ? scratch.peaks[warp * rows_per_partial + row] : make_float2(-INFINITY, 0);
      sums[i] = used ? from[warp * region] : make_float4(0, 0, 0, 0);
    }
    all.add(peaks, sums);
  }
  const AttentionParts space(a.workspace, block.split, head_size);
  // Every place is written in every launch: those of parts that there are not, by the last.
  const int end = item.part + 1 == item.parts ? block.split.places : item.part + 1;
#pragma unroll 1
  for (int part = item.part; part < end; ++part) {
    const int slot = block.split.slot(item.pair, part);
    if (quad % quads == 0) store_tagged(space.peaks + slot + row, {all.top, all.mass}, block.tag);
    store_tagged(reinterpret_cast<float4*>(space.sums + slot * head_size) + quad, all.sum,
                 block.tag);
  }
}

// Adds the parts' sums of a few columns, in groups that the parts' blocks take in turn, each a
// warp's: four neighbouring lanes have four neighbouring columns of a row, and every fourth part,
// or eight lanes every eighth part.
template <int head_size>
__device__ __forceinline__ void add_parts(const Attention& a, const Block& block) {
  constexpr int quads = head_size / 4, most = usual_parts / 4;  // of a lane's parts
  static_assert(most_parts == 8 * most);
  const AttentionItem& item = block.item;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const AttentionParts space(a.workspace, block.split, head_size);
  const Tag tag{block.tag, 1};
  const int shift = block.split.places == usual_parts ? 2 : 3, lanes = 1 << shift;
  const int own = lane & (lanes - 1), parts = item.parts;
  const int groups = item.rows * quads >> (5 - shift);
#pragma unroll 1
  for (int group = item.part + warp * parts; group < groups; group += decode_warps * parts) {
    const int quad = (group << (5 - shift)) + (lane >> shift), row = quad / quads;
    float2 peaks[most];
    float4 sums[most];
    read_until_there(tag, [&] {
      std::uint32_t differs[most];
#pragma unroll
      for (int i = 0; i < most; ++i) {
        // In the place of a part that there is not the first is read.
        const int part = own + i * lanes,
                  slot = block.split.slot(item.pair, part < parts ? part : 0);
        peaks[i] = tag.read(space.peaks + slot + row);
        sums[i] = tag.read(reinterpret_cast<float4*>(space.sums + slot * head_size) + quad);
      }
#pragma unroll
      for (int i = 0; i < most; ++i) differs[i] = tag.differs(peaks[i]) | tag.differs(sums[i]);
      return (differs[0] | differs[1]) | (differs[2] | differs[3]);
    });
#pragma unroll
    for (int i = 0; i < most; ++i) {
      const bool used = own + i * lanes < parts;
      peaks[i] = used ? tag.value(peaks[i]) : make_float2(-INFINITY, 0);
      sums[i] = tag.value(sums[i]);
    }
    float top = -INFINITY;
#pragma unroll
    for (int i = 0; i < most; ++i) top = fmaxf(top, peaks[i].x);
#pragma unroll 1
    for (int i = 1; i < lanes; i *= 2) top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, i));
    WeighedSum all;
    all.top = top;
    all.add(peaks, sums);
#pragma unroll 1
    for (int i = 1; i < lanes; i *= 2) {
      all.mass += __shfl_xor_sync(0xffffffffu, all.mass, i);
      all.sum.x += __shfl_xor_sync(0xffffffffu, all.sum.x, i);
      all.sum.y += __shfl_xor_sync(0xffffffffu, all.sum.y, i);
      all.sum.z += __shfl_xor_sync(0xffffffffu, all.sum.z, i);
      all.sum.w += __shfl_xor_sync(0xffffffffu, all.sum.w, i);
    }
    if (own != 0) continue;
    const float inverse = __fdividef(1.0f, all.mass);
    store_tagged(reinterpret_cast<float4*>(a.out + item.head * head_size) + quad,
                 make_float4(all.sum.x * inverse, all.sum.y * inverse, all.sum.z * inverse,
                             all.sum.w * inverse),
                 block.tag);
  }
}

// False behind the block's last item.
__device__ __noinline__ inline bool next_item(Block& block, const Cache& cache) {
  const int next = block.item.index + static_cast<int>(gridDim.x);
  if (next >= block.split.items) return false;
  sync_consumers();
  if (threadIdx.x == 0) block.item = AttentionItem(block.split, cache, next);
  sync_consumers();
  return true;
}

// The block's item. The heads are asked for before the cache, of which the values wait for them:
// what is asked for again stands behind all that was asked for.
template <int head_size, bool q8_0>
__device__ __forceinline__ void attend_item(const StepCopy& step, Block& block,
                                            std::uint8_t* base) {
  const DecodeAttention& a = step.get().attention;
  const AttentionScratch scratch(base);
  const AttentionItem& item = block.item;
  const int warp = threadIdx.x / 32;
  const Tag tag{block.tag, 1};
  HeadRead<head_size> head(a.rope, item, tag);
  // Warps without a tile read too: registers that only some warps set would be taken from the
  // kernel's start.
  HeldTile<head_size, q8_0> tile;
  {
    const Cache& cache = a.attention.cache;
    const int begin = item.from + warp * held_positions;
    const int last = max(item.to - (item.writes ? 2 : 1), 0);  // that stands there already
    const std::uint32_t first_row = first_row_of(item, cache);
    tile.read_keys({cache.keys, cache.key_scales, first_row}, begin, last);
    head.wait(tag);
    tile.read_values({cache.values, cache.value_scales, first_row}, begin, last);
  }
  prepare_heads<head_size, q8_0>(a, block, scratch, head, step.share.batches_before);
  sync_consumers();
  block.stamp(1);
  if (warp < item.warps) sum_tiles(a, item, scratch, tile);
  sync_consumers();
  block.stamp(2);
  add_warps<head_size>(a.attention, block, scratch);
  add_parts<head_size>(a.attention, block);
  block.stamp(3);
}

// A whole step but for the block's further items, of which the first call begins with the first;
// whether there is another. It calls nothing where there is one item, of the same split as in the
// layer before: each jump to code that is not at hand is a trip to the L2.
template <int head_size, bool q8_0>
__device__ __noinline__ bool attention_step(Block& block, std::uint8_t* base, int turn,
                                            bool begins) {
  const StepCopy& step = block.step(turn);
  // A block with more than one item has gone on from its first.
  if (begins &&
      (!step.get().attention.same_split || block.split.items > static_cast<int>(gridDim.x))) {
    begin_attention(block, step.get().attention);
  }
  if (static_cast<int>(blockIdx.x) >= block.split.items) {
    for (int i = 1; i < decode_stamps; ++i) block.stamp(i);
    return false;
  }
  attend_item<head_size, q8_0>(step, block, base);
  return block.split.items > static_cast<int>(gridDim.x) &&
         next_item(block, step.get().attention.attention.cache);
}

}  // namespace quantloom::kernels
