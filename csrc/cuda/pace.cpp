#include "cuda/pace.h"

#include <sys/prctl.h>

namespace quantloom::cuda {

// The system may wake a thread later than asked by its timer slack, 50 us where nobody sets it.
void HostThread::sleep_until(Time when) {
  const int slack = prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0);
  if (slack > 0) prctl(PR_SET_TIMERSLACK, 1, 0, 0, 0);
  std::this_thread::sleep_until(when);
  if (slack > 0) prctl(PR_SET_TIMERSLACK, slack, 0, 0, 0);
}

}  // namespace quantloom::cuda
