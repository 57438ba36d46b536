// The one list of formats that are decoded and computed with, which tests of every kind run over.
//
// A new one takes its id in format.h, its decoder in a header of its own, a line here and none among
// the known ones in types.cpp; for the GPU Planes<F> and instance files in kernels (dequantize,
// matmul, raw_matmul); and its decoder in python/quantloom/reference.
#pragma once

#include "formats/floats.h"
#include "formats/format.h"
#include "formats/iq1_m.h"
#include "formats/iq1_s.h"
#include "formats/iq2_s.h"
#include "formats/iq2_xs.h"
#include "formats/iq2_xxs.h"
#include "formats/iq3_s.h"
#include "formats/iq3_xxs.h"
#include "formats/iq4_nl.h"
#include "formats/iq4_xs.h"
#include "formats/mxfp4.h"
#include "formats/nvfp4.h"
#include "formats/q2_k.h"
#include "formats/q3_k.h"
#include "formats/q4_0.h"
#include "formats/q4_1.h"
#include "formats/q4_k.h"
#include "formats/q5_0.h"
#include "formats/q5_1.h"
#include "formats/q5_k.h"
#include "formats/q6_k.h"
#include "formats/q8_0.h"
#include "formats/tq1_0.h"
#include "formats/tq2_0.h"

// X(Type): quantloom::formats::Type is the format's struct. Order of type ids.
#define QL_FLOAT_FORMATS(X) \
  X(F32)                    \
  X(F16)                    \
  X(BF16)

#define QL_QUANTIZED_FORMATS(X) \
  X(Q4_0)                       \
  X(Q4_1)                       \
  X(Q5_0)                       \
  X(Q5_1)                       \
  X(Q8_0)                       \
  X(Q2_K)                       \
  X(Q3_K)                       \
  X(Q4_K)                       \
  X(Q5_K)                       \
  X(Q6_K)                       \
  X(IQ2_XXS)                    \
  X(IQ2_XS)                     \
  X(IQ3_XXS)                    \
  X(IQ1_S)                      \
  X(IQ4_NL)                     \
  X(IQ3_S)                      \
  X(IQ2_S)                      \
  X(IQ4_XS)                     \
  X(IQ1_M)                      \
  X(TQ1_0)                      \
  X(TQ2_0)                      \
  X(MXFP4)                      \
  X(NVFP4)

namespace quantloom::formats {

// Calls fn(F{}) with the struct of `format` and returns what it returns, or otherwise() for a value
// that is in no list. The one place where a format known at run time becomes one known to the
// compiler.
template <class Function, class Otherwise>
decltype(auto) visit_format(Format format, Function&& fn, Otherwise&& otherwise) {
  switch (format) {
#define QL_CASE(F) \
  case F::format:  \
    return fn(F{});
    QL_FLOAT_FORMATS(QL_CASE)
    QL_QUANTIZED_FORMATS(QL_CASE)
#undef QL_CASE
  }
  return otherwise();
}

}  // namespace quantloom::formats
