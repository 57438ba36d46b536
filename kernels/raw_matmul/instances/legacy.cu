#include "raw_matmul/raw_matmul_kernel.cuh"

namespace quantloom::kernels {

QL_RAW_MATMUL_INSTANCE(Q4_0)
QL_RAW_MATMUL_INSTANCE(Q4_1)
QL_RAW_MATMUL_INSTANCE(Q5_0)
QL_RAW_MATMUL_INSTANCE(Q5_1)
QL_RAW_MATMUL_INSTANCE(Q8_0)

}  // namespace quantloom::kernels
