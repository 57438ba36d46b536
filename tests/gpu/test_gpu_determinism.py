"""The same bits from the same request on the GPU, whatever other sessions do."""

from __future__ import annotations

from faults.test_determinism import (  # noqa: F401  # pytest finds them here, with this folder's device
    path,
    test_a_reused_prefix_gives_the_same_tokens,
    test_eight_threads_with_a_session_each,
    test_runs_and_other_sessions,
)
