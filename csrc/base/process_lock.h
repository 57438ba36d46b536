// A lock that a fork cannot leave behind unseen.
#pragma once

#include <unistd.h>

#include <atomic>

namespace quantloom {

// Held or free, and whose, in one word: in a child of fork() what another thread of the parent held
// at that moment, at whatever instruction, says inherited(). Nobody will free it there.
class ProcessLock {
 public:
  bool try_lock() {
    int nobody = 0;
    return holder_.compare_exchange_strong(nobody, ::getpid());
  }
  // Not where it is inherited(): that never ends.
  void lock() {
    while (not try_lock()) {
      const int holder = holder_.load();
      if (holder != 0) holder_.wait(holder);
    }
  }
  void unlock() {
    holder_.store(0);
    holder_.notify_all();
  }
  bool inherited() const {
    const int holder = holder_.load();
    return holder != 0 and holder != ::getpid();
  }

 private:
  std::atomic<int> holder_{0};  // a process; 0: free
};

}  // namespace quantloom
