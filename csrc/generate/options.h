// What a caller may ask of a generation, with the range of every number.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "ops/sampling.h"

namespace quantloom::generate {

// How a token is chosen (the definition is in ops/sampling.h).
struct SamplerOptions {
  double temperature = 0;            // 0: greedy; otherwise 0.001 to 100
  std::int64_t top_k = 0;            // 0: off, up to 2^31 - 1
  double top_p = 1;                  // above 0, to 1
  double min_p = 0;                  // 0 to 1
  double typical_p = 1;              // above 0, to 1
  double repetition_penalty = 1;     // 0.01 to 100
  double frequency_penalty = 0;      // -100 to 100
  double presence_penalty = 0;       // -100 to 100
  std::int64_t penalty_window = 64;  // last tokens the penalties see, 0 to 2^31 - 1
  std::uint64_t seed = 0;
  // (token, bias); a bias is -inf or lies in -1e6 to 1e6. No token twice.
  std::vector<std::pair<std::int64_t, double>> logit_bias;
  // Top log-probabilities wanted beside the chosen token's, 0 to 20; -1: none at all.
  std::int64_t log_probabilities = -1;
};

struct GenerateOptions {
  SamplerOptions sampler;
  std::int64_t max_new_tokens = 256;      // 0 to 2^31 - 1
  std::vector<std::int32_t> stop_tokens;  // end the generation and are not part of it
  bool speculate = false;                 // drafts by prompt lookup; greedy and nothing else
};

// Errors: invalid_argument naming the option and its range.
void validate(const GenerateOptions& options, std::int64_t vocabulary);

// The logit bias as the device reads it: ascending tokens, and the bias of each.
struct BiasLists {
  std::vector<std::int32_t> tokens;
  std::vector<float> values;
};
BiasLists bias_lists(const SamplerOptions& options);

// The numbers for the device; the bias pointers are the caller's to set. `capacity` caps the
// penalty window.
ops::SamplerParameters to_parameters(const SamplerOptions& options, std::int64_t capacity);

}  // namespace quantloom::generate
