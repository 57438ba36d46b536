#include "matmul/instance.cuh"

QL_MATMUL_INSTANCE(IQ4_XS)
