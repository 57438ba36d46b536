// The sampler of ops/sampling.h on the GPU: the logits stay there and only the choice leaves.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "ops/sampling.h"

namespace quantloom::kernels {

inline constexpr std::int64_t largest_vocabulary = 262144;

// Device memory that sample() needs; zeroed before its first call, left ready for the next.
std::int64_t sample_workspace_bytes(std::int64_t vocabulary);

// Every pointer of `arguments` is device memory, or pinned host memory for `results`. Errors:
// cudaErrorInvalidValue for a vocabulary of 0 or above largest_vocabulary, and for more than
// ops::max_top_log_probabilities top_log_probabilities.
cudaError_t sample(const ops::Sample& arguments, void* workspace, cudaStream_t stream);

}  // namespace quantloom::kernels
