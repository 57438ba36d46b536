#include "matmul/instance.cuh"

QL_MATMUL_INSTANCE(IQ2_XS)
