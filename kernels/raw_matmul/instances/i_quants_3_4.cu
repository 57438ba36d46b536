#include "raw_matmul/raw_matmul_kernel.cuh"

namespace quantloom::kernels {

QL_RAW_MATMUL_INSTANCE(IQ3_XXS)
QL_RAW_MATMUL_INSTANCE(IQ3_S)
QL_RAW_MATMUL_INSTANCE(IQ4_NL)
QL_RAW_MATMUL_INSTANCE(IQ4_XS)

}  // namespace quantloom::kernels
