// How the work of prefill on Hopper is cut: shapes of tiles, rows, parts of the cache, pieces.
#pragma once

#include <climits>

#include "device/hopper.cuh"
#include "device/overlap.cuh"
#include "matmul/ring.cuh"
#include "transformer/attention_softmax_sm90.cuh"
#include "transformer/reduce.cuh"
#include "transformer/transformer.h"

namespace quantloom::kernels {

constexpr int stages = 2;

template <int head_size_, int positions_, int groups_, int query_buffers_, bool q8_0_>
struct Shape {
  static constexpr int head_size = head_size_;
  static constexpr int positions = positions_;  // of a tile
  static constexpr int groups = groups_;        // consumer warpgroups
  static constexpr int query_buffers = query_buffers_;
  static constexpr int rows = groups * group_rows;
  using Softmax = SoftmaxRows<head_size, positions>;
  static constexpr int blocks = (head_size + 63) / 64;
  static constexpr int tile_bytes = blocks * Softmax::tile_block_bytes;
  static constexpr int query_bytes = blocks * Softmax::query_block_bytes;  // of a group
  static constexpr int alignment = 1024;                                   // of a swizzled tile
  static constexpr bool q8_0 = q8_0_;
  static constexpr int raw_bytes = q8_0 ? positions * head_size : 0;  // a tile before its decoding
  static constexpr int shared_bytes =
      alignment + query_buffers * groups * query_bytes + 2 * stages * tile_bytes + 2 * raw_bytes;
  static constexpr int producer_registers = groups == 3 ? 32 : q8_0 ? 88 : 56;
  static constexpr int consumer_registers = groups == 3 ? 160 : q8_0 ? 208 : 224;
  // What a block starts with must cover both, or take_registers() waits for ever.
  static constexpr int start_registers = 65536 / (128 * (groups + 1)) / 8 * 8;
  static_assert(producer_registers + groups * consumer_registers <= (groups + 1) * start_registers);
  // Threads of the producer warpgroup that bring queries, each with so many 32-byte loads under
  // way.
  static constexpr int query_threads = q8_0 ? 128 : 96;
  static constexpr int query_batch = groups == 3 ? 1 : q8_0 ? 8 : 4;
};

// Rows are (token, query head of the kv head), in that order.
struct Rows {
  int count;
  int heads;
  int per_token;
  std::uint64_t inverse;  // 2^32 / per_token, rounded up: exact for rows below 2^32 / per_token

  __device__ explicit Rows(const Attention& a)
      : heads(a.heads), per_token(a.heads / a.cache.kv_heads) {
    count = a.tokens * per_token;
    inverse = std::uint64_t{0xffffffffu / static_cast<unsigned>(per_token)} + 1;
  }
  __device__ int token(int row) const {
    return static_cast<int>(static_cast<unsigned>(row) * inverse >> 32);
  }
  // The row's head of q and out.
  __device__ std::int64_t head(int kv_head, int row) const {
    const int at = token(row);
    return std::int64_t{at} * heads + kv_head * per_token + (row - at * per_token);
  }
};

// The cache cut at fixed positions into parts that different blocks take, `most` in all; what the
// parts give is added in their order by another kernel. One part: rows are written out at once.
struct Split {
  int tiles;   // of a part
  int most;    // parts of the whole cache
  int offset;  // tokens of the call before this launch's first
  // Of each (token, head) and part: peak and mass, then [head_size] sums of weights times values.
  float2* peaks;
  float* sums;
};

// The tiles begin .. end - 1 that any of the S::rows rows from first_row on sees.
struct TileSpan {
  int begin, end;

  template <class S>
  __device__ static TileSpan of(const Attention& a, const Rows& rows, int first_row, int first) {
    TileSpan span{0, 0};
    if (a.window > 0) {
      const std::int64_t oldest = first + rows.token(first_row) - a.window + 1;
      if (oldest > 0) span.begin = static_cast<int>(oldest) / S::positions;
    }
    const int last = first + rows.token(min(first_row + S::rows, rows.count) - 1);
    span.end = last / S::positions + 1;
    return span;
  }
};

// The work of a block: rows against the tiles of one part that they see. Pieces with many tiles
// come first, and rounds of pieces go to the blocks in alternating order, so that each block gets
// about as many tiles.
template <class S>
struct Piece {
  int round = 0;
  int number = -1;  // of this block's pieces
  int kv_head, first_row, part, begin, tiles;
  bool is_whole;  // no other part has a share in the rows

  // The next piece from the round on. False: there is none.
  __device__ bool take(const Attention& a, const Rows& rows, const Split& split, int first) {
    const int row_tiles = (rows.count + S::rows - 1) / S::rows;
    const int blocks = gridDim.x;
    for (;; ++round) {
      const int column = round % 2 == 0 ? blockIdx.x : blocks - 1 - blockIdx.x;
      const int index = round * blocks + column;
      if (index >= row_tiles * split.most * a.cache.kv_heads) return false;
      kv_head = index % a.cache.kv_heads;
      const int rest = index / a.cache.kv_heads;
      part = split.most == 1 ? 0 : rest % split.most;
      first_row = (row_tiles - 1 - (split.most == 1 ? rest : rest / split.most)) * S::rows;
      if (split.most == 1) break;  // needs no `first`, which may still be on its way
      find_tiles(a, rows, split, first);
      if (tiles > 0) break;
    }
    ++number;
    return true;
  }

  __device__ void find_tiles(const Attention& a, const Rows& rows, const Split& split, int first) {
    const TileSpan span = TileSpan::of<S>(a, rows, first_row, first);
    int from = span.begin;
    int to = span.end;
    is_whole = true;
    if (split.most > 1) {
      is_whole = span.begin / split.tiles == (span.end - 1) / split.tiles;
      from = max(from, part * split.tiles);
      to = min(to, (part + 1) * split.tiles);
    }
    begin = from * S::positions;
    tiles = to - from;
  }
};

// What a thread's two rows see, in columns of the piece's first tile as the thread counts them.
struct Sight {
  int row[2];
  int newest[2];
  int oldest[2];
  int open;    // every row of the group sees up to here
  int closed;  // and from here on

  template <class S>
  __device__ static Sight of(const Attention& a, const Rows& rows, const Piece<S>& piece, int first,
                             int group) {
    const int group_row = piece.first_row + group * group_rows;
    const int origin = first - piece.begin;
    Sight sight;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      sight.row[half] = group_row + threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4 + 8 * half;
      sight.newest[half] = origin + rows.token(sight.row[half]) - threadIdx.x % 4 * 2;
      sight.oldest[half] =
          a.window > 0 ? static_cast<int>(sight.newest[half] - a.window + 1) : INT_MIN / 2;
    }
    sight.open = origin + rows.token(group_row);
    sight.closed =
        a.window > 0
            ? static_cast<int>(origin + rows.token(group_row + group_rows - 1) - a.window + 1)
            : INT_MIN / 2;
    return sight;
  }
};

// Shared memory: buffers of queries, stages of keys, stages of values, each tile in swizzled blocks
// of 64 columns. Barriers: full and empty for each stage of keys and values and buffer of queries.
template <class S>
struct Room {
  std::uint8_t* base;
  std::uint32_t address;
  std::uint32_t barriers;
  static constexpr int barrier_count = 4 * stages + 2 * S::query_buffers + 2;

  __device__ std::uint32_t queries(int buffer, int group) const {
    return address + (buffer * S::groups + group) * S::query_bytes;
  }
  __device__ std::uint32_t tile(bool is_value, int stage) const {
    return queries(S::query_buffers, 0) + (is_value * stages + stage) * S::tile_bytes;
  }
  __device__ std::uint8_t* pointer(std::uint32_t to) const { return base + (to - address); }
  __device__ std::uint32_t full(bool is_value, int stage) const {
    return barriers + 8 * (is_value * stages + stage);
  }
  __device__ std::uint32_t empty(bool is_value, int stage) const {
    return full(is_value, stage) + 8 * 2 * stages;
  }
  __device__ std::uint32_t queries_full(int buffer) const {
    return barriers + 8 * (4 * stages + buffer);
  }
  __device__ std::uint32_t queries_empty(int buffer) const {
    return queries_full(S::query_buffers + buffer);
  }

  // Where int8 arrives before its decoding.
  __device__ std::uint32_t raw(bool is_value) const {
    return tile(true, stages) + is_value * S::raw_bytes;
  }
  __device__ std::uint32_t raw_full(bool is_value) const {
    return queries_empty(S::query_buffers + is_value);
  }

  __device__ void initialize() const {
    mbarrier_init(raw_full(false), 1);
    mbarrier_init(raw_full(true), 1);
    for (int i = 0; i < 2 * stages; ++i) {
      mbarrier_init(full(false, i), S::q8_0 ? 128 : 1);
      mbarrier_init(empty(false, i), 4 * S::groups);
    }
    for (int i = 0; i < S::query_buffers; ++i) {
      mbarrier_init(queries_full(i), S::query_threads);
      mbarrier_init(queries_empty(i), 4 * S::groups);
    }
    mbarrier_init_fence();
  }
};

// `count` rows of halves in swizzled blocks, scaled. `thread` of `threads` does its part, `batch`
// pieces of 8 dimensions at a time. What stands where there is no row does not matter.
template <class S, int batch>
__device__ void store_queries(std::uint8_t* to, const Attention& a, const Rows& rows, int kv_head,
                              int first_row, int count, int thread, int threads) {
  constexpr int chunks = S::head_size / 8;
  const float scale = a.scale * log2_e * (a.soft_cap > 0 ? 2.0f / a.soft_cap : 1.0f);
  for (int start = thread; start < count * chunks; start += batch * threads) {
    float4 x[batch][2];
#pragma unroll
    for (int b = 0; b < batch; ++b) {
      const int i = start + b * threads;
      const int row = min(first_row + i / chunks, rows.count - 1);
      const float4* from = reinterpret_cast<const float4*>(
          a.q + rows.head(kv_head, row) * S::head_size + i % chunks * 8);
      x[b][0] = __ldg(from);
      x[b][1] = __ldg(from + 1);
    }
#pragma unroll
    for (int b = 0; b < batch; ++b) {
      const int i = start + b * threads;
      const int r = i / chunks;
      const int chunk = i % chunks;
      const uint4 halves = make_uint4(pack_halves(x[b][0].x * scale, x[b][0].y * scale),
                                      pack_halves(x[b][0].z * scale, x[b][0].w * scale),
                                      pack_halves(x[b][1].x * scale, x[b][1].y * scale),
                                      pack_halves(x[b][1].z * scale, x[b][1].w * scale));
      if (i >= count * chunks) break;
      *reinterpret_cast<uint4*>(to + r / group_rows * S::query_bytes +
                                chunk / 8 * S::Softmax::query_block_bytes +
                                r % group_rows * row_bytes + (chunk % 8 ^ r % 8) * 16) = halves;
    }
  }
}

constexpr int adding_warps = 4;

// One warp per (token, head) adds its parts in their order.
template <class S>
__global__ void __launch_bounds__(32 * adding_warps)
    add_parts(const __grid_constant__ Attention a, const __grid_constant__ Split split) {
  const int head = blockIdx.x * adding_warps + threadIdx.x / 32;  // of a.out
  const int lane = threadIdx.x % 32;
  wait_for_previous();
  if (head >= a.tokens * a.heads) return;
  const Rows rows(a);
  const int row = head / a.heads * rows.per_token + head % a.heads % rows.per_token;
  const TileSpan span = TileSpan::of<S>(a, rows, row / S::rows * S::rows, *a.first + split.offset);
  const int from = span.begin / split.tiles;
  const int to = (span.end - 1) / split.tiles;
  if (from == to) return;  // written already
  const float2* peaks = split.peaks + std::int64_t{head} * split.most;
  float top = -INFINITY;
  for (int p = from + lane; p <= to; p += 32) top = fmaxf(top, peaks[p].x);
  top = warp_max(top);
  const float origin = top == -INFINITY ? 0.0f : top;
  float mass = 0;
  for (int p = from; p <= to; ++p) mass += exp2_fast(peaks[p].x - origin) * peaks[p].y;
  const float inverse = 1.0f / mass;
  for (int i = lane; i < S::head_size / 4; i += 32) {
    const float4* sums = reinterpret_cast<const float4*>(
                             split.sums + std::int64_t{head} * split.most * S::head_size) +
                         i;
    float4 sum = {};
#pragma unroll 4
    for (int p = from; p <= to; ++p) {
      const float shrink = exp2_fast(peaks[p].x - origin);
      const float4 x = sums[p * (S::head_size / 4)];
      sum.x += shrink * x.x;
      sum.y += shrink * x.y;
      sum.z += shrink * x.z;
      sum.w += shrink * x.w;
    }
    reinterpret_cast<float4*>(a.out + std::int64_t{head} * S::head_size)[i] =
        make_float4(sum.x * inverse, sum.y * inverse, sum.z * inverse, sum.w * inverse);
  }
}

}  // namespace quantloom::kernels
