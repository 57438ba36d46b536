// The kernels for AVX-512 without VNNI.
#if defined(__x86_64__)

#include <immintrin.h>

// Only what is defined between push and pop is compiled for these instructions: inline functions of
// other headers stay runnable anywhere, whichever copy of them the linker keeps.
#include "cpu/kernels.h"
#include "formats/list.h"

#include <cmath>
#include <cstring>
#include <limits>

#if defined(__clang__)
#pragma clang attribute push(                                                         \
    __attribute__((target("avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512dq,avx512vl"))), \
    apply_to = function)
#else
// GCC 12 takes the undefined operands of its own intrinsics for mistakes (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512dq,avx512vl")
#endif

#include "cpu/attention.h"
#include "cpu/multiply_plain.h"
#include "cpu/prepare.h"
#include "cpu/simd_avx512.h"
#include "cpu/vector_ops.h"

namespace quantloom::cpu {
namespace {

// Without VNNI a product in 512 bits gains little over AVX2: it is bound by the same two steps.
Form form(formats::Format format, std::int64_t tokens, ops::Precision precision) {
  return avx2_kernels().form(format, tokens, precision);
}

void multiply(const ops::Weight& weight, const Activations& x, Form form, ops::Precision precision,
              std::int64_t first_row, std::int64_t rows, float* out, std::int64_t out_stride,
              void* scratch) {
  if (form == Form::values) {
    return multiply_floats_dispatch<Avx512>(weight, x, first_row, rows, out, out_stride);
  }
  avx2_kernels().multiply(weight, x, form, precision, first_row, rows, out, out_stride, scratch);
}

}  // namespace

const Kernels& avx512_kernels() {
  static const Kernels table = {
      .set = InstructionSet::avx512,
      .form = form,
      .prepare = prepare_fixed<Avx512>,
      .multiply = multiply,
      .rms_norm = rms_norm<Avx512>,
      .rotate = rotate<Avx512>,
      .store_cache_row = store_cache_row<Avx512>,
      .attend = attend<Avx512>,
      .activate = activate<Avx512>,
      .add = add<Avx512>,
      .scale = scale<Avx512>,
      .soft_cap = soft_cap<Avx512>,
  };
  return table;
}

}  // namespace quantloom::cpu

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#endif
