#include "dequantize/dequantize_kernel.cuh"

namespace quantloom::kernels {
QUANTLOOM_DEQUANTIZE_INSTANCE(, Q5_1)
}  // namespace quantloom::kernels
