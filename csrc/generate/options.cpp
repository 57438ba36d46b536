#include "generate/options.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <limits>
#include <set>
#include <string>

#include "base/error.h"

namespace quantloom::generate {
namespace {

constexpr std::int64_t int32_limit = std::numeric_limits<std::int32_t>::max();
constexpr double infinity = std::numeric_limits<double>::infinity();

struct RealRange {
  const char* name;
  double SamplerOptions::* field;
  double low;
  double high;
  bool low_allowed;
};

using S = SamplerOptions;

constexpr std::array real_ranges{
    RealRange{"temperature", &S::temperature, 0, 100, true},
    RealRange{"top_p", &S::top_p, 0, 1, false},
    RealRange{"min_p", &S::min_p, 0, 1, true},
    RealRange{"typical_p", &S::typical_p, 0, 1, false},
    RealRange{"repetition_penalty", &S::repetition_penalty, 0.01, 100, true},
    RealRange{"frequency_penalty", &S::frequency_penalty, -100, 100, true},
    RealRange{"presence_penalty", &S::presence_penalty, -100, 100, true},
};

std::string text(double value) {
  char characters[32];
  std::snprintf(characters, sizeof characters, "%g", value);
  return characters;
}

[[noreturn]] void fail(const std::string& name, const std::string& value,
                       const std::string& range) {
  throw Error(ErrorKind::invalid_argument, name + " is " + value + ", outside " + range, name);
}

void check_integer(const char* name, std::int64_t value, std::int64_t low, std::int64_t high) {
  if (value >= low and value <= high) return;
  fail(name, std::to_string(value), std::to_string(low) + " to " + std::to_string(high));
}

// Drafts are checked by the raw logits' two highest, which say nothing of a distribution that was
// drawn from or changed.
void check_speculation(const SamplerOptions& s) {
  const char* hindrance = s.temperature != 0          ? "temperature"
                          : s.repetition_penalty != 1 ? "repetition_penalty"
                          : s.frequency_penalty != 0  ? "frequency_penalty"
                          : s.presence_penalty != 0   ? "presence_penalty"
                          : not s.logit_bias.empty()  ? "logit_bias"
                          : s.log_probabilities >= 0  ? "logprobs"
                                                      : nullptr;
  if (hindrance == nullptr) return;
  throw Error(
      ErrorKind::invalid_argument,
      std::string("speculate is for plain greedy generation; it does not go with ") + hindrance,
      "speculate");
}

}  // namespace

void validate(const GenerateOptions& options, std::int64_t vocabulary) {
  const SamplerOptions& s = options.sampler;
  for (const RealRange& range : real_ranges) {
    const double value = s.*range.field;
    const bool inside = range.low_allowed ? value >= range.low : value > range.low;
    if (inside and value <= range.high) continue;  // false for NaN
    fail(range.name, text(value),
         std::string(range.low_allowed ? "" : "above ") + text(range.low) + " to " +
             text(range.high));
  }
  // Smaller ones would overflow a float32 logit, and are greedy in all but name.
  if (s.temperature > 0 and s.temperature < 0.001) {
    fail("temperature", text(s.temperature), "0.001 to 100 (0 is greedy)");
  }
  check_integer("top_k", s.top_k, 0, int32_limit);
  check_integer("penalty_window", s.penalty_window, 0, int32_limit);
  check_integer("logprobs", s.log_probabilities, -1, ops::max_top_log_probabilities);
  check_integer("max_new_tokens", options.max_new_tokens, 0, int32_limit);
  if (options.speculate) check_speculation(s);
  std::set<std::int64_t> seen;
  for (const auto& [token, bias] : s.logit_bias) {
    check_integer("logit_bias token", token, 0, vocabulary - 1);
    if (not(bias == -infinity or (bias >= -1e6 and bias <= 1e6))) {
      fail("logit_bias", text(bias), "-1e6 to 1e6 (or -inf)");
    }
    if (not seen.insert(token).second) {
      throw Error(ErrorKind::invalid_argument,
                  "logit_bias names token " + std::to_string(token) + " twice", "logit_bias");
    }
  }
  for (const std::int32_t token : options.stop_tokens) {
    check_integer("stop_tokens", token, 0, vocabulary - 1);
  }
}

BiasLists bias_lists(const SamplerOptions& options) {
  auto biases = options.logit_bias;
  std::ranges::sort(biases);
  BiasLists lists;
  for (const auto& [token, bias] : biases) {
    lists.tokens.push_back(static_cast<std::int32_t>(token));
    lists.values.push_back(static_cast<float>(bias));
  }
  return lists;
}

ops::SamplerParameters to_parameters(const SamplerOptions& s, std::int64_t capacity) {
  const bool penalized =
      s.repetition_penalty != 1 or s.frequency_penalty != 0 or s.presence_penalty != 0;
  return {
      .seed = s.seed,
      .bias_count = static_cast<std::int32_t>(s.logit_bias.size()),
      .top_k = static_cast<std::int32_t>(s.top_k),
      .penalty_window =
          penalized ? static_cast<std::int32_t>(std::min(s.penalty_window, capacity)) : 0,
      .temperature = static_cast<float>(s.temperature),
      .top_p = static_cast<float>(s.top_p),
      .min_p = static_cast<float>(s.min_p),
      .typical_p = static_cast<float>(s.typical_p),
      .repetition_penalty = static_cast<float>(s.repetition_penalty),
      .frequency_penalty = static_cast<float>(s.frequency_penalty),
      .presence_penalty = static_cast<float>(s.presence_penalty),
  };
}

}  // namespace quantloom::generate
