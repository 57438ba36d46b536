// Tests whose effect outlasts them: a fault ends a process's use of its GPU, and contexts stay.
#pragma once

#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>

#include "check.h"

// Runs a test in a process of its own, which begins before this one has started the runtime.
template <typename Body>
void in_a_child(Body body) {
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    const int before = quantloom::check::failures();
    body();
    _exit(quantloom::check::failures() == before ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}
