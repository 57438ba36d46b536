// Threads whose start finds no memory: the work is done by those that there are.
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <new>

#include "base/thread_pool.h"
#include "check.h"
#include "formats/parallel.h"

namespace {

std::atomic<int> until_failure{
    -1};  // allocations that succeed before one fails; below 0: none does

// The allocation `passing` of the next ones fails, as long as this lives.
struct Failing {
  explicit Failing(int passing) { until_failure.store(passing); }
  ~Failing() { until_failure.store(-1); }
};

constexpr int most_allocations = 12;  // more than four threads take

}  // namespace

// Inlined, GCC 12 takes one of the pair for a mistake.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  if (until_failure.load() >= 0 && until_failure.fetch_sub(1) == 0) throw std::bad_alloc();
  if (void* memory = std::malloc(bytes != 0 ? bytes : 1)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

TEST(pool) {
  for (int passing = 0; passing < most_allocations; ++passing) {
    quantloom::set_thread_count(4 + passing % 2);  // another number: the pool is made anew
    std::atomic<int> done{0};
    bool refused = false;
    try {
      const Failing failing(passing);
      quantloom::parallel_for(8, [&](std::int64_t, int) { done.fetch_add(1); });
    } catch (const std::bad_alloc&) {  // not even the pool itself
      refused = true;
    }
    CHECK(done.load() == (refused ? 0 : 8));
    quantloom::parallel_for(8, [&](std::int64_t, int) { done.fetch_add(1); });
    CHECK(done.load() == (refused ? 8 : 16));
  }
}

TEST(ranges) {
  for (int passing = 0; passing < most_allocations; ++passing) {
    std::atomic<std::int64_t> done{0};
    bool refused = false;
    try {
      const Failing failing(passing);
      quantloom::formats::parallel_ranges(
          100, 1, 4, [&](std::int64_t begin, std::int64_t end) { done.fetch_add(end - begin); });
    } catch (const std::bad_alloc&) {
      refused = true;
    }
    CHECK(done.load() == (refused ? 0 : 100));
  }
}

int main() { return quantloom::check::run_all(); }
