// The interface between the dispatcher and the Hopper kernels for many tokens (wide_sm90.cuh).
#pragma once

#include <cuda_fp16.h>

#include "matmul/matmul.h"
#include "matmul/strips.cuh"

namespace quantloom::kernels {

constexpr int wide_rows = 128;  // of the weights per block: eight strips

struct WidePlan {
  int tile_tokens = 0;  // 64 or 128
  int splits = 1;       // of the columns
  int padded_tokens = 0;
  std::size_t arrivals = 0, scales = 0, x = 0, sums = 0, bytes = 0;  // offsets into the workspace
};

constexpr int wide_most_tiles = 32768;  // that can be summed over splits

WidePlan wide_plan(int tokens, int columns, int strips, int processors);

// x as the B operand: [columns / 64][8 cores][padded tokens][8 halves], scaled per token by a power of two whose
// inverse goes to scales. Within a group of 32, core 2s + h holds columns 8t + 4s + 2h + {0, 1} for t = 0 .. 3: the
// order in which a lane's eight neighbours of planes.h become two steps of 16.
MatmulStatus prepare_image(const float* x, int columns, int tokens, int padded_tokens,
                           __half* image, float* scales, bool overlap, cudaStream_t stream);

using WideLaunch = MatmulStatus (*)(const StripList&, int strips, const WidePlan&, void* workspace,
                                    cudaStream_t);

template <class F>
WideLaunch wide_kernel();

}  // namespace quantloom::kernels
