#include "cuda/pace.h"

#include <sys/prctl.h>

#include <algorithm>
#include <thread>

namespace quantloom::cuda {
namespace {

using Clock = std::chrono::steady_clock;

// The system may wake a thread later than asked by its timer slack, 50 us where nobody sets it.
void sleep_until(Clock::time_point when) {
  const int slack = prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0);
  if (slack > 0) prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
  std::this_thread::sleep_until(when);
  if (slack > 0) prctl(PR_SET_TIMERSLACK, slack, 0, 0, 0);
}

// How long before the mark to be awake: late wake-ups of a virtual machine weigh more on short
// periods, and a quarter of the thread's time is the most that may go into looking.
Clock::duration margin(Clock::duration period) {
  constexpr Clock::duration enough = std::chrono::microseconds(150);
  return std::max(period / 6, std::min(period / 4, enough));
}

}  // namespace

void Pace::wait(const device::Event& mark) {
  const bool waits = not mark.done();
  bool overslept = false;
  if (waits and period_.count() > 0) {
    const auto due = last_ + period_ - margin(period_);
    if (Clock::now() < due) {
      sleep_until(due);
      overslept = mark.done();
    }
    const auto patience = Clock::now() + period_ / 3;
    while (not mark.done() and Clock::now() < patience) std::this_thread::yield();
  }
  mark.synchronize();
  if (overslept) {
    // When it came is not known: as expected, or earlier where the pace has quickened.
    last_ += period_;
    period_ -= period_ / 16;
    return;
  }
  const auto now = Clock::now();
  const auto gap = now - last_;
  if (waits and last_ != Clock::time_point{}) {
    // After a pause of the caller the gap tells nothing: the next one does.
    const bool paused = period_.count() > 0 and gap > 4 * period_;
    period_ = paused                                  ? Clock::duration{}
              : period_.count() == 0 or gap < period_ ? gap
                                                      : (7 * period_ + gap) / 8;
  }
  last_ = now;
}

}  // namespace quantloom::cuda
