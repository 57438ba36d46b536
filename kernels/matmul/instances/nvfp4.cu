#include "matmul/instance.cuh"

QL_MATMUL_INSTANCE(NVFP4)
