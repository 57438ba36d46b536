#include "raw_matmul/float_tiles.cuh"

namespace quantloom::kernels {

QL_FLOAT_MATMUL_INSTANCE(F32)
QL_FLOAT_MATMUL_INSTANCE(F16)
QL_FLOAT_MATMUL_INSTANCE(BF16)

}  // namespace quantloom::kernels
