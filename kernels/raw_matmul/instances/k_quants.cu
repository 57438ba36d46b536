#include "raw_matmul/raw_matmul_kernel.cuh"

namespace quantloom::kernels {

QL_RAW_MATMUL_INSTANCE(Q2_K)
QL_RAW_MATMUL_INSTANCE(Q3_K)
QL_RAW_MATMUL_INSTANCE(Q4_K)
QL_RAW_MATMUL_INSTANCE(Q5_K)
QL_RAW_MATMUL_INSTANCE(Q6_K)

}  // namespace quantloom::kernels
