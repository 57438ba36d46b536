#include "matmul/instance.cuh"

QL_MATMUL_INSTANCE(IQ1_M)
