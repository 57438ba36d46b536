#include "base/thread_pool.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <climits>
#include <cstdio>
#include <exception>
#include <mutex>
#include <new>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "base/error.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace quantloom {
namespace {

// Long enough to bridge the gaps between the operations of a decode step (about 10 us), short
// enough to leave a shared machine alone.
constexpr int spin_rounds = 2000;

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

thread_local bool inside_task = false;

class ThreadPool {
 public:
  explicit ThreadPool(int threads) {
    workers_.reserve(static_cast<std::size_t>(threads - 1));
    for (int i = 1; i < threads; ++i) {
      // Fewer threads than asked for compute the same; those that run must not be let go of.
      try {
        workers_.emplace_back([this, i] { work(i); });
      } catch (const std::system_error&) {
        break;
      } catch (const std::bad_alloc&) {
        break;
      }
    }
  }

  ~ThreadPool() {
    stopping_.store(true);
    epoch_.fetch_add(1);
    epoch_.notify_all();
    for (std::thread& worker : workers_) worker.join();
  }

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  void run(std::int64_t items, TaskReference task, int threads) {
    task_ = &task;
    limit_ = threads;
    items_ = items;
    next_.store(0, std::memory_order_relaxed);
    inside_.fetch_and(~closed, std::memory_order_release);
    epoch_.fetch_add(1);
    if (sleepers_.load() != 0) epoch_.notify_all();

    take_items(0);

    // A worker that wakes from here on sees the gate closed and never touches the task.
    inside_.fetch_or(closed, std::memory_order_acq_rel);
    for (int round = 0;; ++round) {
      const std::uint32_t inside = inside_.load(std::memory_order_acquire);
      if (inside == closed) break;
      if (round < spin_rounds) {
        pause();
      } else {
        inside_.wait(inside, std::memory_order_acquire);
      }
    }
    if (failed_.exchange(false)) {
      std::exception_ptr failure;
      std::swap(failure, failure_);
      std::rethrow_exception(failure);
    }
  }

 private:
  static constexpr std::uint32_t closed = 1u << 31;

  void take_items(int thread) {
    inside_task = true;
    const TaskReference task = *task_;
    const std::int64_t items = items_;
    for (;;) {
      const std::int64_t item = next_.fetch_add(1, std::memory_order_relaxed);
      if (item >= items) break;
      try {
        task(item, thread);
      } catch (...) {
        next_.store(items, std::memory_order_relaxed);
        const std::lock_guard lock(failure_mutex_);
        if (!failed_.load()) {
          failure_ = std::current_exception();
          failed_.store(true);
        }
      }
    }
    inside_task = false;
  }

  void work(int thread) {
    std::uint32_t seen = 0;
    for (;;) {
      for (int round = 0; epoch_.load(std::memory_order_acquire) == seen; ++round) {
        if (round < spin_rounds) {
          pause();
        } else {
          sleepers_.fetch_add(1);
          epoch_.wait(seen);
          sleepers_.fetch_sub(1);
        }
      }
      seen = epoch_.load(std::memory_order_acquire);
      if (stopping_.load()) return;
      if ((inside_.fetch_add(1, std::memory_order_acq_rel) & closed) == 0 && thread < limit_) {
        take_items(thread);
      }
      if (inside_.fetch_sub(1, std::memory_order_acq_rel) - 1 == closed) inside_.notify_all();
    }
  }

  std::vector<std::thread> workers_;
  std::atomic<bool> stopping_{false};
  std::atomic<int> sleepers_{0};
  alignas(64) std::atomic<std::uint32_t> epoch_{0};
  alignas(64) std::atomic<std::int64_t> next_{0};
  alignas(64) std::atomic<std::uint32_t> inside_{closed};  // workers in the task; top bit: no entry
  alignas(64) const TaskReference* task_ = nullptr;
  std::int64_t items_ = 0;
  int limit_ = 0;
  std::atomic<bool> failed_{false};
  std::mutex failure_mutex_;
  std::exception_ptr failure_;
};

// Never destroyed: at the exit of the process its threads sleep, and nobody waits for them.
struct Shared {
  std::mutex mutex;
  ThreadPool* pool = nullptr;
  std::atomic<int> threads{0};  // 0: not yet known
};

alignas(Shared) unsigned char shared_bytes[sizeof(Shared)];

Shared& shared() {
  static Shared* const instance = [] {
    // The child has one thread, whatever held the mutex is gone, and so are the workers: it starts
    // with a new mutex and no pool. The old pool's memory stays, nothing may wait for its threads.
    pthread_atfork(nullptr, nullptr, [] {
      const int threads = reinterpret_cast<Shared*>(shared_bytes)->threads.load();
      (new (shared_bytes) Shared)->threads.store(threads);
    });
    return new (shared_bytes) Shared;
  }();
  return *instance;
}

// The quota of cgroup version 2, in cores; INT_MAX where there is none.
int quota_cores() {
  std::FILE* file = std::fopen("/sys/fs/cgroup/cpu.max", "r");
  if (file == nullptr) return INT_MAX;
  long long quota = 0;
  long long period = 0;
  const int fields = std::fscanf(file, "%lld %lld", &quota, &period);
  std::fclose(file);
  if (fields != 2 || quota <= 0 || period <= 0) return INT_MAX;
  return static_cast<int>(std::clamp<long long>((quota + period - 1) / period, 1, INT_MAX));
}

}  // namespace

int available_cores() {
  int cores = static_cast<int>(std::thread::hardware_concurrency());
  cpu_set_t mask;
  CPU_ZERO(&mask);
  if (sched_getaffinity(0, sizeof(mask), &mask) == 0) cores = CPU_COUNT(&mask);
  return std::clamp(std::min(cores, quota_cores()), 1, 1024);
}

int thread_count() {
  Shared& state = shared();
  int threads = state.threads.load();
  if (threads == 0) {
    threads = available_cores();
    int unset = 0;
    if (!state.threads.compare_exchange_strong(unset, threads)) threads = unset;
  }
  return threads;
}

void set_thread_count(int threads) {
  if (threads < 0 || threads > 1024) {
    throw Error(ErrorKind::invalid_argument,
                "threads is " + std::to_string(threads) + ", outside 0 to 1024", "threads",
                std::nullopt, 1024);
  }
  if (threads == 0) threads = available_cores();
  Shared& state = shared();
  const std::lock_guard lock(state.mutex);
  if (state.threads.exchange(threads) == threads) return;  // the pool has that many already
  delete state.pool;
  state.pool = nullptr;
}

void parallel_for(std::int64_t items, TaskReference task, int threads) {
  if (items <= 0) return;
  if (inside_task || items == 1 ||
      threads <= 1) {  // one within a task must not take the lock again
    for (std::int64_t item = 0; item < items; ++item) task(item, 0);
    return;
  }
  Shared& state = shared();
  const std::lock_guard lock(state.mutex);
  if (state.pool == nullptr) state.pool = new ThreadPool(thread_count());
  state.pool->run(items, task, threads);
}

}  // namespace quantloom
