// The thread pool: every item once, exceptions, calls within tasks, several callers, fork.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/thread_pool.h"

namespace {

std::atomic<int> failures{0};

void expect(bool holds, const char* what) {
  if (holds) return;
  failures.fetch_add(1);
  std::printf("FAILED %s\n", what);
}

bool each_item_once(std::int64_t items, int threads) {
  std::vector<std::atomic<int>> counts(static_cast<std::size_t>(items));
  std::vector<std::atomic<int>> inside(64);
  std::atomic<bool> alone{true};
  quantloom::parallel_for(
      items,
      [&](std::int64_t item, int thread) {
        if (thread < 0 || thread >= threads) alone.store(false);
        auto& mine = inside[static_cast<std::size_t>(thread)];
        if (mine.fetch_add(1) != 0) alone.store(false);
        counts[static_cast<std::size_t>(item)].fetch_add(1);
        mine.fetch_sub(1);
      },
      threads);
  for (const auto& count : counts) {
    if (count.load() != 1) return false;
  }
  return alone.load();
}

void check_exceptions() {
  for (int round = 0; round < 100; ++round) {
    std::string caught;
    try {
      quantloom::parallel_for(50, [](std::int64_t item, int) {
        if (item == 17) throw std::runtime_error("item 17");
      });
    } catch (const std::runtime_error& error) {
      caught = error.what();
    }
    expect(caught == "item 17", "an exception reaches the caller");
  }
  expect(each_item_once(100, 64), "the pool works after an exception");
}

void check_callers() {
  std::vector<std::thread> callers;
  for (int i = 0; i < 4; ++i) {
    callers.emplace_back([] {
      for (int round = 0; round < 200; ++round) {
        expect(each_item_once(round % 30, 64), "callers on several threads take turns");
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
}

void check_nested() {
  std::atomic<int> count{0};
  quantloom::parallel_for(8, [&](std::int64_t, int) {
    quantloom::parallel_for(8, [&](std::int64_t, int) { count.fetch_add(1); });
  });
  expect(count.load() == 64, "a call within a task runs");
}

void check_fork() {
  const pid_t child = fork();
  if (child == 0) _exit(each_item_once(100, 64) ? 0 : 1);
  int status = -1;
  waitpid(child, &status, 0);
  expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a child has threads of its own");
}

void check_limits() {
  for (const int threads : {-1, 1025}) {
    bool refused = false;
    try {
      quantloom::set_thread_count(threads);
    } catch (const quantloom::Error& error) {
      refused = error.kind() == quantloom::ErrorKind::invalid_argument;
    }
    expect(refused, "a number of threads out of range is refused");
  }
}

}  // namespace

int main() {
  for (const int threads : {1, 2, 3, 8}) {
    quantloom::set_thread_count(threads);
    expect(quantloom::thread_count() == threads, "the number of threads is what was set");
    for (const std::int64_t items : {0, 1, 2, 7, 1000}) {
      expect(each_item_once(items, 64), "every item once, each thread number alone");
      expect(each_item_once(items, 2), "no more threads than asked for");
    }
    check_exceptions();
    check_nested();
    check_callers();
    check_fork();
  }
  check_limits();
  quantloom::set_thread_count(0);
  expect(quantloom::thread_count() == quantloom::available_cores(), "0 means all cores");
  if (failures.load() == 0) std::printf("ok\n");
  return failures.load() == 0 ? 0 : 1;
}
