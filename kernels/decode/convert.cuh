// x of a product in fixed point in shared memory.
//
// Where a strip has a power of two of whole pieces, at most one a warp
// (DecodeProduct::own_columns), a warp only ever multiplies by the columns of one piece: it
// converts those for itself, and no warp waits for another. Otherwise the warps convert all columns
// for all.
#pragma once

#include "decode/block.cuh"
#include "decode/decode.h"
#include "matmul/one_token.cuh"

namespace quantloom::kernels {

// The chunks of 128 columns that a warp converts, and their places in shared memory.
struct Chunks {
  int first, step, count;
  int place, place_step;
  __device__ Chunks(const DecodeProduct& a, int warp, bool own) {
    if (own) {
      first = 2 * (warp & (a.pieces - 1)), step = 1, count = 2;
      place = 2 * warp, place_step = 1;
    } else {
      first = warp, step = decode_warps,
      count = (2 * a.pieces - warp + decode_warps - 1) / decode_warps;
      place = warp, place_step = decode_warps;
    }
  }
};

template <XSums kind>
constexpr int lanes_of_sums = kind == XSums::none     ? 0
                              : kind == XSums::per_16 ? 4
                                                      : 8;

// Converts n chunks side by side: one alone is a chain of shuffles.
template <XSums kind, int n>
__device__ __forceinline__ void convert_chunks(const float4 (&x)[n], const SharedX& to, int lane,
                                               const Chunks& chunks, int begin) {
  constexpr int lanes = lanes_of_sums<kind>;
  FixedColumns fixed[n];
#pragma unroll
  for (int i = 0; i < n; ++i) fixed[i] = fix_columns<lanes>(x[i], group_largest(x[i]));
#pragma unroll
  for (int i = 0; i < n; ++i) {
    if (begin + i >= chunks.count) break;
    const int at = chunks.place + (begin + i) * chunks.place_step;
    store_columns<lanes>(fixed[i], lane, to.values + at * 256, to.scales + at * 4,
                         lanes == 0 ? nullptr : to.sums + at * (32 / max(lanes, 1)));
  }
}

// Four columns of a lane, zeros behind the last.
__device__ __forceinline__ float4 load_columns(const float* from, int columns, int chunk,
                                               int lane) {
  const int column = chunk * 128 + lane * 4;
  return column < columns ? __ldcg(reinterpret_cast<const float4*>(from + column))
                          : make_float4(0, 0, 0, 0);
}

// x, times the norm's weights where there is a norm: groups have scales of their own, so the factor
// 1 / rms is as well applied to the sums. Norm weights are read before the wait. Returns the lane's
// part of the sum of squares.
template <bool normed, bool own, XSums kind>
__device__ __forceinline__ float convert_x(const DecodeProduct& a, Block& block,
                                           std::uint8_t* base) {
  constexpr int n = own ? 2 : 4;  // converted side by side, and on their way behind them
  const SharedX to(block.program.layout, base);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int columns = a.columns;
  const Chunks chunks(a, warp, own);
  const float* x_source = a.x;
  const float* norm_source = a.norm;
  const auto load = [&](const float* from, int i) {
    return i < chunks.count ? load_columns(from, columns, chunks.first + i * chunks.step, lane)
                            : make_float4(0, 0, 0, 0);
  };
  float4 weight[n];
  if constexpr (normed) {
#pragma unroll
    for (int i = 0; i < n; ++i) weight[i] = load(norm_source, i);
  }
  GridBarrier{block.barrier}.wait();
  float squares = 0;
  float4 next[n];
#pragma unroll
  for (int i = 0; i < n; ++i) next[i] = load(x_source, i);
  // A loop, though a short one: code that runs once a step comes from the L2 each time.
#pragma unroll 1
  for (int begin = 0; begin < chunks.count; begin += n) {
    float4 x[n];
#pragma unroll
    for (int i = 0; i < n; ++i) x[i] = next[i];
    if constexpr (!own) {
#pragma unroll
      for (int i = 0; i < n; ++i) next[i] = load(x_source, begin + n + i);
    }
    if constexpr (normed) {
#pragma unroll
      for (int i = 0; i < n; ++i) {
        const float4 w = begin == 0 ? weight[i] : load(norm_source, begin + i);
        squares += x[i].x * x[i].x + x[i].y * x[i].y + x[i].z * x[i].z + x[i].w * x[i].w;
        x[i] = {x[i].x * w.x, x[i].y * w.y, x[i].z * w.z, x[i].w * w.w};
      }
    }
    convert_chunks<kind>(x, to, lane, chunks, begin);
  }
  if constexpr (own) {
    __syncwarp();
  } else {
    sync_consumers();
  }
  return own && warp >= a.pieces ? 0.0f : squares;
}

// Four columns of a lane of an attention's output that lies in parts: read apart from the sum, so
// that all reads are on their way before the first sum.
struct ColumnParts {
  float2 peaks[most_parts];
  float4 sums[most_parts];

  __device__ __forceinline__ void read(const DecodeProduct& a, const AttentionSplit& split,
                                       int column, bool there) {
    const PartialSpace space = partial_space(a.parts);
    const int head = split.head_of(column), kv_head = split.kv_head_of(head);
    const int row = head - kv_head * split.rows;
    const int group = row >> split.group_shift, pair = kv_head * split.row_groups + group;
    const int slot = pair * split.parts * rows_per_partial + row - (group << split.group_shift);
#pragma unroll
    for (int p = 0; p < most_parts; ++p) {
      const int at = slot + p * rows_per_partial;
      const bool part = there && p < split.parts;
      peaks[p] = part ? __ldcg(space.peaks + at) : make_float2(-INFINITY, 0);
      sums[p] = part ? __ldcg(reinterpret_cast<const float4*>(space.sums + at * a.head_size +
                                                              (column - head * a.head_size)))
                     : make_float4(0, 0, 0, 0);
    }
  }

  __device__ __forceinline__ float4 sum() const {
    float top = -1e30f;
#pragma unroll
    for (int p = 0; p < most_parts; ++p) top = fmaxf(top, peaks[p].x);
    float4 sum = {0, 0, 0, 0};
    float mass = 0;
#pragma unroll
    for (int p = 0; p < most_parts; ++p) {
      float factor;
      asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(factor) : "f"(peaks[p].x - top));
      mass += factor * peaks[p].y;
      sum.x += factor * sums[p].x, sum.y += factor * sums[p].y;
      sum.z += factor * sums[p].z, sum.w += factor * sums[p].w;
    }
    const float inverse = mass == 0 ? 0.0f : __fdividef(1.0f, mass);
    return {sum.x * inverse, sum.y * inverse, sum.z * inverse, sum.w * inverse};
  }
};

template <bool own, XSums kind>
__device__ __forceinline__ void convert_parts(const DecodeProduct& a, Block& block,
                                              std::uint8_t* base) {
  const SharedX to(block.program.layout, base);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const Chunks chunks(a, warp, own);
  GridBarrier{block.barrier}.wait();
#pragma unroll 1
  for (int begin = 0; begin < chunks.count; begin += 2) {
    ColumnParts parts[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int column = (chunks.first + (begin + i) * chunks.step) * 128 + lane * 4;
      parts[i].read(a, block.split, column, begin + i < chunks.count && column < a.columns);
    }
    const float4 x[2] = {parts[0].sum(), parts[1].sum()};
    convert_chunks<kind>(x, to, lane, chunks, begin);
  }
  if constexpr (own) {
    __syncwarp();
  } else {
    sync_consumers();
  }
}

template <bool own, XSums kind>
__device__ __forceinline__ float convert_x(const DecodeProduct& a, Block& block,
                                           std::uint8_t* base) {
  if (a.norm != nullptr) return convert_x<true, own, kind>(a, block, base);
  if (a.parts != nullptr && block.split.parts > 1) {
    convert_parts<own, kind>(a, block, base);
  } else {
    convert_x<false, own, kind>(a, block, base);
  }
  return 0;
}

}  // namespace quantloom::kernels
