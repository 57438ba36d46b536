#include "raw_matmul/raw_matmul_kernel.cuh"

namespace quantloom::kernels {

QL_RAW_MATMUL_INSTANCE(TQ1_0)
QL_RAW_MATMUL_INSTANCE(TQ2_0)
QL_RAW_MATMUL_INSTANCE(MXFP4)
QL_RAW_MATMUL_INSTANCE(NVFP4)

}  // namespace quantloom::kernels
