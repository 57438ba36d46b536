// Splits independent work over threads that live for one call. For long work such as decoding or
// encoding a whole tensor; a thread costs some 20 us to start.
#pragma once

#include <algorithm>
#include <cstdint>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

namespace quantloom::formats {

// Calls fn(begin, end) over ranges that cover 0 .. count - 1, each a multiple of `step` long but
// the last, on at most `threads` threads, at least 1. fn must not throw. Where there is no room for
// a thread, the calling thread does that thread's part.
template <class Function>
void parallel_ranges(std::int64_t count, std::int64_t step, int threads, const Function& fn) {
  const std::int64_t steps = (count + step - 1) / step;
  const std::int64_t parts = std::clamp<std::int64_t>(steps, 1, threads);
  const auto bound = [=](std::int64_t part) {
    return std::min(count, steps * part / parts * step);
  };
  std::vector<std::thread> workers;
  workers.reserve(static_cast<std::size_t>(parts - 1));
  for (std::int64_t part = 1; part < parts; ++part) {
    const std::int64_t begin = bound(part);
    const std::int64_t end = bound(part + 1);
    bool started = false;
    try {
      workers.emplace_back([&fn, begin, end] { fn(begin, end); });
      started = true;
    } catch (const std::system_error&) {
    } catch (const std::bad_alloc&) {
    }
    if (!started) fn(begin, end);
  }
  fn(std::int64_t{0}, bound(1));
  for (std::thread& worker : workers) worker.join();
}

}  // namespace quantloom::formats
