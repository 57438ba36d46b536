// The kernels for AMX, over those for AVX-512 with VNNI.
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
#pragma clang attribute push(                                                                               \
    __attribute__((target(                                                                                  \
        "avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,amx-tile,amx-bf16"))), \
    apply_to = function)
#else
// GCC 12 takes the undefined operands of its own intrinsics for mistakes (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC push_options
#pragma GCC target( \
    "avx2,fma,f16c,bmi2,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,amx-tile,amx-bf16")
#endif

#include "cpu/attention.h"
#include "cpu/matmul_amx.h"
#include "cpu/multiply_plain.h"
#include "cpu/simd_avx512.h"
#include "cpu/unpack_avx512.h"
#include "cpu/unpack_grids_avx512.h"
#include "cpu/vector_ops.h"

namespace quantloom::cpu {
namespace {

// Below, the 16 tokens of a tile stay too empty to beat the vector units.
constexpr std::int64_t least_tokens = 12;

Form form(formats::Format format, std::int64_t tokens, ops::Precision precision) {
  // Two bfloat16 hold 16 of the 24 bits of a float32 weight.
  const bool whole = format == formats::Format::f32 && precision == ops::Precision::exact;
  if (tokens >= least_tokens && !whole) return Form::tiles;
  return vnni_kernels().form(format, tokens, precision);
}

bool prepare(Form form, ops::Precision precision, std::int64_t begin, std::int64_t end,
             const Activations& out) {
  if (form != Form::tiles) return vnni_kernels().prepare(form, precision, begin, end, out);
  return (precision == ops::Precision::exact ? prepare_tiles<true>
                                             : prepare_tiles<false>)(begin, end, out);
}

void multiply(const ops::Weight& weight, const Activations& x, Form form, ops::Precision precision,
              std::int64_t first_row, std::int64_t rows, float* out, std::int64_t out_stride,
              void* scratch) {
  if (form != Form::tiles) {
    return vnni_kernels().multiply(weight, x, form, precision, first_row, rows, out, out_stride,
                                   scratch);
  }
  formats::visit_format(
      weight.format,
      [&](auto format) {
        using F = decltype(format);
        (precision == ops::Precision::exact
             ? matmul_amx<F, true>
             : matmul_amx<F, false>)(weight, x, first_row, rows, out, out_stride, scratch);
      },
      [&] { fail_no_product(weight); });
}

}  // namespace

const Kernels& amx_kernels() {
  static const Kernels table = {
      .set = InstructionSet::amx,
      .form = form,
      .prepare = prepare,
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
