#include "matmul/instance.cuh"

QL_MATMUL_INSTANCE(Q8_0)
