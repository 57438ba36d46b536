// A product of the program: x converted to fixed point by every block, the block's strips
// multiplied piece by piece, the warps' sums added in their order and stored.
#pragma once

#include "decode/block.cuh"
#include "decode/convert.cuh"
#include "decode/fixed_columns.cuh"
#include "decode/formats.h"
#include "decode/multiply.cuh"
#include "matmul/strips.cuh"
#include "transformer/reduce.cuh"

namespace quantloom::kernels {

// Where a thread's row goes. Thread 16u + r has row r of the batch's u-th strip, in gate_up of its
// u-th pair.
struct Output {
  int row = -1;
  float* to = nullptr;
  const float* bias = nullptr;
  Output() = default;
  __device__ Output(const DecodeProduct& a, DecodeShare share, StripBatch batch) {
    const int strip = strip_of(a), row_in_strip = threadIdx.x % strip_rows;
    if (batch.first + strip >= batch.last) return;
    const LocatedStrip at(a, share, batch.first + strip);
    const MatmulWeight& weight = a.weights[at.weight];
    const int in_weight = at.index * strip_rows + row_in_strip;
    if (in_weight >= weight.rows) return;
    row = in_weight;
    to = weight.out;
    if (weight.bias != nullptr) bias = weight.bias + row;
  }
  // Of the batch; a gate's.
  __device__ static int strip_of(const DecodeProduct& a) {
    const int unit = a.epilogue == MatmulEpilogue::gate_up ? 2 : 1;
    return static_cast<int>(threadIdx.x) / strip_rows * unit;
  }
  // What the sum is added to.
  __device__ float before(const DecodeProduct& a, std::uint32_t launch_tag) const {
    float before = 0;
    if (row < 0) return before;
    if (bias != nullptr) before = *bias;
    if (a.residual != nullptr) {
      const Tag tag{launch_tag, a.residual_is_tagged ? 1u : 0u};
      Patience patience;
      float x = tag.read(a.residual + row);
      while (!tag.is_there(tag.differs(x))) patience.turn(), x = tag.read(a.residual + row);
      before += tag.value(x);
    }
    return before;
  }
};

// Sums of `count` warps in their order, of n rows that stand `apart` from each other; all loads at
// once.
template <int n>
__device__ __forceinline__ void add_warps(const float* from, int count, int apart,
                                          float (&sums)[n]) {
  float parts[n][decode_warps];
#pragma unroll
  for (int i = 0; i < decode_warps; ++i) {
#pragma unroll
    for (int k = 0; k < n; ++k) {
      parts[k][i] = i < count ? from[k * apart + i * strip_rows] : 0.0f;
    }
  }
#pragma unroll
  for (int i = 0; i < decode_warps; ++i) {
#pragma unroll
    for (int k = 0; k < n; ++k) sums[k] += parts[k][i];
  }
}

// As activate(), but without a division that could call a function: what is in registers around a
// call is spilled.
__device__ __forceinline__ float activated(float x, MatmulActivation activation) {
  switch (activation) {
    case MatmulActivation::gelu:
      return activate(x, MatmulActivation::gelu);
    case MatmulActivation::gelu_tanh:
      return activate(x, MatmulActivation::gelu_tanh);
    default:
      return __fdividef(x, 1.0f + __expf(-x));
  }
}

// Rows that go out in fixed point are those of whole warps (plan.cpp).
__device__ __forceinline__ void store_batch(const DecodeProduct& a, const Output& output,
                                            float before, const Block& block, std::uint8_t* base) {
  static_assert(decode_batch_strips * strip_rows <= decode_threads);
  if (output.row < 0) return;
  const int sums_each = sums_of_strip(a.pieces);
  const float* from = partial_sums(block.program.layout, base) +
                      Output::strip_of(a) * sums_each * strip_rows + threadIdx.x % strip_rows;
  float factor = 1.0f;
  if (a.norm != nullptr) {
    float squares = 0;
#pragma unroll
    for (int w = 0; w < decode_warps; w += 4) {
      const float4 four = *reinterpret_cast<const float4*>(block.squares + w);
      squares += (four.x + four.y) + (four.z + four.w);
    }
    factor = rsqrtf(fmaf(squares, a.inverse_columns, a.epsilon));
  }
  float value;
  if (a.epilogue == MatmulEpilogue::gate_up) {
    float sums[2] = {0, 0};
    add_warps(from, sums_each, sums_each * strip_rows, sums);
    value = activated(factor * sums[0], a.activation) * (factor * sums[1]);
  } else {
    float sums[1] = {0};
    add_warps(from, sums_each, 0, sums);
    value = factor * sums[0];
  }
  value += before;
  if (a.out_is_fixed) {
    store_fixed({output.to, static_cast<int>(a.weights[0].rows)}, output.row / 32, value,
                block.tag);
  } else if (a.out_is_tagged) {
    store_tagged(output.to + output.row, value, block.tag);
  } else {
    __stcg(output.to + output.row, value);
  }
}

// A whole step, so that what it keeps in registers lives through no call.
template <class P, bool own>
__device__ __noinline__ void product_step(Block& block, std::uint8_t* base) {
  constexpr XSums kind = !P::has_offset   ? XSums::none
                         : P::group == 16 ? XSums::per_16
                                          : XSums::per_32;
  const StepCopy& step = block.step();
  const DecodeProduct& a = step.get().product;
  const DecodeShare share = step.share;
  const int strips = strips_of(a, share), pieces = a.pieces;
  if (strips == 0) {
    block.stamp(1), block.stamp(2);
    return;
  }
  const bool converts = share.converts_for != 0;
  const auto batch_from = [&](int first) {
    return StripBatch{first, min(strips, first + decode_batch_strips)};
  };
  Output output;
  float squares = 0;
  const auto find_output = [&] { output = Output(a, share, batch_from(0)); };
  // The conversion of all columns needs the registers.
  const auto meanwhile = [&] {
    if constexpr (own) find_output();
  };
  // Warps without a piece, where a block's share is small, leave the others theirs of the
  // multiprocessor.
  const int most_pieces = max(strips, static_cast<int>(share.converts_for)) * pieces;
  const bool works = !own || static_cast<int>(threadIdx.x) / 32 <
                                 ((most_pieces + stage_pieces - 1) & -stage_pieces);
  if (!converts || !works) {
    if (works) meanwhile();
  } else if (a.x_is_fixed) {
    copy_fixed<own, kind>(a, block, base, meanwhile);
  } else {
    squares = convert_x<own, kind>(a, block, base, meanwhile);
  }
  if constexpr (!own) find_output();
  if (threadIdx.x == 0) block.rings.multiplied = block.turn();
  block.stamp(1);
  const auto batches = [&](auto multiply) {
    for (int first = 0;;) {
      const float before = output.before(a, block.tag);
      const StripBatch batch = batch_from(first);
      multiply(batch);
      if (first == 0 && a.norm != nullptr && converts) {
        squares = warp_sum(squares);
        if (threadIdx.x % 32 == 0) block.squares[threadIdx.x / 32] = squares;
      }
      sync_consumers();
      block.stamp(2);
      store_batch(a, output, before, block, base);
      if ((first = batch.last) >= strips) break;
      output = Output(a, share, batch_from(first));
      sync_consumers();  // the sums are stored
    }
  };
  if constexpr (own) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const SharedX x(block.program.layout, base);
    const HeldPiece<P> held({x.values + warp * 512, x.scales + warp * piece_groups,
                             x.sums + warp * (piece_columns / P::group), OwnColumns::of<P>(lane),
                             lane});
    batches([&](StripBatch batch) { multiply_batch<P>(held, pieces, batch, block, base); });
  } else {
    batches([&](StripBatch batch) { multiply_batch<P>(a, batch, block, base); });
  }
  if (threadIdx.x == decode_threads - 1)
    block.stages += (strips * pieces + stage_pieces - 1) / stage_pieces;
}

__device__ __forceinline__ void multiply(int kernel, Block& block, std::uint8_t* base) {
  switch (kernel) {
#define QL_CASE(F)                                               \
  case 2 * decode_index(formats::F::format):                     \
    return product_step<Planes<formats::F>, false>(block, base); \
  case 2 * decode_index(formats::F::format) + 1:                 \
    return product_step<Planes<formats::F>, true>(block, base);
    QL_DECODE_FORMATS(QL_CASE)
#undef QL_CASE
    default:
      __trap();
  }
}

}  // namespace quantloom::kernels
