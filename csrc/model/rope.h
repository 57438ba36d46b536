// The table of cosines and sines that rotary position embedding reads.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/architecture.h"

namespace quantloom::model {

// [context, rope_dimensions / 2, 2]: cosine and sine of each pair's angle at each position, in
// float64 rounded once. `factors` [rope_dimensions / 2] divide the frequencies (llama-3's
// rope_freqs.weight); empty: none.
//
// Frequency of pair i: base^(-2i / dimensions) (Su et al. 2021, arXiv 2104.09864). Linear scaling
// divides it (Chen et al. 2023, arXiv 2306.15595). YaRN divides it fully where a pair turns fewer
// than beta_slow times over the original context, not at all where it turns more than beta_fast
// times, blends linearly in i between, and scales the result by 0.1 ln(factor) + 1 where the factor
// is above 1 (Peng et al. 2023, arXiv 2309.00071).
std::vector<float> rope_table(const Hyperparameters& h, std::span<const float> factors,
                              std::int64_t context);

}  // namespace quantloom::model
