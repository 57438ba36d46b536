// The threads of the CPU's operations: one persistent pool per process.
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>

namespace quantloom {

// A reference to a callable void(std::int64_t item, int thread); valid only during the call.
class TaskReference {
 public:
  template <class Function>
    requires(!std::is_same_v<std::remove_cvref_t<Function>, TaskReference>)
  TaskReference(Function&& function)  // NOLINT: implicit, so that a lambda can be passed
      : object_(const_cast<void*>(static_cast<const void*>(std::addressof(function)))),
        call_([](void* object, std::int64_t item, int thread) {
          (*static_cast<std::remove_reference_t<Function>*>(object))(item, thread);
        }) {}

  void operator()(std::int64_t item, int thread) const { call_(object_, item, thread); }

 private:
  void* object_;
  void (*call_)(void*, std::int64_t, int);
};

// Cores this process may use: its affinity mask, less where a cgroup's quota is smaller.
int available_cores();

// Threads that parallel_for uses, the caller's included: available_cores() unless set.
int thread_count();

// `threads` of 0 means available_cores(). Waits for running work.
// Errors: invalid_argument outside 0 to 1024.
void set_thread_count(int threads);

// Calls task(item, thread) once for every item in 0 .. items - 1, `thread` below thread_count() and
// below `threads`, and no two calls at a time with the same `thread`. Which thread takes which item
// is not fixed, so a result must not depend on it. Returns when all calls have. The first exception
// thrown stops the handing out of items and is thrown here.
//
// Callers on several threads take turns. A call from within a task runs on that task's thread
// alone. After fork() the child starts threads of its own.
void parallel_for(std::int64_t items, TaskReference task, int threads = 1024);

}  // namespace quantloom
