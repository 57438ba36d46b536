#include "matmul/instance.cuh"

QL_MATMUL_INSTANCE(Q2_K)
