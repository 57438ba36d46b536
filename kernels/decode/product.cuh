// A product of the program: x converted to fixed point by every block, the block's strips
// multiplied piece by piece, the warps' sums added in their order and stored.
#pragma once

#include "decode/block.cuh"
#include "decode/formats.h"
#include "matmul/linear_planes.h"
#include "matmul/one_token.cuh"
#include "matmul/strips.cuh"
#include "transformer/reduce.cuh"

namespace quantloom::kernels {

// Converts x, times the norm's weights where there is a norm: groups have scales of their own, so
// the factor 1 / rms is as well applied to the sums. Norm weights are read before the wait.
template <bool normed, XSums kind>
__device__ __noinline__ void convert_x(const DecodeProduct& a, Block& block, std::uint8_t* base,
                                       GridBarrier barrier) {
  constexpr int scale_group = kind == XSums::per_16 ? 16 : 32;
  constexpr int held = normed ? 4 : 8;  // loads in flight per lane
  const SharedX to(block.layout, base);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int chunks = 2 * a.pieces, columns = a.columns;  // chunks of 128 columns
  const auto load = [&](const float* from, int chunk) {
    const int column = chunk * 128 + lane * 4;
    return column < columns ? __ldcg(reinterpret_cast<const float4*>(from + column))
                            : make_float4(0, 0, 0, 0);
  };
  const float* x_source = a.x;
  const float* norm_source = a.norm;
  float4 weight[held];
  if constexpr (normed) {
#pragma unroll
    for (int i = 0; i < held; ++i) weight[i] = load(norm_source, warp + i * decode_warps);
  }
  barrier.wait();
  float squares = 0;
  for (int chunk = warp; chunk < chunks; chunk += held * decode_warps) {
    float4 x[held];
#pragma unroll
    for (int i = 0; i < held; ++i) x[i] = load(x_source, chunk + i * decode_warps);
#pragma unroll
    for (int i = 0; i < held; ++i) {
      const int at = chunk + i * decode_warps;
      if (at >= chunks) break;
      if constexpr (normed) {
        const float4 w = chunk == warp ? weight[i] : load(norm_source, at);
        squares += x[i].x * x[i].x + x[i].y * x[i].y + x[i].z * x[i].z + x[i].w * x[i].w;
        x[i] = {x[i].x * w.x, x[i].y * w.y, x[i].z * w.z, x[i].w * w.w};
      }
      convert_columns<scale_group, kind != XSums::none>(
          x[i], lane, to.values + at * 256, to.scales + at * 4, to.sums + at * (128 / scale_group));
    }
  }
  if constexpr (normed) {
    squares = warp_sum(squares);
    if (lane == 0) block.squares[warp] = squares;
  }
  sync_consumers();
}

// Columns column .. column + 3 of an attention's output that lies in parts.
__device__ __forceinline__ float4 add_parts(const DecodeProduct& a, const AttentionSplit& split,
                                            int column) {
  const PartialSpace space = partial_space(a.parts);
  const int head = column / a.head_size, kv_head = head / split.rows;
  const int row = head - kv_head * split.rows;
  const int pair = kv_head * split.row_groups + row / rows_per_partial;
  const int slot = pair * split.parts * rows_per_partial + row % rows_per_partial;
  float2 peaks[most_parts];
  float4 sums[most_parts];
#pragma unroll
  for (int p = 0; p < most_parts; ++p) {
    const int at = slot + p * rows_per_partial;
    const bool there = p < split.parts;
    peaks[p] = there ? __ldcg(space.peaks + at) : make_float2(-INFINITY, 0);
    sums[p] = there ? __ldcg(reinterpret_cast<const float4*>(space.sums + at * a.head_size +
                                                             (column - head * a.head_size)))
                    : make_float4(0, 0, 0, 0);
  }
  float top = peaks[0].x;
#pragma unroll
  for (int p = 1; p < most_parts; ++p) top = fmaxf(top, peaks[p].x);
  float4 sum = {0, 0, 0, 0};
  float mass = 0;
#pragma unroll
  for (int p = 0; p < most_parts; ++p) {
    const float factor = exp2f(peaks[p].x - top);
    mass += factor * peaks[p].y;
    sum.x += factor * sums[p].x, sum.y += factor * sums[p].y;
    sum.z += factor * sums[p].z, sum.w += factor * sums[p].w;
  }
  const float inverse = 1.0f / mass;
  return {sum.x * inverse, sum.y * inverse, sum.z * inverse, sum.w * inverse};
}

template <XSums kind>
__device__ __noinline__ void convert_parts(const DecodeProduct& a, Block& block, std::uint8_t* base,
                                           GridBarrier barrier) {
  constexpr int scale_group = kind == XSums::per_16 ? 16 : 32;
  const SharedX to(block.layout, base);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  barrier.wait();
#pragma unroll 2
  for (int chunk = warp; chunk < 2 * a.pieces; chunk += decode_warps) {
    const int column = chunk * 128 + lane * 4;
    const float4 x =
        column < a.columns ? add_parts(a, block.split, column) : make_float4(0, 0, 0, 0);
    convert_columns<scale_group, kind != XSums::none>(x, lane, to.values + chunk * 256,
                                                      to.scales + chunk * 4,
                                                      to.sums + chunk * (128 / scale_group));
  }
  sync_consumers();
}

__device__ __forceinline__ void convert_x(const DecodeProduct& a, Block& block, std::uint8_t* base,
                                          const GridBarrier& barrier) {
  if (a.parts != nullptr && block.split.parts > 1) {
    switch (a.sums) {
      case XSums::none:
        return convert_parts<XSums::none>(a, block, base, barrier);
      case XSums::per_32:
        return convert_parts<XSums::per_32>(a, block, base, barrier);
      case XSums::per_16:
        return convert_parts<XSums::per_16>(a, block, base, barrier);
    }
  }
  if (a.norm != nullptr) {
    switch (a.sums) {
      case XSums::none:
        return convert_x<true, XSums::none>(a, block, base, barrier);
      case XSums::per_32:
        return convert_x<true, XSums::per_32>(a, block, base, barrier);
      case XSums::per_16:
        return convert_x<true, XSums::per_16>(a, block, base, barrier);
    }
  }
  switch (a.sums) {
    case XSums::none:
      return convert_x<false, XSums::none>(a, block, base, barrier);
    case XSums::per_32:
      return convert_x<false, XSums::per_32>(a, block, base, barrier);
    case XSums::per_16:
      return convert_x<false, XSums::per_16>(a, block, base, barrier);
  }
}

// The warp's pieces. Its sum of strip s goes to partial[s + warp], a place of its own: from one
// sum to the next in the order of pieces either the strip or the warp is one further.
template <class P>
__device__ __noinline__ void multiply_share(const DecodeProduct& a, DecodeShare block_share,
                                            Block& block, std::uint8_t* base) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const SharedX x(block.layout, base);
  float* partial = partial_sums(block.layout, base);
  PieceQueue queue(base + block.layout.ring + warp * block.layout.ring_bytes,
                   block.layout.ring_bytes, block.rings, warp);
  const OwnColumns own = OwnColumns::of<P>(lane);
  const WarpShare share(a, block_share, warp);
  const int pieces = a.pieces;
  const int tail_groups = a.columns / 32 - (pieces - 1) * piece_groups;
  int s = share.begin / pieces, p = share.begin - s * pieces;
  float sum_g = 0, sum_g8 = 0;
  for (int left = share.end - share.begin; left > 0; --left) {
    const std::uint8_t* weights = queue.wait(P::piece_bytes);
    const std::int8_t* values = x.values + p * 512;
    const float* scales = x.scales + p * piece_groups;
    const float* sums = x.sums + p * (piece_columns / P::group);
    if (++p == pieces && tail_groups != piece_groups) {
      multiply_piece<P>(weights, tail_groups, values, scales, sums, nullptr, lane, own, sum_g,
                        sum_g8);
    } else {
      multiply_piece<P>(weights, piece_groups, values, scales, sums, nullptr, lane, own, sum_g,
                        sum_g8);
    }
    queue.release(P::piece_bytes);
    if (p == pieces || left == 1) {
      sum_g += __shfl_xor_sync(0xffffffffu, sum_g, 1);
      sum_g8 += __shfl_xor_sync(0xffffffffu, sum_g8, 1);
      sum_g += __shfl_xor_sync(0xffffffffu, sum_g, 2);
      sum_g8 += __shfl_xor_sync(0xffffffffu, sum_g8, 2);
      if (lane % 4 == 0) {
        float* to = partial + (s + warp) * strip_rows + lane / 4;
        to[0] = sum_g, to[8] = sum_g8;
      }
      sum_g = sum_g8 = 0;
      p = 0, ++s;
    }
  }
  queue.keep(block.rings, warp);
}

__device__ __forceinline__ void multiply_share(const DecodeProduct& a, DecodeShare share,
                                               Block& block, std::uint8_t* base) {
  switch (a.format) {
#define QL_CASE(F)         \
  case formats::F::format: \
    return multiply_share<Planes<formats::F>>(a, share, block, base);
    QL_DECODE_FORMATS(QL_CASE)
#undef QL_CASE
    default:
      __trap();
  }
}

// Where a thread's row goes, and what its sum is added to.
struct Output {
  float* to = nullptr;
  float before = 0;
  __device__ Output(const DecodeProduct& a, const DecodeShare& share, int i) {
    if (i >= share.count * strip_rows) return;
    const LocatedStrip at(a, share.first, share.count, i / strip_rows);
    const MatmulWeight& weight = a.weights[at.weight];
    const int row = at.index * strip_rows + i % strip_rows;
    if (row >= weight.rows) return;
    to = weight.out + row;
    if (weight.bias != nullptr) before = weight.bias[row];
    if (a.epilogue == MatmulEpilogue::add) before += __ldcg(to);
  }
};

// The sum of one row of strip s over the warps that had a part of it; `all` pieces in all, of which
// warp w has those from all * w / warps on.
__device__ inline float strip_sum(const float* partial, int s, int row, int pieces, int all) {
  // Exact: both numbers stay below 2^21.
  const float inverse = __frcp_rn(static_cast<float>(all));
  const auto warp_of = [&](int i) {
    return static_cast<int>((static_cast<float>((i + 1) * decode_warps) - 0.5f) * inverse);
  };
  const int first = warp_of(s * pieces), last = warp_of((s + 1) * pieces - 1);
  float sum = 0;
  for (int w = first; w <= last; ++w) {
    // A warp without pieces has no sum.
    const bool has_some = all * (w + 1) / decode_warps > all * w / decode_warps;
    if (has_some) sum += partial[(s + w) * strip_rows + row];
  }
  return sum;
}

__device__ inline float inverse_rms(const DecodeProduct& a, const Block& block) {
  if (a.norm == nullptr) return 1.0f;
  float sum = 0;
#pragma unroll
  for (int w = 0; w < decode_warps; ++w) sum += block.squares[w];
  return rsqrtf(sum / static_cast<float>(a.columns) + a.epsilon);
}

__device__ __forceinline__ void store_share(const DecodeProduct& a, const DecodeShare& share,
                                            const Output& first, Block& block, std::uint8_t* base) {
  if (static_cast<int>(threadIdx.x) >= share.count * strip_rows) return;
  const float* partial = partial_sums(block.layout, base);
  const float factor = inverse_rms(a, block);
  const bool gated = a.epilogue == MatmulEpilogue::gate_up;
  const int pieces = a.pieces, all = (gated ? 2 * share.count : share.count) * pieces;
  for (int i = threadIdx.x; i < share.count * strip_rows; i += decode_threads) {
    const Output output = i < decode_threads ? first : Output(a, share, i);
    if (output.to == nullptr) continue;
    const int s = i / strip_rows, row = i % strip_rows;
    float value = factor * strip_sum(partial, s, row, pieces, all);
    if (gated) {
      const float up = factor * strip_sum(partial, s + share.count, row, pieces, all);
      value = activate(value, a.activation) * up;
    }
    __stcg(output.to, output.before + value);
  }
}

}  // namespace quantloom::kernels
