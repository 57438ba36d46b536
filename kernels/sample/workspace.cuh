// What the sampler's kernels hand to each other.
#pragma once

#include <cstdint>

#include "ops/sampling.h"

namespace quantloom::kernels {

constexpr int adjust_blocks = 128;
constexpr int draw_blocks = 64;
constexpr int top_slots = ops::max_top_log_probabilities;
constexpr int no_token = 0x7fffffff;

// A key orders candidates: descending logit, ties by ascending id. 0 is no candidate.
using Key = unsigned long long;

__device__ inline Key make_key(float logit, int token) {
  const std::uint32_t bits = __float_as_uint(logit + 0.0f);  // -0 counts as 0
  const std::uint32_t order = (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
  return (static_cast<Key>(order) << 32) | (0xffffffffu - static_cast<std::uint32_t>(token));
}

__device__ inline int key_token(Key key) {
  return static_cast<int>(0xffffffffu - static_cast<std::uint32_t>(key));
}

__device__ inline float key_logit(Key key) {
  const std::uint32_t order = static_cast<std::uint32_t>(key >> 32);
  return __uint_as_float((order >> 31) != 0 ? order & 0x7fffffffu : ~order);
}

// One block's view of its slice of the vocabulary.
struct SlicePart {
  int not_finite;  // lowest id whose raw logit is NaN or infinite, or no_token
  Key best;        // of the adjusted logits; 0: every one is -inf
  Key raw_best;
  double raw_sum;  // of exp(raw - raw_best's logit)
  Key raw_top[top_slots];
};

struct DrawPart {
  double score;
  int token;  // -1: none
};

// Masses are integers of 2^-45, so that their sum is the same in any order. Candidates further than
// 31 below the highest have mass 0 there and cannot win the draw; they are left out.
constexpr double mass_unit = 35184372088832.0;
constexpr float candidate_range = 31.0f;

// How far a candidate lies below the highest, in steps of 1/16.
constexpr int bins = 512;
__device__ inline int bin_of(float highest, float logit) {
  const int bin = static_cast<int>((highest - logit) * 16.0f);
  return bin < bins ? bin : bins - 1;
}

struct SampleSpace {
  unsigned arrived;  // blocks that have finished; back to 0 after the last
  unsigned drawn;
  int candidates;
  int status;  // ops::ChoiceStatus
  Key best;    // of the adjusted logits, undivided
  float raw_highest;
  double raw_log_sum;
  Key raw_top[top_slots];
  // Kept: key >= cut, and where `typical`: |surprise - entropy| below typical_distance, or equal
  // and key >= typical_cut.
  Key cut;
  int typical;
  double log_mass;
  double entropy;
  double typical_distance;
  Key typical_cut;
  // Counts and masses of the candidates by bin; from them the last bin that steps 4 to 6 can keep.
  unsigned bin_counts[bins];
  unsigned long long bin_masses[bins];
  unsigned long long whole_mass;
  unsigned weighed;  // blocks that have finished; back to 0 after the last
  int last_bin;
  int near;  // candidates up to last_bin, in arrays of their own
  SlicePart slices[adjust_blocks];
  DrawPart draws[draw_blocks];
};

// After SampleSpace, [vocabulary] each.
struct SampleArrays {
  SampleSpace* space;
  Key* keys;
  unsigned long long* masses;
  Key* near_keys;
  unsigned long long* near_masses;
  float* adjusted;
};

constexpr std::int64_t space_bytes = (sizeof(SampleSpace) + 255) / 256 * 256;

inline SampleArrays sample_arrays(void* workspace, std::int64_t vocabulary) {
  char* base = static_cast<char*>(workspace);
  Key* keys = reinterpret_cast<Key*>(base + space_bytes);
  return {reinterpret_cast<SampleSpace*>(base),
          keys,
          keys + vocabulary,
          keys + 2 * vocabulary,
          keys + 3 * vocabulary,
          reinterpret_cast<float*>(keys + 4 * vocabulary)};
}

// |surprise - entropy| of a candidate, with surprise = -log of its share of the kept mass.
__device__ inline double typical_distance(float logit, float highest, double log_mass,
                                          double entropy) {
  const double surprise = log_mass - (static_cast<double>(logit) - static_cast<double>(highest));
  return fabs(surprise - entropy);
}

// Writes the choice and moves the sequence on; one thread.
__device__ inline void finish(const ops::Sample& a, const SampleSpace& space,
                              ops::ChoiceStatus status, int token, int position) {
  ops::Choice& result = a.results[position % a.result_slots];
  result.status = status;
  result.token = token;
  result.position = position;
  if (status == ops::ChoiceStatus::chosen && a.top_log_probabilities >= 0) {
    const auto log_probability = [&](float logit) {
      return static_cast<float>(static_cast<double>(logit) -
                                static_cast<double>(space.raw_highest) - space.raw_log_sum);
    };
    result.log_probability = log_probability(a.logits[token]);
    for (int i = 0; i < a.top_log_probabilities && space.raw_top[i] != 0; ++i) {
      result.top_tokens[i] = key_token(space.raw_top[i]);
      result.top_log_probabilities[i] = log_probability(key_logit(space.raw_top[i]));
    }
  }
  a.history[position] = token;
  *a.token = token;
  *a.first = position;
}

}  // namespace quantloom::kernels
