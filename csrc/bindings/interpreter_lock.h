// The interpreter lock around long C++ work, for threads that may outlive the interpreter too.
//
// Once the interpreter has begun to end, Python before 3.14 answers a daemon thread that asks for
// the lock with pthread_exit. Its unwinding would run destructors that ask for the lock again,
// which ends the process with an abort. Here such a thread sleeps until the process is gone, as
// Python 3.14 lets it.
#pragma once

#include <pybind11/pybind11.h>
#include <unistd.h>

namespace quantloom {

template <class Take>
void take_interpreter_lock(Take take) {
  try {
    take();
  } catch (...) {  // pthread_exit's unwinding: Python's C code throws nothing
    for (;;) ::pause();
  }
}

// Gives the lock to other threads for as long as it lives.
class Unlocked {
 public:
  Unlocked() : state_(PyEval_SaveThread()) {}
  ~Unlocked() {
    take_interpreter_lock([this] { PyEval_RestoreThread(state_); });
  }
  Unlocked(const Unlocked&) = delete;
  Unlocked& operator=(const Unlocked&) = delete;

 private:
  PyThreadState* state_;
};

// Holds the lock, from a thread that may or may not hold it.
class Locked {
 public:
  Locked() {
    take_interpreter_lock([this] { state_ = PyGILState_Ensure(); });
  }
  ~Locked() { PyGILState_Release(state_); }
  Locked(const Locked&) = delete;
  Locked& operator=(const Locked&) = delete;

 private:
  PyGILState_STATE state_{};
};

}  // namespace quantloom
