// The interpreter lock around long C++ work, for threads that may outlive the interpreter too.
//
// Once the interpreter has begun to end, Python before 3.14 answers a daemon thread that asks for
// the lock with pthread_exit. Its unwinding would run destructors that ask for the lock again,
// which ends the process with an abort. Where the interpreter has ended already, asking for the
// lock reads what is freed. Here such a thread sleeps until the process is gone, as Python 3.14
// lets it.
#pragma once

#include <pybind11/pybind11.h>
#include <unistd.h>

namespace quantloom {

// Before it has ended, threads of Python have their state, the one that ends it too.
inline bool interpreter_has_ended() {
  return Py_IsInitialized() == 0 && PyGILState_GetThisThreadState() == nullptr;
}

[[noreturn]] inline void sleep_until_the_process_is_gone() {
  for (;;) ::pause();
}

template <class Take>
void take_interpreter_lock(Take take) {
  if (interpreter_has_ended()) sleep_until_the_process_is_gone();
  try {
    take();
  } catch (...) {  // pthread_exit's unwinding, which must not go on: Python's C code throws nothing
    sleep_until_the_process_is_gone();
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
