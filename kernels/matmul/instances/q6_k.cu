#include "matmul/instance.cuh"

QL_MATMUL_INSTANCE(Q6_K)
