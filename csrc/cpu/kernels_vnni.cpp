// The kernels for AVX-512 with VNNI.
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
#pragma clang attribute push(                                                                    \
    __attribute__((target("avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni"))), \
    apply_to = function)
#else
// GCC 12 takes the undefined operands of its own intrinsics for mistakes (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")
#endif

#include "cpu/attention.h"
#include "cpu/matmul_vnni.h"
#include "cpu/matvec_vnni.h"
#include "cpu/multiply_plain.h"
#include "cpu/prepare.h"
#include "cpu/simd_avx512.h"
#include "cpu/unpack_avx512.h"
#include "cpu/unpack_grids_avx512.h"
#include "cpu/vector_ops.h"

namespace quantloom::cpu {
namespace {

Form form(formats::Format format, std::int64_t /*tokens*/, ops::Precision /*precision*/) {
  return is_float(format) ? Form::values : Form::planes;
}

// Up to here a weight is unpacked in registers for every four tokens, above once for all of them.
constexpr std::int64_t matvec_tokens = 8;

template <class F>
void multiply_planes(const ops::Weight& weight, const Activations& x, ops::Precision precision,
                     std::int64_t first_row, std::int64_t rows, float* out, std::int64_t out_stride,
                     void* scratch) {
  const bool exact = precision == ops::Precision::exact;
  if (x.counted <= matvec_tokens) {
    (exact ? matvecs<F, true> : matvecs<F, false>)(weight, x, first_row, rows, out, out_stride);
  } else {
    (exact ? matmul<F, true> : matmul<F, false>)(weight, x, first_row, rows, out, out_stride,
                                                 scratch);
  }
}

void multiply(const ops::Weight& weight, const Activations& x, Form form, ops::Precision precision,
              std::int64_t first_row, std::int64_t rows, float* out, std::int64_t out_stride,
              void* scratch) {
  if (form == Form::values) {
    return multiply_floats_dispatch<Avx512>(weight, x, first_row, rows, out, out_stride);
  }
  visit_quantized(weight, [&](auto format) {
    multiply_planes<decltype(format)>(weight, x, precision, first_row, rows, out, out_stride,
                                      scratch);
  });
}

}  // namespace

const Kernels& vnni_kernels() {
  static const Kernels table = {
      .set = InstructionSet::avx512_vnni,
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
