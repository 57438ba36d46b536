// The formats that a decode program multiplies, which are all quantized ones, and the head sizes
// that it attends with.
#pragma once

#include "decode/decode.h"
#include "formats/list.h"

#define QL_DECODE_HEAD_SIZES(X) X(128) X(64) X(96) X(32)

namespace quantloom::kernels {

// The place of a format in the list, -1 for none.
constexpr int decode_index(formats::Format format) {
  int index = 0;
#define QL_CASE(F)                                \
  if (formats::F::format == format) return index; \
  ++index;
  QL_QUANTIZED_FORMATS(QL_CASE)
#undef QL_CASE
  return -1;
}

// What a plan asks of a format, all zero where there is no kernel. Its planes say what products
// have in shared memory beside x's quants and the weights; what runs on the host does not know the
// planes, so decode.cu asks them.
struct DecodeTraits {
  int block_bytes = 0, elements = 0;  // of a block
  int table_bytes = 0;                // in which quants are looked up (Planes::table_bytes)
  XSums sums = XSums::none;
};
DecodeTraits decode_traits(formats::Format format);

// The format at a place of the list.
template <int index>
struct DecodeFormatAt;
#define QL_CASE(F)                                          \
  template <>                                               \
  struct DecodeFormatAt<decode_index(formats::F::format)> { \
    using Type = formats::F;                                \
  };
QL_QUANTIZED_FORMATS(QL_CASE)
#undef QL_CASE
template <int index>
using DecodeFormat = typename DecodeFormatAt<index>::Type;

// DecodeStep::kernel, what runs a step: a number for each format with and without own columns,
// behind them one for each head size and kind of cache.
constexpr int product_kernel(formats::Format format, bool own_columns) {
  return 2 * decode_index(format) + (own_columns ? 1 : 0);
}
#define QL_COUNT(F) +2
constexpr int product_kernels = 0 QL_QUANTIZED_FORMATS(QL_COUNT);
#undef QL_COUNT
constexpr int attention_kernel(int head_size, bool q8_0) {
  return product_kernels + head_size / 16 + (q8_0 ? 1 : 0);
}

}  // namespace quantloom::kernels
