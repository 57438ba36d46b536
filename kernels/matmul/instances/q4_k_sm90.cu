#include "matmul/wide_sm90.cuh"

QL_WIDE_INSTANCE(Q4_K)
