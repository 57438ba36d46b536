#include "matmul/instance.cuh"

QL_MATMUL_INSTANCE(TQ1_0)
