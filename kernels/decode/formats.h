// The formats that a decode program multiplies.
#pragma once

#include "formats/list.h"

#define QL_DECODE_FORMATS(X) \
  X(Q4_0) X(Q4_1) X(Q5_0) X(Q5_1) X(Q8_0) X(Q2_K) X(Q3_K) X(Q4_K) X(Q5_K) X(Q6_K)

namespace quantloom::kernels {

// The place of a format in the list, -1 for none.
constexpr int decode_index(formats::Format format) {
  int index = 0;
#define QL_CASE(F)                                \
  if (formats::F::format == format) return index; \
  ++index;
  QL_DECODE_FORMATS(QL_CASE)
#undef QL_CASE
  return -1;
}

}  // namespace quantloom::kernels
