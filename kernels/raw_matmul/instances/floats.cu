#include "raw_matmul/raw_matmul_kernel.cuh"

namespace quantloom::kernels {

QL_RAW_MATMUL_INSTANCE(F32)
QL_RAW_MATMUL_INSTANCE(F16)
QL_RAW_MATMUL_INSTANCE(BF16)

}  // namespace quantloom::kernels
