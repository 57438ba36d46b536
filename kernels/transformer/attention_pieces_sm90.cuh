// How the work of prefill on Hopper is cut: shapes of tiles, rows, parts of the cache, pieces.
#pragma once

#include <climits>

#include "transformer/attention_softmax_sm90.cuh"
#include "transformer/overlap.cuh"
#include "transformer/reduce.cuh"
#include "transformer/transformer.h"

namespace quantloom::kernels {

constexpr int stages = 2;

template <int head_size_, int positions_, int groups_, int query_buffers_>
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
  static constexpr int shared_bytes =
      alignment + query_buffers * groups * query_bytes + 2 * stages * tile_bytes;
  static constexpr int producer_registers = groups == 2 ? 56 : 32;
  static constexpr int consumer_registers = groups == 2 ? 224 : 160;
  static constexpr int query_batch = groups == 2 ? 4 : 1;  // 32-byte loads under way in a producer
  static constexpr int query_threads = 96;                 // warps 1 to 3 of the producer warpgroup
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
