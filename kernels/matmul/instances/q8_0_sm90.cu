#include "matmul/wide_sm90.cuh"

QL_WIDE_INSTANCE(Q8_0)
