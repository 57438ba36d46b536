// The kernels that any machine runs.
#include "cpu/attention.h"
#include "cpu/kernels.h"
#include "cpu/multiply_plain.h"
#include "cpu/prepare.h"
#include "cpu/simd_plain.h"
#include "cpu/vector_ops.h"

namespace quantloom::cpu {
namespace {

Form form(formats::Format format, std::int64_t /*tokens*/, ops::Precision /*precision*/) {
  return is_float(format) ? Form::values : Form::words;
}

void multiply(const ops::Weight& weight, const Activations& x, Form form,
              ops::Precision /*precision*/, std::int64_t first_row, std::int64_t rows, float* out,
              std::int64_t out_stride, void* /*scratch*/) {
  if (form == Form::values) {
    return multiply_floats_dispatch<Plain>(weight, x, first_row, rows, out, out_stride);
  }
  visit_quantized(weight, [&](auto format) {
    multiply_plain<decltype(format)>(weight, x, first_row, rows, out, out_stride);
  });
}

}  // namespace

const Kernels& plain_kernels() {
  static const Kernels table = {
      .set = InstructionSet::plain,
      .form = form,
      .prepare = prepare_fixed<Plain>,
      .multiply = multiply,
      .rms_norm = rms_norm<Plain>,
      .rotate = rotate<Plain>,
      .store_cache_row = store_cache_row<Plain>,
      .attend = attend<Plain>,
      .activate = activate<Plain>,
      .add = add<Plain>,
      .scale = scale<Plain>,
      .soft_cap = soft_cap<Plain>,
  };
  return table;
}

}  // namespace quantloom::cpu
