#include "dequantize/dequantize_kernel.cuh"

namespace quantloom::kernels {
QUANTLOOM_DEQUANTIZE_INSTANCE(, IQ3_S)
}  // namespace quantloom::kernels
