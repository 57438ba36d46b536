#include "matmul/instance.cuh"

QL_MATMUL_INSTANCE(Q3_K)
