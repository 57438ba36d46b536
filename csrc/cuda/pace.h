// Waiting for marks that come one after another at a steady pace, as those of decoded tokens do.
#pragma once

#include <algorithm>
#include <chrono>
#include <thread>

namespace quantloom::cuda {

// The thread that waits, and its clock. A template's argument, so that a test can have a virtual
// one at no cost here; nothing in this file needs CUDA.
struct HostThread {
  using Time = std::chrono::steady_clock::time_point;
  static Time now() { return std::chrono::steady_clock::now(); }
  static void sleep_until(Time when);
  static void yield() { std::this_thread::yield(); }
};

// Sleeps while the next mark is not due, then looks often: an event that wakes its sleeper did so
// 0.8 ms late in a virtual machine (99th of a hundred tokens), and spinning takes a whole core.
template <typename Thread = HostThread>
class Pace {
 public:
  explicit Pace(Thread thread = {}) : thread_(thread) {}

  // Returns when `mark` has come, such as a device::Event. Errors: the mark's.
  template <typename Mark>
  void wait(const Mark& mark);

 private:
  using Time = HostThread::Time;
  using Duration = Time::duration;

  // How long before the mark to be awake: late wake-ups of a virtual machine weigh more on short
  // periods, and two ninths of the thread's time are the most that may go into looking.
  static Duration margin(Duration period) {
    constexpr Duration enough = std::chrono::microseconds(150);
    return std::max(period / 6, std::min(2 * period / 9, enough));
  }

  static constexpr Duration longest = std::chrono::milliseconds(10);  // that is slept by the clock

  [[no_unique_address]] Thread thread_;
  Time last_{};             // when the mark before came, as far as known
  Duration period_{};       // between two marks; 0: not known
  bool was_early_ = false;  // the mark before came while the thread slept
  bool was_seen_ = false;   // or while it looked: last_ is exact
};

template <typename Thread>
template <typename Mark>
void Pace<Thread>::wait(const Mark& mark) {
  const bool waits = not mark.done();
  bool seen = false;
  if (waits and period_.count() > 0) {
    const auto due = last_ + period_ - margin(period_);
    if (thread_.now() < due) {
      thread_.sleep_until(due);
      if (mark.done()) {
        mark.synchronize();
        const auto now = thread_.now();
        const bool early = now - due < period_ / 8;  // or the thread was woken late
        if (early and was_early_) {                  // the pace has quickened: learnt anew
          last_ = now;
          period_ = {};
          was_early_ = false;
        } else {  // when the mark came is not known: as expected, or a little earlier
          last_ = std::min(last_ + period_, now);
          period_ -= period_ / 16;
          was_early_ = early;
        }
        was_seen_ = false;
        return;
      }
    }
    const auto patience = thread_.now() + period_ / 3;
    while (not(seen = mark.done()) and thread_.now() < patience) thread_.yield();
  }
  mark.synchronize();
  const auto now = thread_.now();
  const auto gap = now - last_;
  if (waits and last_ != Time{}) {
    was_early_ = false;
    // After a pause of the caller the gap tells nothing: the next one does. Where it is long, as
    // between a prompt's passes, being woken late costs little. A gap is too short by as much as
    // the mark before was seen late.
    const bool paused = period_.count() > 0 and gap > 4 * period_;
    period_ = paused or gap > longest                                 ? Duration{}
              : period_.count() == 0 or (gap < period_ and was_seen_) ? gap
                                                                      : (7 * period_ + gap) / 8;
  }
  last_ = now;
  was_seen_ = seen;
}

}  // namespace quantloom::cuda
