#include "matmul/instance.cuh"

QL_MATMUL_INSTANCE(Q5_1)
