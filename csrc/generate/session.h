// One sequence on one model: its KV cache, and the loop that generates.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <thread>
#include <variant>
#include <vector>

#include "base/process_lock.h"
#include "generate/options.h"
#include "generate/pipeline.h"
#include "model/forward.h"
#include "model/model.h"

namespace quantloom::generate {

enum class FinishReason {
  none,       // still running, or ended by its caller
  stop,       // a stop token
  length,     // max_new_tokens, or the context is full
  cancelled,  // cancel()
};

struct Timings {
  std::int64_t prompt_tokens = 0;
  std::int64_t reused_tokens = 0;  // of the prompt, found in the cache
  std::int64_t new_tokens = 0;
  double prefill_seconds = 0;        // until the first token was there
  double decode_seconds = 0;         // from the first token to the last
  std::int64_t drafted_tokens = 0;   // guessed and checked, where the generation speculates
  std::int64_t accepted_tokens = 0;  // of those, right
};

// What became of a generation.
struct Outcome {
  FinishReason reason = FinishReason::none;
  Timings timings;
};

// Not for several threads: while one is inside a call, or a generation is open, others get
// Error(busy). cancel(), end() and close() may be called from any thread. After close():
// Error(closed).
class Session {
 public:
  // `checkpoint` arguments below are called at least once a token and once a layer of a prompt, and
  // may throw to stop; the session then stands as after the last whole pass.
  using Checkpoint = model::Checkpoint;
  // Receives logits [rows, vocabulary] of positions first_row, first_row + 1, ...
  using LogitsSink =
      std::function<void(std::int64_t first_row, std::int64_t rows, const float* logits)>;

  explicit Session(std::shared_ptr<const model::Model> model,
                   std::optional<std::int64_t> prefill_chunk = std::nullopt);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // Opens a generation after `prompt`, which is the whole sequence: what the cache holds of it
  // already is reused. Nothing is computed yet. `generation` is a number above 0 of the caller's
  // choice, used once: whatever stops the caller before this has returned, it can end what it
  // began. Errors: invalid_argument (an option, a token id, an empty prompt); context_full when the
  // prompt is longer than the context; busy while another generation is open; io when the file that
  // the CPU's weights are mapped from has changed.
  void begin(std::uint64_t generation, std::span<const std::int64_t> prompt,
             GenerateOptions options);

  // The next token, or the outcome when the generation has ended: with it, since another thread may
  // begin the next one at once; nothing where one has begun since. Errors: numerics naming the position when logits are not finite
  // (the sequence is dropped), device, out_of_memory; any error ends the generation and leaves the
  // session usable.
  std::variant<ops::Choice, std::optional<Outcome>> next(std::uint64_t generation,
                                                         const Checkpoint& checkpoint);

  // Ends a generation early, or only says how one ended; nothing where another thread has begun
  // another one since, or computes something else. A call in another thread that computes it stops at its next token or
  // layer, which is waited for. From within that call itself (a checkpoint) it is only cancelled,
  // and in a child of fork() nothing runs that could be ended: nothing is said of it then.
  std::optional<Outcome> end(std::uint64_t generation);

  // Runs `prompt` from an empty cache and gives the logits of every position. The sink is first
  // called with no rows, once the prompt is known to be good. Errors as in begin() and next().
  void logits(std::span<const std::int64_t> prompt, const LogitsSink& sink,
              const Checkpoint& checkpoint);

  // The open generation stops at its next token or layer; where a number is given, only that one.
  void cancel() { wanted_.store(0); }
  void cancel(std::uint64_t generation) { wanted_.compare_exchange_strong(generation, 0); }
  void reset();  // forgets the sequence
  void close();  // frees everything; a call under way ends at its next token or layer

  std::vector<std::int32_t> tokens();  // that the cache holds
  std::int64_t vocabulary() const { return vocabulary_; }
  bool closed() const { return closed_.load(); }

 private:
  class Use;          // holds the session for one call
  struct Device;      // what lies in device memory
  struct Generation;  // the open generation

  void require_none_open() const;
  std::vector<std::int32_t> checked(std::span<const std::int64_t> tokens) const;
  void write_history(std::span<const std::int32_t> tokens, std::size_t from);
  void hold(std::span<const std::int32_t> prompt, std::int64_t count);
  void run_chunk(std::int64_t position, std::int64_t count, const Checkpoint& checkpoint);
  void prefill(const Checkpoint& checkpoint);
  void schedule_step();
  void sample(const float* logits, std::int64_t count, int top_log_probabilities);
  std::int64_t launch_bound(std::int64_t positions) const;
  void advance();
  void verify(std::span<const std::int32_t> draft, std::int64_t position);
  bool may_schedule() const;
  bool cancelled() const { return wanted_.load() == 0; }
  ops::Choice take_choice();
  Outcome finish(FinishReason reason);

  std::shared_ptr<const model::Model> model_;
  std::int64_t capacity_;
  std::int64_t vocabulary_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<Generation> open_;
  std::vector<std::int32_t> cached_;          // tokens whose keys and values are in the cache
  std::int64_t prefilled_ = 0;                // of those, computed as parts of a prompt
  std::atomic<std::uint64_t> generation_{0};  // the open one's number; 0: none is open
  std::atomic<std::uint64_t> wanted_{0};      // the same until it is cancelled
  std::uint64_t latest_ = 0;                  // the latest one's number, open or not,
  Outcome outcome_;                           // and what has become of it so far
  std::atomic<bool> closed_{false};
  ProcessLock lock_;
  std::atomic<bool> computing_{false};  // the call that holds lock_ is next() or logits()
  std::atomic<std::thread::id> user_{};
};

}  // namespace quantloom::generate
