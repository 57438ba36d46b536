#include "cuda/pace.h"

#include <sys/prctl.h>

#include <algorithm>
#include <thread>

namespace quantloom::cuda {
namespace {

using Clock = std::chrono::steady_clock;

constexpr Clock::duration longest = std::chrono::milliseconds(10);  // that is slept by the clock

// The system may wake a thread later than asked by its timer slack, 50 us where nobody sets it.
void sleep_until(Clock::time_point when) {
  const int slack = prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0);
  if (slack > 0) prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
  std::this_thread::sleep_until(when);
  if (slack > 0) prctl(PR_SET_TIMERSLACK, slack, 0, 0, 0);
}

// How long before the mark to be awake: late wake-ups of a virtual machine weigh more on short
// periods, and two ninths of the thread's time are the most that may go into looking.
Clock::duration margin(Clock::duration period) {
  constexpr Clock::duration enough = std::chrono::microseconds(150);
  return std::max(period / 6, std::min(2 * period / 9, enough));
}

}  // namespace

void Pace::wait(const device::Event& mark) {
  const bool waits = not mark.done();
  if (waits and period_.count() > 0) {
    const auto due = last_ + period_ - margin(period_);
    if (Clock::now() < due) {
      sleep_until(due);
      if (mark.done()) {
        mark.synchronize();
        const auto now = Clock::now();
        const bool early = now - due < period_ / 8;  // or the thread was woken late
        if (early and was_early_) {                  // the pace has quickened: learnt anew
          last_ = now;
          period_ = {};
          was_early_ = false;
        } else {  // when the mark came is not known: as expected, or a little earlier
          last_ += period_;
          period_ -= period_ / 16;
          was_early_ = early;
        }
        return;
      }
    }
    const auto patience = Clock::now() + period_ / 3;
    while (not mark.done() and Clock::now() < patience) std::this_thread::yield();
  }
  mark.synchronize();
  const auto now = Clock::now();
  const auto gap = now - last_;
  if (waits and last_ != Clock::time_point{}) {
    was_early_ = false;
    // After a pause of the caller the gap tells nothing: the next one does. Where it is long, as
    // between a prompt's passes, being woken late costs little.
    const bool paused = period_.count() > 0 and gap > 4 * period_;
    period_ = paused or gap > longest                 ? Clock::duration{}
              : period_.count() == 0 or gap < period_ ? gap
                                                      : (7 * period_ + gap) / 8;
  }
  last_ = now;
}

}  // namespace quantloom::cuda
