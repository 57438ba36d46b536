#include "dequantize/dequantize_kernel.cuh"

namespace quantloom::kernels {
QUANTLOOM_DEQUANTIZE_INSTANCE(, Q8_0)
}  // namespace quantloom::kernels
