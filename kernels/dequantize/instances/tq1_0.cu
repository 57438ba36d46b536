#include "dequantize/dequantize_kernel.cuh"

namespace quantloom::kernels {
QUANTLOOM_DEQUANTIZE_INSTANCE(, TQ1_0)
}  // namespace quantloom::kernels
