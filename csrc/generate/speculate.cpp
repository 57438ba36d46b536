// Speculative decoding (Leviathan et al. 2023, arXiv 2211.17192) with drafts by prompt lookup.
//
// One pass checks a whole draft. Its kernels are those for several tokens, which sum in another
// order than the step of one token, so that logits differ in their last bits: a choice is taken
// from a pass only where the two highest logits lie further apart than `clear_margin`. A closer one
// is left to the step of one token.
#include <algorithm>

#include "generate/session_parts.h"

namespace quantloom::generate {
namespace {

// Eight columns are what one tensor-core step multiplies.
constexpr std::int64_t most_drafted = 7;
static_assert(most_drafted < result_slots);

// Natural-log units.
constexpr float clear_margin = 0.05f;

constexpr std::uint64_t draft_key = std::uint64_t{1} << 63;

bool is_clear(const ops::Choice& choice) {
  return choice.status == ops::ChoiceStatus::chosen and
         choice.top_log_probabilities[0] - choice.top_log_probabilities[1] > clear_margin;
}

}  // namespace

// Decides one token or more, where there is room for one. All earlier ones have been taken.
void Session::advance() {
  Generation& g = *open_;
  if (not may_schedule()) return;
  const std::int64_t position = g.position(g.scheduled) - 1;  // of the token to feed
  const std::int64_t room =
      std::min({most_drafted, capacity_ - 1 - position, g.options.max_new_tokens - g.scheduled - 1,
                device_->pipeline.tokens() - 1});
  std::vector<std::int32_t> draft;
  if (not g.step_next and room > 0 and vocabulary_ > 1) {
    draft = g.ngrams->draft(static_cast<std::size_t>(room));
  }
  g.step_next = false;
  const std::int64_t before = g.scheduled;
  if (not draft.empty()) verify(draft, position);
  if (g.scheduled > before) return;
  g.step_next = false;
  schedule_step();
}

// Feeds the latest token, which stands at `position`, and its draft, and takes the choices up to
// the first that the draft had not or that is not clear.
void Session::verify(std::span<const std::int32_t> draft, std::int64_t position) {
  Generation& g = *open_;
  ops::Operations& operations = *device_->operations;
  const auto width = static_cast<std::size_t>(vocabulary_);
  if (device_->draft_memory == nullptr) {
    device_->draft_logits_memory =
        operations.allocate((most_drafted + 1) * width * sizeof(float), "logits of a draft");
    device_->draft_memory =
        operations.allocate((most_drafted + 1) * sizeof(std::int32_t), "a draft");
  }
  auto* fed = static_cast<std::int32_t*>(device_->draft_memory.get());
  auto* logits = static_cast<float*>(device_->draft_logits_memory.get());
  std::vector<std::int32_t> tokens{g.last_token};
  tokens.insert(tokens.end(), draft.begin(), draft.end());
  const auto count = static_cast<std::int64_t>(tokens.size());
  const std::int32_t state[] = {static_cast<std::int32_t>(position), g.last_token};
  operations.write(device_->first(), state, sizeof state);
  operations.write(fed, tokens.data(), tokens.size() * sizeof(std::int32_t));

  const std::int64_t bound = launch_bound(position + count);
  const std::uint64_t key =
      draft_key | static_cast<std::uint64_t>(bound) << 8 | static_cast<std::uint64_t>(count);
  operations.replay(key, [&] {
    device_->pipeline.run(fed, {.first = device_->first(), .count = count, .bound = bound}, {});
    device_->pipeline.head(0, count, logits);
    // Each moves the position on by one.
    for (std::int64_t row = 0; row < count; ++row) {
      sample(logits + static_cast<std::size_t>(row) * width, 1, 2);
    }
  });
  const std::uint64_t ticket = operations.mark();
  operations.wait(ticket);

  outcome_.timings.drafted_tokens += count - 1;
  std::int32_t latest = g.last_token;
  std::int64_t taken = 0;
  for (bool right = true; right and taken < count; ++taken) {
    const ops::Choice& choice = device_->results()[(position + 1 + taken) % result_slots];
    if (not is_clear(choice)) {
      g.step_next = true;
      break;
    }
    latest = choice.token;
    g.tickets[(g.scheduled + taken) % result_slots] = ticket;
    right = taken + 1 < count and choice.token == draft[static_cast<std::size_t>(taken)];
    if (right) ++outcome_.timings.accepted_tokens;
  }
  const std::int32_t next[] = {static_cast<std::int32_t>(position + taken), latest};
  operations.write(device_->first(), next, sizeof next);
  g.scheduled += taken;
}

}  // namespace quantloom::generate
