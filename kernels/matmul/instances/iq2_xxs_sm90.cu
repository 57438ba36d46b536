#include "matmul/wide_sm90.cuh"

QL_WIDE_INSTANCE(IQ2_XXS)
