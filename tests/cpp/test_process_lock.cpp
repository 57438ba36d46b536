// A lock over fork(): what another thread held says so in the child, whenever the fork came.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <mutex>
#include <thread>
#include <vector>

#include "base/process_lock.h"
#include "check.h"

using quantloom::ProcessLock;

namespace {

// 0: free, 1: of another process, 2: neither, for as long as it was asked for.
int what_a_child_finds(ProcessLock& lock) {
  const pid_t child = ::fork();
  if (child == 0) {
    for (int look = 0; look < 1000; ++look) {
      if (lock.try_lock()) ::_exit(0);
      if (lock.inherited()) ::_exit(1);
    }
    ::_exit(2);
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

}  // namespace

TEST(one_holder_at_a_time) {
  ProcessLock lock;
  long count = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 3; ++i) {
    threads.emplace_back([&] {
      for (int round = 0; round < 20000; ++round) {
        const std::lock_guard held(lock);
        ++count;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(count == 60000);
  CHECK(lock.try_lock());
  CHECK(not lock.try_lock() and not lock.inherited());
  lock.unlock();
  CHECK(lock.try_lock());
}

TEST(a_child_knows_what_it_inherits) {
  ProcessLock lock;
  CHECK(what_a_child_finds(lock) == 0);
  lock.lock();
  CHECK(what_a_child_finds(lock) == 1);
  CHECK(not lock.inherited());
}

TEST(a_fork_at_any_moment_of_another_threads_use) {
  ProcessLock lock;
  std::atomic<bool> stop{false};
  std::thread user([&] {
    while (not stop.load()) {
      lock.lock();
      lock.unlock();
    }
  });
  int found[3] = {};
  // One fork in a hundred finds the lock held, on a busy machine one in four hundred.
  const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  const auto goes_on = [&](int forks) {
    const bool both = found[0] > 0 and found[1] > 0;
    return forks < 400 or (not both and std::chrono::steady_clock::now() < end);
  };
  for (int fork = 0; goes_on(fork); ++fork) {
    const int answer = what_a_child_finds(lock);
    CHECK(answer == 0 or answer == 1);
    if (answer >= 0 and answer < 3) ++found[answer];
  }
  stop.store(true);
  user.join();
  CHECK(found[0] > 0 and found[1] > 0);
}

int main() { return quantloom::check::run_all(); }
