"""Requests that end early or in an error, on the GPU."""

from __future__ import annotations

from faults.test_requests import (  # noqa: F401  # pytest finds them here, with this folder's device
    test_a_stream_gives_its_cache_back,
    test_logits_that_are_no_numbers,
)
