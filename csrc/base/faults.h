// A seam for tests: makes the n-th passing of a point fail. Off unless a test arms it.
#pragma once

#include <atomic>
#include <cstdint>

namespace quantloom::faults {

enum class Point { host_allocation, device_allocation, cuda_call };
inline constexpr int point_count = 3;

struct Counter {
  std::atomic<std::uint64_t> passed{0};
  std::atomic<std::uint64_t> fail_at{0};  // 0: never
};

inline Counter counters[point_count];

// Counts from now on; the n-th passing (1: the next) fails, once. n = 0 only counts.
inline void arm(Point point, std::uint64_t n) {
  Counter& counter = counters[static_cast<int>(point)];
  counter.fail_at.store(n);
  counter.passed.store(0);
}

inline std::uint64_t passed(Point point) { return counters[static_cast<int>(point)].passed.load(); }

// True when this passing must fail. The caller then acts as if the real call had failed.
inline bool fails(Point point) {
  Counter& counter = counters[static_cast<int>(point)];
  return counter.passed.fetch_add(1, std::memory_order_relaxed) + 1 ==
         counter.fail_at.load(std::memory_order_relaxed);
}

}  // namespace quantloom::faults
