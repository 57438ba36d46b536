// What a session is made of; for the files that implement it.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/error.h"
#include "generate/ngram.h"
#include "generate/session.h"

namespace quantloom::generate {

using Clock = std::chrono::steady_clock;

// Bounds of attention launches, so that a recorded step serves this many positions.
constexpr std::int64_t bound_step = 256;
constexpr std::int32_t result_slots = 16;

// The members' order matters: memory is freed before the operations that allocated it.
struct Session::Device {
  Device(const model::Model& model, std::int64_t capacity, std::int64_t chunk)
      : pipeline(model, capacity, chunk),
        operations(&pipeline.operations()),
        logits_memory(operations->allocate(
            static_cast<std::size_t>(model.hyperparameters().vocabulary) * sizeof(float),
            "logits")),
        // first, token, history
        state(operations->allocate(static_cast<std::size_t>(capacity + 3) * sizeof(std::int32_t),
                                   "tokens of a sequence")),
        parameters_memory(
            operations->allocate(sizeof(ops::SamplerParameters), "sampler parameters")),
        results_memory(
            operations->allocate_shared(result_slots * sizeof(ops::Choice), "sampled tokens")) {}

  Pipeline pipeline;
  ops::Operations* operations;  // of its last stage
  ops::Buffer logits_memory;
  ops::Buffer state;
  ops::Buffer parameters_memory;
  ops::Buffer bias_memory;
  ops::Buffer results_memory;
  ops::Buffer draft_memory;         // the token to feed and its draft
  ops::Buffer draft_logits_memory;  // one row for each

  // Nothing may run on memory that is about to go. A device that failed has nothing running.
  ~Device() {
    try {
      operations->synchronize();
    } catch (const std::exception&) {
    }
  }

  float* logits() const { return static_cast<float*>(logits_memory.get()); }
  std::int32_t* first() const { return static_cast<std::int32_t*>(state.get()); }
  std::int32_t* token() const { return first() + 1; }
  std::int32_t* history() const { return first() + 2; }
  ops::Choice* results() const { return static_cast<ops::Choice*>(results_memory.get()); }
  ops::SamplerParameters* parameters() const {
    return static_cast<ops::SamplerParameters*>(parameters_memory.get());
  }

  void write_parameters(const SamplerOptions& options, std::int64_t capacity) {
    ops::SamplerParameters host = to_parameters(options, capacity);
    const auto [tokens, values] = bias_lists(options);
    if (not tokens.empty()) {
      const std::size_t bytes = tokens.size() * sizeof(float);
      static_assert(sizeof(float) == sizeof(std::int32_t));
      bias_memory = operations->allocate(2 * bytes, "logit bias");
      auto* device_tokens = static_cast<std::int32_t*>(bias_memory.get());
      auto* device_values = reinterpret_cast<float*>(device_tokens + tokens.size());
      operations->write(device_tokens, tokens.data(), bytes);
      operations->write(device_values, values.data(), bytes);
      host.bias_tokens = device_tokens;
      host.bias_values = device_values;
    }
    operations->write(parameters(), &host, sizeof host);
  }
};

struct Session::Generation {
  std::vector<std::int32_t> prompt;
  GenerateOptions options;
  bool prefilled = false;
  std::int64_t scheduled = 0;  // tokens that were asked of the device
  std::int64_t taken = 0;      // of those, read by the host
  std::uint64_t tickets[result_slots] = {};
  std::int32_t last_token = 0;       // the latest taken
  std::optional<NgramIndex> ngrams;  // where drafts come from, if any; made with the prefill
  bool step_next = false;            // the next token is not to be drafted
  Clock::time_point first_token_time;

  bool greedy() const { return options.sampler.temperature == 0; }
  int wanted_log_probabilities() const {
    return static_cast<int>(options.sampler.log_probabilities);
  }
  std::int64_t position(std::int64_t index) const {  // of the index-th new token
    return static_cast<std::int64_t>(prompt.size()) + index;
  }
};

}  // namespace quantloom::generate
