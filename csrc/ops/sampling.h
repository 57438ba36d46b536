// How a token is chosen from logits, defined so that every device makes the same choice.
//
// With p = *first + count, the position of the token to choose, and l = the raw logits, in this
// order:
//   1. bias         l[i] += bias of i.
//   2. penalties    c = times i occurs in history[p - penalty_window, p). Where c > 0:
//                   l = l > 0 ? l / repetition : l * repetition
//                   (Keskar et al. 2019, arXiv 1909.05858),
//                   l -= c * frequency + presence (OpenAI API reference).
//   3. temperature  0: the highest l, ties to the lowest id; nothing below applies.
//                   Otherwise l /= temperature. From here the candidates stand in order of
//                   descending l, ties by ascending id; w = exp(l - highest l).
//   4. top_k        keeps the first k.
//   5. top_p        keeps the shortest run of first candidates with mass at least top_p of what was
//                   kept so far (Holtzman et al. 2020, arXiv 1904.09751).
//   6. min_p        keeps w >= min_p (Nguyen et al. 2024, arXiv 2407.01082).
//   7. typical_p    with the kept renormalized to probabilities q and H their entropy: sorted by
//                   |-log q - H|, ties by the order above, keeps the shortest run with mass at
//                   least typical_p (Meister et al. 2023, arXiv 2202.00666).
//   8. the draw     the highest l[i] + g[i], ties to the lowest id, with Gumbel noise
//                   g = -log(-log(u)), u = (word + 0.5) / 2^32, word = word i % 4 of Philox4x32-10
//                   with the seed as key and the counter (i / 4, p, 0, 0) (ops/philox.h). So the
//                   draw needs no order of summation, and is the same whatever was sampled before.
// Steps 1 to 3 are in float32, the masses and the draw in float64.
#pragma once

#include <cstdint>

namespace quantloom::ops {

inline constexpr int max_top_log_probabilities = 20;

// In device memory, so that a recorded step serves every request.
struct SamplerParameters {
  std::uint64_t seed = 0;
  const std::int32_t* bias_tokens = nullptr;  // [bias_count], ascending, no id twice
  const float* bias_values = nullptr;         // [bias_count], finite or -inf
  std::int32_t bias_count = 0;
  std::int32_t top_k = 0;           // 0: off
  std::int32_t penalty_window = 0;  // last tokens that the penalties see
  float temperature = 0;            // 0: greedy
  float top_p = 1;                  // 1: off
  float min_p = 0;                  // 0: off
  float typical_p = 1;              // 1: off
  float repetition_penalty = 1;     // 1: off
  float frequency_penalty = 0;
  float presence_penalty = 0;
};

enum class ChoiceStatus : std::int32_t {
  chosen,
  not_finite,  // a raw logit is NaN or infinite (`token` is the lowest such id), or the highest is
               // after step 3
  none_left,   // every candidate has a bias of -inf
};

struct Choice {
  ChoiceStatus status = ChoiceStatus::chosen;
  std::int32_t token = 0;
  std::int32_t position = 0;
  // Of the raw logits' softmax, before steps 1 to 8. The top ones in descending order, ties by
  // ascending id.
  float log_probability = 0;
  std::int32_t top_tokens[max_top_log_probabilities] = {};
  float top_log_probabilities[max_top_log_probabilities] = {};
};

// Chooses one token and moves the sequence on: *first += count, *token = history[p] = the token
// chosen, results[p % result_slots] = the choice.
struct Sample {
  const float* logits = nullptr;  // [vocabulary], raw
  std::int64_t vocabulary = 0;
  const SamplerParameters* parameters = nullptr;
  // Known to the host, to choose kernels: whether temperature is 0, and how many top
  // log-probabilities are wanted (-1: none, not the chosen token's either).
  bool greedy = true;
  int top_log_probabilities = -1;
  std::int32_t* first = nullptr;
  std::int64_t count = 0;
  std::int32_t* history = nullptr;  // [capacity + 1], tokens by position
  std::int32_t* token = nullptr;    // where the next step reads it
  Choice* results = nullptr;        // [result_slots], from allocate_shared
  std::int32_t result_slots = 0;
};

}  // namespace quantloom::ops
