#include "matmul/instance.cuh"

QL_MATMUL_INSTANCE(MXFP4)
