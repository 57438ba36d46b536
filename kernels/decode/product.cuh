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

// Strips first .. last - 1 of a block's share, whose sums stand in shared memory together.
struct StripBatch {
  int first, last;
};

// Each warp's sum of a strip has a place of its own, and where a strip has fewer pieces than there
// are warps, each piece.
__device__ inline int sums_of_strip(const DecodeProduct& a) { return min(a.pieces, decode_warps); }

// The warp's pieces of a batch.
template <class P>
__device__ __noinline__ void multiply_batch(const DecodeProduct& a, DecodeShare share,
                                            StripBatch batch, Block& block, std::uint8_t* base) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const SharedX x(block.layout, base);
  float* partial = partial_sums(block.layout, base);
  const std::uint8_t* ring = base + block.layout.ring;
  const std::uint32_t filled = shared_address(block.rings.filled),
                      emptied = shared_address(block.rings.emptied);
  const OwnColumns own = OwnColumns::of<P>(lane);
  const int pieces = a.pieces, sums_each = sums_of_strip(a);
  const int tail_groups = a.columns / 32 - (pieces - 1) * piece_groups;
  const int all = strips_of(a, share) * pieces;
  const int end = batch.last * pieces;
  // Where the share ends amid a stage, the warps of the pieces that are missing release it too.
  const int last = end == all ? (all + stage_pieces - 1) / stage_pieces * stage_pieces : end;
  int i = batch.first * pieces;
  i += (warp - i) & (decode_warps - 1);
  int s = i / pieces, p = i - s * pieces;
  float sum_g = 0, sum_g8 = 0;
  for (; i < last; i += decode_warps) {
    const std::uint32_t stage = block.stages + static_cast<std::uint32_t>(i / stage_pieces);
    const std::uint32_t slot = stage % ring_stages;
    mbarrier_wait(filled + 8 * slot, stage / ring_stages & 1);
    if (i < end) {
      const int in_stage = i % stage_pieces;
      int offset = in_stage * P::piece_bytes;
      if (tail_groups != piece_groups) {
        offset -= (s - (i - in_stage) / pieces) * (a.piece_bytes - a.tail_bytes);
      }
      const std::uint8_t* weights = ring + block.rings.offsets[slot] + offset;
      const std::int8_t* values = x.values + p * 512;
      const float* scales = x.scales + p * piece_groups;
      const float* sums = x.sums + p * (piece_columns / P::group);
      if (p + 1 == pieces && tail_groups != piece_groups) {
        multiply_piece<P>(weights, tail_groups, values, scales, sums, nullptr, lane, own, sum_g,
                          sum_g8);
      } else {
        multiply_piece<P>(weights, piece_groups, values, scales, sums, nullptr, lane, own, sum_g,
                          sum_g8);
      }
    }
    __syncwarp();
    if (lane == 0) mbarrier_arrive(emptied + 8 * slot);
    if (i >= end) break;
    if (p + decode_warps >= pieces || i + decode_warps >= end) {
      sum_g += __shfl_xor_sync(0xffffffffu, sum_g, 1);
      sum_g8 += __shfl_xor_sync(0xffffffffu, sum_g8, 1);
      sum_g += __shfl_xor_sync(0xffffffffu, sum_g, 2);
      sum_g8 += __shfl_xor_sync(0xffffffffu, sum_g8, 2);
      if (lane % 4 == 0) {
        const int place = (s - batch.first) * sums_each + (pieces > decode_warps ? warp : p);
        float* to = partial + place * strip_rows + lane / 4;
        to[0] = sum_g, to[8] = sum_g8;
      }
      sum_g = sum_g8 = 0;
    }
    for (p += decode_warps; p >= pieces; p -= pieces) ++s;
  }
}

__device__ __forceinline__ void multiply_batch(const DecodeProduct& a, DecodeShare share,
                                               StripBatch batch, Block& block, std::uint8_t* base) {
  switch (a.format) {
#define QL_CASE(F)         \
  case formats::F::format: \
    return multiply_batch<Planes<formats::F>>(a, share, batch, block, base);
    QL_DECODE_FORMATS(QL_CASE)
#undef QL_CASE
    default:
      __trap();
  }
}

// Where a thread's row goes, and what its sum is added to. Thread 16u + r has row r of the batch's
// u-th strip, in gate_up of its u-th pair.
struct Output {
  float* to = nullptr;
  float before = 0;
  __device__ Output(const DecodeProduct& a, DecodeShare share, StripBatch batch) {
    const int strip = strip_of(a), row_in_strip = threadIdx.x % strip_rows;
    if (batch.first + strip >= batch.last) return;
    const LocatedStrip at(a, share, batch.first + strip);
    const MatmulWeight& weight = a.weights[at.weight];
    const int row = at.index * strip_rows + row_in_strip;
    if (row >= weight.rows) return;
    to = weight.out + row;
    if (weight.bias != nullptr) before = weight.bias[row];
    if (a.epilogue == MatmulEpilogue::add) before += __ldcg(to);
  }
  // Of the batch; a gate's.
  __device__ static int strip_of(const DecodeProduct& a) {
    const int unit = a.epilogue == MatmulEpilogue::gate_up ? 2 : 1;
    return static_cast<int>(threadIdx.x) / strip_rows * unit;
  }
};

__device__ inline float inverse_rms(const DecodeProduct& a, const Block& block) {
  if (a.norm == nullptr) return 1.0f;
  float sum = 0;
#pragma unroll
  for (int w = 0; w < decode_warps; ++w) sum += block.squares[w];
  return rsqrtf(sum / static_cast<float>(a.columns) + a.epsilon);
}

__device__ __forceinline__ void store_batch(const DecodeProduct& a, const Output& output,
                                            const Block& block, std::uint8_t* base) {
  static_assert(decode_batch_strips * strip_rows <= decode_threads);
  if (output.to == nullptr) return;
  const int sums_each = sums_of_strip(a);
  const auto total = [&](int strip) {
    const float* from = partial_sums(block.layout, base) + strip * sums_each * strip_rows +
                        threadIdx.x % strip_rows;
    float sum = 0;
#pragma unroll 4
    for (int i = 0; i < sums_each; ++i) sum += from[i * strip_rows];
    return sum;
  };
  const int strip = Output::strip_of(a);
  const float factor = inverse_rms(a, block);
  float value = factor * total(strip);
  if (a.epilogue == MatmulEpilogue::gate_up) {
    value = activate(value, a.activation) * (factor * total(strip + 1));
  }
  __stcg(output.to, output.before + value);
}

// A block's share, once x stands converted in shared memory.
__device__ __forceinline__ void multiply_share(const DecodeProduct& a, DecodeShare share,
                                               Block& block, std::uint8_t* base) {
  const int strips = strips_of(a, share);
  for (int first = 0; first < strips; first += decode_batch_strips) {
    if (first > 0) sync_consumers();  // the sums before are stored
    const StripBatch batch{first, min(strips, first + decode_batch_strips)};
    const Output output(a, share, batch);
    multiply_batch(a, share, batch, block, base);
    sync_consumers();
    block.stamp(2);
    store_batch(a, output, block, base);
  }
  if (threadIdx.x == 0) block.stages += (strips * a.pieces + stage_pieces - 1) / stage_pieces;
}

}  // namespace quantloom::kernels
