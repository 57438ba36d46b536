"""Ctrl-C, SIGTERM and the end of the interpreter while the GPU works."""

from __future__ import annotations

import pytest

from faults.test_signals import (  # noqa: F401  # pytest finds them here, with this folder's device
    path,
    test_a_handler_of_sigterm_stops_a_load,
    test_a_thread_goes_on_when_the_interpreter_has_ended,
    test_ctrl_c,
    test_sigterm_ends_the_process,
    test_the_interpreter_ends_in_the_middle,
)

# Signals wait for what the GPU has under way, which takes the emulator seconds.
pytestmark = pytest.mark.slow_emulated


@pytest.fixture(autouse=True)
def outlives_the_interpreter(request: pytest.FixtureRequest, is_emulated: bool) -> None:
    ends = ("test_the_interpreter_ends", "test_a_thread_goes_on")
    if is_emulated and request.node.name.startswith(ends):
        pytest.skip("the emulator ends with the process, before a thread that still uses it")
