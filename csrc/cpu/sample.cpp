#include "cpu/sample.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <unordered_map>
#include <vector>

#include "ops/philox.h"

namespace quantloom::cpu {
namespace {

using ops::Choice;
using ops::ChoiceStatus;
using ops::Sample;
using ops::SamplerParameters;

struct Candidate {
  std::int32_t token;
  float logit;
};

// Descending logit, ties by ascending id.
bool before(const Candidate& a, const Candidate& b) {
  return a.logit > b.logit or (a.logit == b.logit and a.token < b.token);
}

// Sorts the first `count` candidates into place.
void sort_first(std::vector<Candidate>& candidates, std::size_t count) {
  if (count < candidates.size()) {
    const auto middle = candidates.begin() + static_cast<std::ptrdiff_t>(count);
    std::nth_element(candidates.begin(), middle, candidates.end(), before);
    std::sort(candidates.begin(), middle, before);
  } else {
    std::sort(candidates.begin(), candidates.end(), before);
  }
}

void add_log_probabilities(const Sample& arguments, Choice& choice) {
  const float* logits = arguments.logits;
  const auto count = static_cast<std::size_t>(arguments.vocabulary);
  const float highest = *std::max_element(logits, logits + count);
  double sum = 0;
  for (std::size_t i = 0; i < count; ++i) {
    sum += std::exp(static_cast<double>(logits[i]) - highest);
  }
  const double log_sum = std::log(sum);
  const auto log_probability = [&](std::int32_t token) {
    return static_cast<float>(static_cast<double>(logits[token]) - highest - log_sum);
  };
  choice.log_probability = log_probability(choice.token);
  const auto top = std::min(static_cast<std::size_t>(arguments.top_log_probabilities), count);
  if (top == 0) return;
  std::vector<Candidate> candidates(count);
  for (std::size_t i = 0; i < count; ++i) candidates[i] = {static_cast<std::int32_t>(i), logits[i]};
  sort_first(candidates, top);
  for (std::size_t i = 0; i < top; ++i) {
    choice.top_tokens[i] = candidates[i].token;
    choice.top_log_probabilities[i] = log_probability(candidates[i].token);
  }
}

// Steps 1 and 2: the candidates with bias and penalties, those of bias -inf left out.
std::vector<Candidate> adjusted(const Sample& arguments, std::int32_t position) {
  const SamplerParameters& p = *arguments.parameters;
  std::vector<Candidate> candidates(static_cast<std::size_t>(arguments.vocabulary));
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    candidates[i] = {static_cast<std::int32_t>(i), arguments.logits[i]};
  }
  for (std::int32_t i = 0; i < p.bias_count; ++i) {
    candidates[static_cast<std::size_t>(p.bias_tokens[i])].logit += p.bias_values[i];
  }
  std::unordered_map<std::int32_t, std::int32_t> counts;
  for (std::int32_t at = std::max(0, position - p.penalty_window); at < position; ++at) {
    ++counts[arguments.history[at]];
  }
  for (const auto& [token, times] : counts) {
    float& logit = candidates[static_cast<std::size_t>(token)].logit;
    logit = logit > 0 ? logit / p.repetition_penalty : logit * p.repetition_penalty;
    logit -= static_cast<float>(times) * p.frequency_penalty + p.presence_penalty;
  }
  std::erase_if(candidates, [](const Candidate& candidate) {
    return candidate.logit == -std::numeric_limits<float>::infinity();
  });
  return candidates;
}

// exp(logit - highest) of every candidate, in their order.
std::vector<double> masses(const std::vector<Candidate>& candidates, float highest) {
  std::vector<double> result;
  result.reserve(candidates.size());
  for (const Candidate& candidate : candidates) {
    result.push_back(std::exp(static_cast<double>(candidate.logit) - highest));
  }
  return result;
}

// Step 5. Sorts only as far as the kept run reaches.
void keep_top_p(std::vector<Candidate>& candidates, float highest, float top_p) {
  const std::vector<double> all = masses(candidates, highest);
  const double wanted = static_cast<double>(top_p) * std::accumulate(all.begin(), all.end(), 0.0);
  for (std::size_t count = 64;; count *= 4) {
    count = std::min(count, candidates.size());
    sort_first(candidates, count);
    double mass = 0;
    for (std::size_t i = 0; i < count; ++i) {
      mass += std::exp(static_cast<double>(candidates[i].logit) - highest);
      if (mass >= wanted) {
        candidates.resize(i + 1);
        return;
      }
    }
    if (count == candidates.size()) return;
  }
}

// Step 7.
void keep_typical(std::vector<Candidate>& candidates, float highest, float typical_p) {
  std::sort(candidates.begin(), candidates.end(), before);
  const std::vector<double> weights = masses(candidates, highest);
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  std::vector<double> surprise(weights.size());
  double entropy = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    surprise[i] = std::log(sum) - (static_cast<double>(candidates[i].logit) - highest);
    entropy += weights[i] / sum * surprise[i];
  }
  std::vector<std::size_t> order(weights.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return std::abs(surprise[a] - entropy) < std::abs(surprise[b] - entropy);
  });
  std::vector<Candidate> kept;
  double mass = 0;
  for (const std::size_t i : order) {
    kept.push_back(candidates[i]);
    mass += weights[i];
    if (mass >= static_cast<double>(typical_p) * sum) break;
  }
  candidates = std::move(kept);
}

double gumbel(std::uint64_t seed, std::int32_t token, std::int32_t position) {
  const auto id = static_cast<std::uint32_t>(token);
  const auto words = ops::philox(seed, {id / 4, static_cast<std::uint32_t>(position), 0, 0});
  const double uniform = (static_cast<double>(words[id % 4]) + 0.5) / 4294967296.0;
  return -std::log(-std::log(uniform));
}

// Step 8. Noise lies between -3.2 and 22.9, so a candidate further than 27 below the highest logit
// cannot win and draws none.
std::int32_t draw(const std::vector<Candidate>& candidates, float highest, std::uint64_t seed,
                  std::int32_t position) {
  std::int32_t best = -1;
  double best_score = 0;
  for (const Candidate& candidate : candidates) {
    if (candidate.logit < highest - 27) continue;
    const double score =
        static_cast<double>(candidate.logit) + gumbel(seed, candidate.token, position);
    if (best < 0 or score > best_score or (score == best_score and candidate.token < best)) {
      best = candidate.token;
      best_score = score;
    }
  }
  return best;
}

// Steps 3 to 8.
std::int32_t filter_and_draw(const SamplerParameters& p, std::vector<Candidate> candidates,
                             const Candidate& best, std::int32_t position) {
  if (p.temperature == 0) return best.token;
  for (Candidate& candidate : candidates) candidate.logit /= p.temperature;
  const float highest = best.logit / p.temperature;
  const auto top_k = static_cast<std::size_t>(p.top_k);
  if (top_k > 0 and top_k < candidates.size()) {
    sort_first(candidates, top_k);
    candidates.resize(top_k);
  }
  if (p.top_p < 1) keep_top_p(candidates, highest, p.top_p);
  if (p.min_p > 0) {
    std::erase_if(candidates, [&](const Candidate& candidate) {
      return std::exp(static_cast<double>(candidate.logit) - highest) < p.min_p;
    });
  }
  if (p.typical_p < 1) keep_typical(candidates, highest, p.typical_p);
  return draw(candidates, highest, p.seed, position);
}

Choice choose(const Sample& arguments, std::int32_t position) {
  Choice choice{.position = position};
  for (std::int64_t i = 0; i < arguments.vocabulary; ++i) {
    if (std::isfinite(arguments.logits[i])) continue;
    choice.status = ChoiceStatus::not_finite;
    choice.token = static_cast<std::int32_t>(i);
    return choice;
  }
  std::vector<Candidate> candidates = adjusted(arguments, position);
  if (candidates.empty()) {
    choice.status = ChoiceStatus::none_left;
    return choice;
  }
  const Candidate best = *std::min_element(candidates.begin(), candidates.end(), before);
  const float temperature = arguments.parameters->temperature;
  choice.token = best.token;
  if (not std::isfinite(temperature > 0 ? best.logit / temperature : best.logit)) {
    choice.status = ChoiceStatus::not_finite;
    return choice;
  }
  choice.token = filter_and_draw(*arguments.parameters, std::move(candidates), best, position);
  if (arguments.top_log_probabilities >= 0) add_log_probabilities(arguments, choice);
  return choice;
}

}  // namespace

void sample(const Sample& arguments) {
  const auto position = static_cast<std::int32_t>(*arguments.first + arguments.count);
  const Choice choice = choose(arguments, position);
  *arguments.first = position;
  *arguments.token = choice.token;
  arguments.history[position] = choice.token;
  arguments.results[position % arguments.result_slots] = choice;
}

}  // namespace quantloom::cpu
