// What each instruction set implements: a table of functions, one per kernels_*.cpp. The functions
// work on one thread, on raw pointers; operations.cpp hands out the work.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/instruction_set.h"
#include "formats/format.h"
#include "ops/operations.h"

namespace quantloom::cpu {

// How a product reads its activations.
enum class Form {
  values,  // the floats themselves: weights in a float format
  planes,  // fixed point as int8: one plane in fast, a high and a low one in exact
  words,   // fixed point as int16
  tiles,   // bfloat16 in the order of AMX tiles: one plane in fast, two in exact
};
inline constexpr int form_count = 4;

// Fixed point has one scale per `activation_group` values: value = scale * q.
inline constexpr int activation_group = 32;
// The sums of q come per this many values, the smallest group of any format.
inline constexpr int sum_group = 16;
// Fixed-point rows are padded with zeros to a multiple of this.
inline constexpr int span = 256;
// Highest |q|: 127 in fast; in exact the most that splits into two signed bytes, 127 * 256 + 127.
inline constexpr int fast_limit = 127;
inline constexpr int exact_limit = 32639;
// Tokens and columns of an AMX tile of bfloat16.
inline constexpr int tile_tokens = 16;
inline constexpr int tile_columns = 32;

// Activations of some tokens, in the forms that prepare() was asked for.
struct Activations {
  std::int64_t tokens = 0;
  std::int64_t counted = 0;  // tokens by which a kernel is chosen; at least `tokens`
  std::int64_t columns = 0;
  std::int64_t stride = 0;              // of planes and words, in values; a multiple of 64
  std::int64_t groups = 0;              // sums per token: padded columns / sum_group
  const float* values = nullptr;        // [tokens, columns]
  std::int8_t* high = nullptr;          // [tokens, stride]: q in fast; (q + 128) >> 8 in exact
  std::int8_t* low = nullptr;           // [tokens, stride]: q - 256 * high; null in fast
  std::int16_t* words = nullptr;        // [tokens, stride]
  float* scales = nullptr;              // [tokens, groups], each twice
  float* sums = nullptr;                // [tokens, groups]: scale * sum of q
  float* pair_sums = nullptr;           // the same per 32 values, each twice
  std::int32_t* biases = nullptr;       // [tokens, groups]: -128 * sum of q
  std::int32_t* pair_biases = nullptr;  // the same per 32 values, each twice
  // [tokens / 16 rounded up, columns / 32 rounded up, 16 pairs of columns, 16 tokens, 2]; the
  // tokens that are not there are zero. The high plane, then in exact the low one.
  std::uint16_t* tiles = nullptr;
  std::int64_t tile_plane = 0;  // distance of the low plane
};

// Keys per step of attention, aligned to absolute positions, so that a query's result does not
// depend on the queries it shares a block with.
inline constexpr int key_block = 64;

// One row of queries against the cache, see attend().
struct AttentionBlock {
  const ops::Attention* arguments = nullptr;
  int kv_head = 0;
  std::int64_t first_token = 0;
  std::int64_t tokens = 0;
  std::int64_t first_position = 0;  // of first_token
  // Positions of the cache that this call sees. Where they are a part of what a token sees, the
  // result is partial.
  std::int64_t begin = 0;
  std::int64_t end = 0;
  // With head sizes padded to 16: for each query (token, head of the group) 2 heads and key_block +
  // 2 floats, then 2 heads for each of key_block keys.
  float* scratch = nullptr;
  // null: the result goes to arguments->out. Otherwise for each query (token, head of the group):
  // maximum score, sum of weights, head_size weighted sums.
  float* partial = nullptr;
};

struct Kernels {
  InstructionSet set = InstructionSet::plain;

  // The form in which a product of `tokens` tokens with weights of `format` reads its activations.
  Form (*form)(formats::Format format, std::int64_t tokens, ops::Precision precision);
  // Fills tokens begin .. end - 1 of `out` (whole tiles of tokens in Form::tiles) from out.values.
  // Returns false where a value is not finite, which fixed point has no form for.
  bool (*prepare)(Form form, ops::Precision precision, std::int64_t begin, std::int64_t end,
                  const Activations& out);
  // out[t * out_stride + r] = product of token t and row first_row + r, for all tokens and `rows`
  // rows; `scratch` is multiply_scratch bytes, 64-byte aligned.
  void (*multiply)(const ops::Weight& weight, const Activations& x, Form form,
                   ops::Precision precision, std::int64_t first_row, std::int64_t rows, float* out,
                   std::int64_t out_stride, void* scratch);

  void (*rms_norm)(const float* x, std::int64_t width, const ops::Norm& norm, float* out);
  // Rotates one head of one position; `cosines`, `sines` [dimensions / 2].
  void (*rotate)(float* head, const float* cosines, const float* sines, int dimensions,
                 bool interleaved);
  void (*store_cache_row)(const float* values, int head_size, ops::CacheType type, void* row,
                          std::uint16_t* scales);
  void (*attend)(const AttentionBlock& block);
  void (*activate)(const float* gate, const float* up, std::int64_t count,
                   ops::Activation activation, float* out);
  void (*add)(const float* a, const float* b, std::int64_t count, float* out);
  void (*scale)(float* x, std::int64_t count, float factor);
  void (*soft_cap)(float* x, std::int64_t count, float cap);
};

// Rows that one call of multiply() takes at most where tokens is above 8.
inline constexpr int tile_rows = 128;
inline constexpr std::size_t multiply_scratch = std::size_t{1} << 20;

// The tables of the sets that this build has; on a machine without a set its table is never used.
const Kernels& plain_kernels();
#if defined(__x86_64__)
const Kernels& avx2_kernels();
const Kernels& avx512_kernels();
const Kernels& vnni_kernels();
const Kernels& amx_kernels();
#endif

// A kernel was asked for a type that it has no case for. Throws device naming tensor and type.
[[noreturn]] void fail_no_product(const ops::Weight& weight);

// The table of `set`. Errors: invalid_argument where this build has none.
const Kernels& kernels(InstructionSet set);

}  // namespace quantloom::cpu
