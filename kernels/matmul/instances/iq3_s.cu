#include "matmul/instance.cuh"

QL_MATMUL_INSTANCE(IQ3_S)
