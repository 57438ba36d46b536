// One token through a whole model in one kernel: a persistent block on each multiprocessor walks a
// list of steps, and waits in each for the values that it reads (decode/exchange.cuh), which no
// barrier announces. A thread of each block streams the products' weights into shared memory ahead
// of their use, across the steps' borders, and a few warps add and store the sums of the step
// before.
//
// Needs compute capability 9.0. Raw pointers; nothing here allocates or synchronizes.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "matmul/matmul.h"
#include "transformer/transformer.h"

namespace quantloom::kernels {

enum class DecodeStepKind : std::int32_t { product, attention };

// The piece of a strip whose columns a warp has, where it has those of one piece only
// (DecodeProduct::own_columns): piece i of a block's share is warp i % decode_warps's. Where the
// number of pieces does not divide the warps', a block has one strip.
constexpr int own_piece(int warp, int pieces) {
  const bool divide_the_warps = (pieces & (pieces - 1)) == 0;
  return divide_the_warps ? warp & (pieces - 1) : warp < pieces ? warp : pieces - 1;
}

// Which sums of x a format's planes need beside its quants, for offsets or quants counted from
// another zero.
enum class XSums : std::int32_t { none, per_32, per_16 };

// out = x * transpose(w) of one to three matrices of one format and width; see matmul.h.
struct DecodeProduct {
  formats::Format format = formats::Format::f32;
  MatmulEpilogue epilogue = MatmulEpilogue::store;
  Activation activation = Activation::silu;
  int weight_count = 0;
  int columns = 0;
  const float* x = nullptr;
  const float* norm = nullptr;  // [columns], or null for none:
  float epsilon = 0;            // x / sqrt(mean(x^2) + epsilon) * norm is multiplied
  MatmulWeight weights[matmul_most_weights];
  // store, of one weight: out = activation(out) * product, where an earlier step left the gate.
  bool gated = false;
  // Filled in by decode_plan(), which also lets x and the weights' `out` point to where the steps
  // hand each other their values:
  bool x_is_tagged = false;  // a step's, rather than from before the program
  bool x_is_fixed = false;   // and in fixed point (decode/fixed_columns.cuh)
  bool out_is_tagged = false;
  const float* before = nullptr;  // what was in out: of `add` and `gated`
  bool before_is_tagged = false;
  bool out_is_fixed = false;
  XSums sums = XSums::none;
  bool shares_x = false;     // with the step before
  bool own_columns = false;  // a warp's pieces are all of the same columns
  int share = 0;             // index of its first entry in DecodeProgram::shares
  float inverse_columns = 0;
  int pieces = 0;  // of a strip
  int piece_bytes = 0;
  int tail_bytes = 0;                   // of a strip's last piece
  int first[matmul_most_weights] = {};  // strips before each weight
  bool operator==(const DecodeProduct&) const = default;
};

// RoPE, the write of k and v to the cache, and attention of the token at position *attention.first.
// decode_plan() lets q, k, v, attention.out and attention.workspace point to where blocks hand each
// other values.
struct DecodeAttention {
  RopeStore rope = {};
  Attention attention = {};
  bool same_split = false;  // decode_plan(): as the attention before, with the same angles
  bool operator==(const DecodeAttention&) const = default;
};

struct DecodeStep {
  DecodeStepKind kind = DecodeStepKind::product;
  int kernel = 0;             // decode_plan(): what runs it (decode/formats.h)
  DecodeProduct product;      // of one kind
  DecodeAttention attention;  // of the other
  bool operator==(const DecodeStep&) const = default;
};

// A block's part of a product: strips of 16 rows, in gate_up pairs of strips.
struct DecodeShare {
  std::uint16_t first;
  std::uint16_t count;
  // Where no step before it that shares x has units for this block, the most that a step has which
  // does: so many warps convert x. Otherwise 0.
  std::uint16_t converts_for;
  // What the steps before have had for this block, modulo 256, attention's too: stages of weights
  // and batches of sums.
  std::uint8_t stages_before, batches_before;
};

// A block's strips of a product, in which an up of gate_up follows its gate.
constexpr int strips_of(const DecodeProduct& product, DecodeShare share) {
  return product.epilogue == MatmulEpilogue::gate_up ? 2 * share.count : share.count;
}

// A block's shared memory: the table of the format at hand, if any has one, then what the offsets
// count from.
struct DecodeLayout {
  int table_bytes = 0;
  int x_scales = 0, x_sums = 0;  // behind x's values (matmul/one_token.cuh), which are at 0
  int partial = 0;               // [sum_buffers][decode_batch_strips][warps][16] floats
  int ring = 0, ring_bytes = 0;
  int bytes = 0;  // with the table
};

struct DecodeProgram {
  const DecodeStep* steps = nullptr;    // device memory
  const DecodeShare* shares = nullptr;  // device memory
  int step_count = 0;
  int blocks = 0;
  DecodeLayout layout;
  const std::int32_t* position = nullptr;  // of the token, device memory
  int* launches = nullptr;                 // two integers, zero before the first launch
  std::uint64_t* stamps = nullptr;         // null, or [steps][blocks][decode_stamps] nanoseconds
  int stages_ahead = 1;  // of later products' weights that a block has on their way at a time
};
constexpr int decode_stamps = 4;  // start, inputs there and converted, sums done, outputs written

// Blocks of a program's launch on the current device; 0 where it has no such kernel.
int decode_blocks();
bool decode_serves(const DecodeAttention& attention);

// Bytes of device memory through which the steps hand each other their values, zero before the
// program's first launch. Two programs, or two launches at a time, need two of them.
std::size_t decode_exchange_bytes(const DecodeStep* steps, int step_count);

// Completes the steps, writes step_count * decode_blocks() shares, and sets the sizes and the
// layout of the program. Returns false where it does not fit the current device.
bool decode_plan(DecodeStep* steps, int step_count, void* exchange, DecodeShare* shares,
                 DecodeProgram& program);

cudaError_t decode(const DecodeProgram& program, cudaStream_t stream);

}  // namespace quantloom::kernels
