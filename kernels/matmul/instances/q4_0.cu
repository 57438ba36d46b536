#include "matmul/instance.cuh"

QL_MATMUL_INSTANCE(Q4_0)
