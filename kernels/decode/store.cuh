// What becomes of a product's sums: warps of their own add those of the others and store them,
// while these go on to the next step.
#pragma once

#include "decode/block.cuh"
#include "decode/fixed_columns.cuh"
#include "decode/multiply.cuh"
#include "matmul/strips.cuh"

namespace quantloom::kernels {

__device__ inline int storing_warp() {
  return static_cast<int>(threadIdx.x) / 32 - decode_warps - 1;  // behind the filling one
}

// Where a thread's row goes. Lane 16u + r has row r of a span's strip u, or in gate_up of its pair
// u; the storing warps take a batch's spans in turn.
struct Output {
  int row = -1;
  float* to = nullptr;
  const float* bias = nullptr;
  // strip: of the block's share.
  __device__ Output(const DecodeProduct& a, DecodeShare share, int strip, int last) {
    if (strip >= last) return;
    const LocatedStrip at(a, share, strip);
    const MatmulWeight& weight = a.weights[at.weight];
    const int in_weight = at.index * strip_rows + static_cast<int>(threadIdx.x) % strip_rows;
    if (in_weight >= weight.rows) return;
    row = in_weight;
    to = static_cast<float*>(weight.out);
    if (weight.bias != nullptr) bias = weight.bias + row;
  }
  // What the sum is added to, or of `gated` the gate.
  __device__ float before(const DecodeProduct& a, std::uint32_t launch_tag) const {
    float before = 0;
    if (row < 0) return before;
    if (bias != nullptr) before = *bias;
    if (a.before != nullptr) {
      const Tag tag{launch_tag, a.before_is_tagged ? 1u : 0u};
      Patience patience;
      float x = tag.read(a.before + row);
      while (!tag.is_there(tag.differs(x))) patience.turn(), x = tag.read(a.before + row);
      before += tag.value(x);
    }
    return before;
  }
};

// Sums of `count` warps in their order, at most `most`, of n rows that stand `apart` from each
// other; all loads at once.
template <int most, int n>
__device__ __forceinline__ void add_some(const float* from, int count, int apart,
                                         float (&sums)[n]) {
  float parts[n][most];
#pragma unroll
  for (int i = 0; i < most; ++i) {
#pragma unroll
    for (int k = 0; k < n; ++k) {
      parts[k][i] = i < count ? from[k * apart + i * strip_rows] : 0.0f;
    }
  }
#pragma unroll
  for (int i = 0; i < most; ++i) {
#pragma unroll
    for (int k = 0; k < n; ++k) sums[k] += parts[k][i];
  }
}
template <int n>
__device__ __forceinline__ void add_sums(const float* from, int count, int apart,
                                         float (&sums)[n]) {
  if (count <= 4) return add_some<4>(from, count, apart, sums);
  if (count <= 8) return add_some<8>(from, count, apart, sums);
  add_some<decode_warps>(from, count, apart, sums);
}

// As activate(), but without a division that could call a function: what is in registers around a
// call is spilled.
__device__ __forceinline__ float activated(float x, Activation activation) {
  switch (activation) {
    case Activation::gelu:
      return activate(x, Activation::gelu);
    case Activation::gelu_tanh:
      return activate(x, Activation::gelu_tanh);
    default:
      return __fdividef(x, 1.0f + __expf(-x));
  }
}

// 1 / rms of x.
__device__ __forceinline__ float norm_factor(const DecodeProduct& a, const float* squares) {
  float sum = 0;
#pragma unroll
  for (int w = 0; w < decode_warps; w += 4) {
    const float4 four = *reinterpret_cast<const float4*>(squares + w);
    sum += (four.x + four.y) + (four.z + four.w);
  }
  return rsqrtf(fmaf(sum, a.inverse_columns, a.epsilon));
}

// What a step's rows have in common, in registers before their sums are waited for: every read of
// shared memory behind that wait is 30 cycles in which all blocks stand still.
struct StoreForm {
  bool pair, multiplies, is_fixed, is_tagged;
  Activation activation;
  int sums_each, rows;
  std::uint32_t tag;
  __device__ StoreForm(const DecodeProduct& a, std::uint32_t launch_tag)
      : pair(a.epilogue == MatmulEpilogue::gate_up),
        multiplies(pair || a.gated),
        is_fixed(a.out_is_fixed),
        is_tagged(a.out_is_tagged),
        activation(a.activation),
        sums_each(sums_of_strip(a.pieces)),
        rows(static_cast<int>(a.weights[0].rows)),
        tag(launch_tag) {}
};

// from: the row's first sum. Rows that go out in fixed point are those of whole warps (plan.cpp).
__device__ __forceinline__ void store_row(const StoreForm& form, const Output& output, float before,
                                          float factor, const float* from) {
  const int sums_each = form.sums_each;
  float value;
  if (form.pair) {
    float sums[2] = {0, 0};
    add_sums(from, sums_each, sums_each * strip_rows, sums);
    before = factor * sums[0];
    value = factor * sums[1];
  } else {
    float sums[1] = {0};
    add_sums(from, sums_each, 0, sums);
    value = factor * sums[0];
  }
  if (form.multiplies) {
    value *= activated(before, form.activation);
  } else {
    value += before;
  }
  if (form.is_fixed) {
    store_fixed({output.to, form.rows}, output.row / 32, value, form.tag);
  } else if (form.is_tagged) {
    store_tagged(output.to + output.row, value, form.tag);
  } else {
    __stcg(output.to + output.row, value);
  }
}

// norm: the factor of the step before, whose x this one may share.
__device__ __forceinline__ void store_product(const StepCopy& step, int index, Block& block,
                                              std::uint8_t* base, float& norm) {
  const DecodeProgram& program = block.program;
  const DecodeProduct& a = step.get().product;
  const DecodeShare share = step.share;
  const int lane = threadIdx.x % 32;
  const int warp = storing_warp();
  const StoreForm form(a, block.tag);
  const bool normed = a.norm != nullptr;
  const int strips = strips_of(a, share), unit = form.pair ? 2 : 1;
  std::uint64_t* stamps = nullptr;
  if (program.stamps != nullptr && warp == 0 && lane == 0) {
    stamps = program.stamps +
             (static_cast<std::int64_t>(index) * gridDim.x + blockIdx.x) * decode_stamps;
  }
#pragma unroll 1
  for (int first = 0; first < strips; first += decode_batch_strips) {
    const StripBatch batch(share, strips, first);
    const std::uint32_t buffer = batch.number % sum_buffers;
    // A warp waits for the sums also where no span of them is its own: then others may need the
    // buffer.
#pragma unroll 1
    for (int span = warp; span == warp || batch.first + 2 * span * unit < batch.last;
         span += decode_storing_warps) {
      const int strip = (2 * span + lane / strip_rows) * unit;  // of the batch
      const Output output(a, share, batch.first + strip, batch.last);
      const float before = output.before(a, form.tag);
      const float* sums = partial_sums(program.layout, base, batch.number) +
                          strip * form.sums_each * strip_rows + lane % strip_rows;
      const std::uint32_t phase = batch.number / sum_buffers & 1;
      // Without a norm too: every phase of a barrier is waited for by somebody.
      mbarrier_wait(shared_address(&block.sums.squared[buffer]), phase);
      if (first == 0 && normed && share.converts_for != 0) {
        norm = norm_factor(a, block.squares[buffer]);
      }
      mbarrier_wait(shared_address(&block.sums.summed[buffer]), phase);
      if (stamps != nullptr) stamps[2] = nanoseconds();
      if (output.row >= 0) store_row(form, output, before, normed ? norm : 1.0f, sums);
    }
    if (stamps != nullptr) stamps[3] = nanoseconds();
    mbarrier_arrive_warp(shared_address(&block.sums.stored[buffer]), lane);
  }
}

// The storing warps' whole work. Where a row goes and what it is added to is known before the sums
// are there.
__device__ __noinline__ inline void store_sums(Block& block, std::uint8_t* base) {
  const DecodeProgram& program = block.program;
  const int warp = storing_warp();
  if constexpr (warp_arrivals > 1) {
    for (std::uint64_t& stored : block.sums.stored) {
      mbarrier_arrive_warp(shared_address(&stored), threadIdx.x % 32);
    }
  }
  if (warp == 0) begin_copy(program, 0, block.store_steps[0]);
  end_copy();
  sync_storers();
  float norm = 1.0f;
#pragma unroll 1
  for (int i = 0; i < program.step_count; ++i) {
    const StepCopy& step = block.store_steps[i % 2];
    if (warp == 0) begin_copy(program, i + 1, block.store_steps[(i + 1) % 2]);
    if (step.get().kind == DecodeStepKind::product) store_product(step, i, block, base, norm);
    end_copy();
    sync_storers();
  }
}

}  // namespace quantloom::kernels
