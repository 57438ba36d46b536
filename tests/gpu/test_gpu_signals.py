"""Ctrl-C, SIGTERM and the end of the interpreter while the GPU works."""

from __future__ import annotations

from faults.test_signals import (  # noqa: F401  # pytest finds them here, with this folder's device
    path,
    test_a_handler_of_sigterm_stops_a_load,
    test_a_thread_goes_on_when_the_interpreter_has_ended,
    test_ctrl_c,
    test_sigterm_ends_the_process,
    test_the_interpreter_ends_in_the_middle,
)
