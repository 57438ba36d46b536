// The work behind Tensor that has a CPU and a GPU side.
#pragma once

#include "device/tensor.h"

namespace quantloom::device {

// `to` = the elements of `from`, which is not blocks cut up, in C order, on the same device.
void copy_strided(const Tensor& from, void* to);

// `out` (f32, f16 or bf16, contiguous) = the values of `weights` (contiguous), on the same device.
void convert_weights(const Tensor& weights, const Tensor& out);

}  // namespace quantloom::device
