#include "generate/session.h"

#include <algorithm>
#include <mutex>

#include "base/error.h"
#include "base/large.h"
#include "generate/session_parts.h"

namespace quantloom::generate {
namespace {

// Steps that a GPU is given before the host reads the first one's token. The CPU gets one: what it
// computes past a stop is lost time.
constexpr std::int64_t steps_ahead_gpu = 4;
static_assert(result_slots > steps_ahead_gpu);
// Rows of logits that logits() holds at a time.
constexpr std::int64_t logits_rows = 32;

double seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

// Passes over a prompt, which a batch-invariant model computes in the same way whatever their size.
// Steps of one token have kernels of their own.
class PromptPasses {
 public:
  PromptPasses(Pipeline& pipeline, const model::Model& model)
      : pipeline_(model.options().batch_invariant ? &pipeline : nullptr) {
    if (pipeline_ != nullptr) pipeline_->set_batch_invariant(true);
  }
  ~PromptPasses() {
    if (pipeline_ != nullptr) pipeline_->set_batch_invariant(false);
  }
  PromptPasses(const PromptPasses&) = delete;
  PromptPasses& operator=(const PromptPasses&) = delete;

 private:
  Pipeline* pipeline_;
};

}  // namespace

// Holds the session for one call. A call that computes makes others fail with Error(busy); the
// others take microseconds, and are waited for.
class Session::Use {
 public:
  Use(Session& session, bool computes) : session_(session) {
    for (;;) {
      if (session.closed_.load()) throw Error(ErrorKind::closed, "this session is closed");
      if (session.lock_.try_lock()) break;
      if (session.lock_.inherited()) {
        throw Error(ErrorKind::busy,
                    "this session was in use by another thread when the process was forked; make a "
                    "new session in the child");
      }
      if (session.computing_.load()) {
        throw Error(
            ErrorKind::busy,
            "this session is in use by another call; a session serves one thread at a time");
      }
      std::this_thread::yield();
    }
    session.user_.store(std::this_thread::get_id());
    session.computing_.store(computes);
    if (session.closed_.load()) {
      release();
      throw Error(ErrorKind::closed, "this session is closed");
    }
  }
  ~Use() { release(); }
  Use(const Use&) = delete;
  Use& operator=(const Use&) = delete;

 private:
  void release() {
    session_.computing_.store(false);
    // After that: who sees that a generation has ended is not told that the session is busy.
    if (not session_.open_) session_.generation_.store(0);
    session_.user_.store({});
    session_.lock_.unlock();
  }

  Session& session_;
};

Session::Session(std::shared_ptr<const model::Model> model,
                 std::optional<std::int64_t> prefill_chunk)
    : model_(std::move(model)),
      capacity_(model_->context_length()),
      vocabulary_(model_->hyperparameters().vocabulary) {
  const std::int64_t chunk = prefill_chunk.value_or(
      std::min(model::default_pass_tokens(model_->options().device,
                                          model_->hyperparameters().embedding_length),
               capacity_));
  const std::int64_t most = model_->most_pass_tokens();
  if (chunk < 1 or chunk > most) {
    throw Error(
        ErrorKind::invalid_argument,
        "prefill_chunk is " + std::to_string(chunk) + ", outside 1 to " + std::to_string(most),
        "prefill_chunk", std::nullopt, static_cast<std::uint64_t>(most));
  }
  device_ = std::make_unique<Device>(*model_, capacity_, chunk);
}

Session::~Session() = default;

void Session::require_none_open() const {
  if (not open_) return;
  throw Error(ErrorKind::busy, "a generation is still open on this session; close it first");
}

std::vector<std::int32_t> Session::checked(std::span<const std::int64_t> tokens) const {
  if (tokens.empty()) {
    throw Error(ErrorKind::invalid_argument, "the prompt has no tokens", "prompt");
  }
  if (tokens.size() > static_cast<std::size_t>(capacity_)) {
    throw Error(ErrorKind::context_full,
                "the prompt has " + std::to_string(tokens.size()) +
                    " tokens, more than the context of " + std::to_string(capacity_),
                "prompt", std::nullopt, static_cast<std::uint64_t>(capacity_));
  }
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i] >= 0 and tokens[i] < vocabulary_) continue;
    throw Error(ErrorKind::invalid_argument,
                "token " + std::to_string(i) + " of the prompt is " + std::to_string(tokens[i]) +
                    ", outside 0 to " + std::to_string(vocabulary_ - 1),
                "prompt", std::nullopt, static_cast<std::uint64_t>(vocabulary_ - 1));
  }
  return {tokens.begin(), tokens.end()};
}

void Session::begin(std::uint64_t generation, std::span<const std::int64_t> prompt,
                    GenerateOptions options) {
  const Use use(*this, false);
  require_none_open();
  validate(options, vocabulary_);
  if (options.speculate and model_->options().batch_invariant) {
    throw Error(ErrorKind::invalid_argument,
                "speculate computes several tokens in one pass, whose last bits batch_invariant "
                "rules out",
                "speculate");
  }
  for (const model::Stage& stage : model_->stages()) {
    if (not options.speculate or stage.device.type == device::DeviceType::cpu) continue;
    // Measured on an H200: logits of a pass of 8 tokens differ by up to 0.04 from one-token passes,
    // and the keys and values they leave behind change what is chosen later.
    throw Error(ErrorKind::device,
                "speculate runs on the CPU only: on " + device::to_string(stage.device) +
                    " a pass of several tokens rounds otherwise than one-token steps, and the "
                    "tokens would not be those of plain greedy generation",
                "speculate");
  }
  auto made = std::make_unique<Generation>();
  made->prompt = checked(prompt);
  model_->require_unchanged();
  device_->write_parameters(options.sampler, capacity_);
  open_ = std::move(made);
  open_->options = std::move(options);
  latest_ = generation;
  outcome_ = {};
  outcome_.timings.prompt_tokens = static_cast<std::int64_t>(open_->prompt.size());
  wanted_.store(generation);
  generation_.store(generation);
}

void Session::write_history(std::span<const std::int32_t> tokens, std::size_t from) {
  device_->operations->write(device_->history() + from, tokens.data() + from,
                             (tokens.size() - from) * sizeof(std::int32_t));
}

// The cache holds the first `count` of a prompt's tokens, computed by passes.
void Session::hold(std::span<const std::int32_t> prompt, std::int64_t count) {
  cached_.assign(prompt.begin(), prompt.begin() + count);
  prefilled_ = count;
}

// Feeds history[position, position + count) to the layers.
void Session::run_chunk(std::int64_t position, std::int64_t count, const Checkpoint& checkpoint) {
  const auto first = static_cast<std::int32_t>(position);
  device_->operations->write(device_->first(), &first, sizeof first);
  device_->pipeline.run(device_->history() + position,
                        {.first = device_->first(), .count = count, .bound = position + count},
                        checkpoint);
}

void Session::prefill(const Checkpoint& checkpoint) {
  Generation& g = *open_;
  const PromptPasses passes(device_->pipeline, *model_);
  std::int64_t held = std::ranges::mismatch(g.prompt, cached_).in1 - g.prompt.begin();
  // What steps wrote to the cache differs in the last bits from what passes would.
  if (model_->options().batch_invariant) held = std::min(held, prefilled_);
  // The last token is always run: its logits are wanted.
  const std::int64_t length = outcome_.timings.prompt_tokens;
  std::int64_t position = std::min<std::int64_t>(held, length - 1);
  outcome_.timings.reused_tokens = position;
  hold(g.prompt, position);
  write_history(g.prompt, static_cast<std::size_t>(position));
  const auto stoppable = [&] {
    if (cancelled()) throw Error(ErrorKind::cancelled, "the generation was cancelled");
    if (checkpoint) checkpoint();
  };
  // One chunk waits behind the one that runs, so that a GPU never idles and a stop is never far.
  std::uint64_t ticket = device_->operations->mark();
  std::int64_t count = 0;
  for (; position < length; position += count) {
    count = std::min(device_->pipeline.tokens(), length - position);
    run_chunk(position, count, stoppable);
    hold(g.prompt, position + count);
    device_->operations->wait(ticket);
    ticket = device_->operations->mark();
  }
  device_->pipeline.head(count - 1, 1, device_->logits());
  sample(device_->logits(), count, g.wanted_log_probabilities());
  g.tickets[0] = device_->operations->mark();
  g.scheduled = 1;
  if (g.options.speculate) g.ngrams.emplace(g.prompt);
  g.prefilled = true;
}

void Session::sample(const float* logits, std::int64_t count, int top_log_probabilities) {
  device_->operations->sample({
      .logits = logits,
      .vocabulary = vocabulary_,
      .parameters = device_->parameters(),
      .greedy = open_->greedy(),
      .top_log_probabilities = top_log_probabilities,
      .first = device_->first(),
      .count = count,
      .history = device_->history(),
      .token = device_->token(),
      .results = device_->results(),
      .result_slots = result_slots,
  });
}

// What is launched for so many positions also serves the next few.
std::int64_t Session::launch_bound(std::int64_t positions) const {
  return std::min(capacity_, (positions + bound_step - 1) / bound_step * bound_step);
}

// A step feeds the token before it, which needs a place in the cache.
bool Session::may_schedule() const {
  const Generation& g = *open_;
  return g.scheduled < g.options.max_new_tokens and g.position(g.scheduled) <= capacity_;
}

void Session::schedule_step() {
  Generation& g = *open_;
  const std::int64_t fed = g.position(g.scheduled);  // tokens in the cache after this step
  const std::int64_t bound = launch_bound(fed);
  const std::uint64_t key = static_cast<std::uint64_t>(bound) << 8 |
                            (g.greedy() ? std::uint64_t{1} << 7 : 0) |
                            static_cast<std::uint64_t>(g.options.sampler.log_probabilities + 1);
  device_->operations->replay(key, [&] {
    device_->pipeline.run(device_->token(), {.first = device_->first(), .count = 1, .bound = bound},
                          {});
    device_->pipeline.head(0, 1, device_->logits());
    sample(device_->logits(), 1, g.wanted_log_probabilities());
  });
  g.tickets[g.scheduled % result_slots] = device_->operations->mark();
  ++g.scheduled;
}

// Waits for the oldest scheduled token.
ops::Choice Session::take_choice() {
  Generation& g = *open_;
  device_->operations->wait(g.tickets[g.taken % result_slots]);
  const std::int64_t position = g.position(g.taken);
  const ops::Choice choice = device_->results()[position % result_slots];
  const auto now = Clock::now();
  if (g.taken == 0) {
    g.first_token_time = now;
  } else {
    cached_.push_back(g.last_token);
  }
  ++g.taken;
  outcome_.timings.new_tokens = g.taken;
  outcome_.timings.decode_seconds = seconds(now - g.first_token_time);
  if (choice.status != ops::ChoiceStatus::chosen) {
    cached_.clear();
    throw Error(ErrorKind::numerics,
                choice.status == ops::ChoiceStatus::none_left
                    ? "the logit bias leaves no token to choose"
                    : "the logits at position " + std::to_string(position - 1) +
                          " are not finite (token " + std::to_string(choice.token) + ")",
                "logits");
  }
  return choice;
}

std::variant<ops::Choice, std::optional<Outcome>> Session::next(std::uint64_t generation,
                                                                const Checkpoint& checkpoint) {
  const Use use(*this, true);
  if (generation != latest_) return std::nullopt;
  if (not open_) return outcome_;
  Generation& g = *open_;
  try {
    if (cancelled()) throw Error(ErrorKind::cancelled, "the generation was cancelled");
    if (checkpoint) checkpoint();
    const auto start = Clock::now();
    if (g.options.max_new_tokens == 0) {
      return finish(FinishReason::length);
    }
    if (not g.prefilled) prefill(checkpoint);
    if (g.ngrams) {
      if (g.taken == g.scheduled) advance();
    } else {
      const std::int64_t ahead =
          device_->operations->device().type == device::DeviceType::cpu ? 1 : steps_ahead_gpu;
      while (g.scheduled - g.taken < ahead and may_schedule()) schedule_step();
    }
    if (g.taken == g.scheduled) {
      return finish(FinishReason::length);
    }
    const bool first = g.taken == 0;
    const ops::Choice choice = take_choice();
    if (first) outcome_.timings.prefill_seconds = seconds(Clock::now() - start);
    g.last_token = choice.token;
    if (g.ngrams) g.ngrams->append(choice.token);
    if (std::ranges::find(g.options.stop_tokens, choice.token) != g.options.stop_tokens.end()) {
      return finish(FinishReason::stop);
    }
    return choice;
  } catch (const Error& error) {
    const bool stopped = error.kind() == ErrorKind::cancelled and cancelled();
    finish(stopped ? FinishReason::cancelled : FinishReason::none);
    if (stopped) return outcome_;
    throw;
  } catch (...) {
    finish(FinishReason::none);
    throw;
  }
}

Outcome Session::finish(FinishReason reason) {
  const bool running = open_->scheduled > open_->taken;
  outcome_.reason = reason;
  open_.reset();
  if (not running) return outcome_;
  try {
    device_->operations->synchronize();
  } catch (const std::exception&) {  // nobody wants what ran ahead; the next use says what failed
  }
  return outcome_;
}

std::optional<Outcome> Session::end(std::uint64_t generation) {
  cancel(generation);
  if (user_.load() == std::this_thread::get_id()) return {};
  if (lock_.inherited()) return {};  // it runs in the parent process alone
  std::unique_lock lock(lock_, std::defer_lock);
  if (generation_.load() == generation) lock.lock();
  while (not lock and not lock.try_lock()) {
    // One that is over waits for no other's computing.
    if (computing_.load() or lock_.inherited()) return {};
    std::this_thread::yield();
  }
  if (latest_ != generation) return {};
  if (open_) finish(FinishReason::none);
  generation_.store(0);
  return outcome_;
}

void Session::logits(std::span<const std::int64_t> prompt, const LogitsSink& sink,
                     const Checkpoint& checkpoint) {
  const Use use(*this, true);
  require_none_open();
  const std::vector<std::int32_t> tokens = checked(prompt);
  model_->require_unchanged();
  const PromptPasses passes(device_->pipeline, *model_);
  cached_.clear();
  write_history(tokens, 0);
  sink(0, 0, nullptr);
  const auto length = static_cast<std::int64_t>(tokens.size());
  const auto width = static_cast<std::size_t>(vocabulary_);
  ops::Operations& operations = *device_->operations;
  const ops::Buffer memory = operations.allocate(
      static_cast<std::size_t>(std::min(logits_rows, length)) * width * sizeof(float), "logits");
  auto* device_logits = static_cast<float*>(memory.get());
  const std::size_t floats = static_cast<std::size_t>(std::min(logits_rows, length)) * width;
  auto host = with_room<float>(floats, "logits");
  host.resize(floats);
  const auto stoppable = [&] {
    if (closed_.load()) throw Error(ErrorKind::closed, "this session is closed");
    if (checkpoint) checkpoint();
  };
  std::int64_t count = 0;
  for (std::int64_t position = 0; position < length; position += count) {
    count = std::min(device_->pipeline.tokens(), length - position);
    run_chunk(position, count, stoppable);
    for (std::int64_t row = 0; row < count; row += logits_rows) {
      stoppable();
      const std::int64_t rows = std::min(logits_rows, count - row);
      device_->pipeline.head(row, rows, device_logits);
      operations.read(host.data(), device_logits,
                      static_cast<std::size_t>(rows) * width * sizeof(float));
      sink(position + row, rows, host.data());
    }
    hold(tokens, position + count);
  }
}

void Session::reset() {
  const Use use(*this, false);
  require_none_open();
  cached_.clear();
}

std::vector<std::int32_t> Session::tokens() {
  const Use use(*this, false);
  return cached_;
}

// A thread of the parent process was inside when this process was forked, and is not here.
void Session::close() {
  if (user_.load() == std::this_thread::get_id()) {
    throw Error(ErrorKind::busy, "a session cannot be closed from within its own call");
  }
  if (lock_.inherited()) {  // it will never be free here; the memory goes with the process
    closed_.store(true);
    return;
  }
  closed_.store(true);
  cancel();
  const std::lock_guard lock(lock_);
  open_.reset();
  generation_.store(0);
  device_.reset();
  model_.reset();
  cached_.clear();
}

}  // namespace quantloom::generate
