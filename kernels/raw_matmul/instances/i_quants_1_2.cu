#include "raw_matmul/raw_matmul_kernel.cuh"

namespace quantloom::kernels {

QL_RAW_MATMUL_INSTANCE(IQ1_S)
QL_RAW_MATMUL_INSTANCE(IQ1_M)
QL_RAW_MATMUL_INSTANCE(IQ2_XXS)
QL_RAW_MATMUL_INSTANCE(IQ2_XS)
QL_RAW_MATMUL_INSTANCE(IQ2_S)

}  // namespace quantloom::kernels
