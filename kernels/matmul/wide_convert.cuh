// x of up to 16 tokens for the wide kernel, converted by the blocks that multiply it: a kernel of
// its own takes 2 us longer, which counts where a block has few pieces.
#pragma once

#include "matmul/activations.cuh"
#include "matmul/halves.cuh"
#include "matmul/ring.cuh"

namespace quantloom::kernels {

// A piece of x each: the B operand as in WideImage (wide.h), [4 chunks][16 tokens][64 halves], with
// a scale for every token and piece, whose inverses are the steps.
struct ConvertedStages {
  std::uint8_t* x;
  float* steps;               // [count][16]
  std::uint32_t full, empty;  // barriers
  int count;
};

// Warps that convert: each has every fourth token.
constexpr int wide_converters = 4;

// x: [tokens, columns]. next(piece, end) gives the pieces of the next item, or false.
template <class X, class Next>
__device__ inline void convert_tile(const X* x, int columns, int tokens,
                                    const ConvertedStages& stages, int warp, int lane,
                                    Next&& next) {
  constexpr int held = 16 / wide_converters;
  // As in WideImage a lane has core `core` of its group: four pairs of columns.
  const int group = lane / 4, core = lane % 4;
  struct Rows {
    float2 v[held][4];
  };
  const auto load = [&](int piece, Rows& rows) {
    const int column = piece * piece_columns + group * 32 + 2 * core;
#pragma unroll
    for (int i = 0; i < held; ++i) {
      const int token = warp + i * wide_converters;
      const bool is_there = token < tokens && column < columns;
      const X* from = x + static_cast<std::int64_t>(token) * columns + column;
#pragma unroll
      for (int t = 0; t < 4; ++t) {
        rows.v[i][t] = is_there ? load_pair(from + 8 * t) : make_float2(0, 0);
      }
    }
  };
  int stage = 0, piece, end;
  std::uint32_t parity = 1;
  if (!next(piece, end)) return;
  Rows rows;
  load(piece, rows);
  for (bool more = true; more;) {
    // The loads of a piece are under way while the one before is converted.
    const Rows now = rows;
    more = ++piece < end || next(piece, end);
    if (more) load(piece, rows);
    mbarrier_wait(stages.empty + 8 * stage, parity);
    std::uint8_t* to = stages.x + stage * (16 * piece_columns * 2) + group / 2 * 2048;
    float* steps = stages.steps + stage * 16;
#pragma unroll
    for (int i = 0; i < held; ++i) {
      const int token = warp + i * wide_converters;
      unsigned largest = 0;
#pragma unroll
      for (const float2& v : now.v[i]) {
        largest = max(largest, max(__float_as_uint(fabsf(v.x)), __float_as_uint(fabsf(v.y))));
      }
      largest = __reduce_max_sync(0xffffffffu, largest);
      const float scale = power_of_two_scale(__uint_as_float(largest));
      std::uint32_t bits[4];
#pragma unroll
      for (int t = 0; t < 4; ++t) {
        bits[t] = half_bits(__floats2half2_rn(now.v[i][t].x * scale, now.v[i][t].y * scale));
      }
      const int part = (group % 2 * 4 + core) ^ (token % 8);
      *reinterpret_cast<uint4*>(to + token * 128 + part * 16) =
          make_uint4(bits[0], bits[1], bits[2], bits[3]);
      if (lane == 0) steps[token] = 1.0f / scale;
    }
    // For wgmma, which reads shared memory as the copy engine does.
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    mbarrier_arrive_warp(stages.full + 8 * stage, lane);
    if (++stage == stages.count) stage = 0, parity ^= 1;
  }
}

}  // namespace quantloom::kernels
