#include "dequantize/dequantize_kernel.cuh"

namespace quantloom::kernels {
QUANTLOOM_DEQUANTIZE_INSTANCE(, Q4_0)
}  // namespace quantloom::kernels
