#include "matmul/instance.cuh"

QL_MATMUL_INSTANCE(TQ2_0)
