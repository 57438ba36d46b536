// Waiting for marks that come one after another at a steady pace, as those of decoded tokens do.
#pragma once

#include <chrono>

#include "device/runtime.h"

namespace quantloom::cuda {

// Sleeps while the next mark is not due, then looks often: an event that wakes its sleeper did so
// 0.8 ms late in a virtual machine (99th of a hundred tokens), and spinning takes a whole core.
class Pace {
 public:
  // Returns when `mark` has come. Errors: device.
  void wait(const device::Event& mark);

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point last_{};  // when the mark before came
  Clock::duration period_{};  // between two marks; 0: not known
  bool was_early_ = false;    // the mark before came while the thread slept
};

}  // namespace quantloom::cuda
