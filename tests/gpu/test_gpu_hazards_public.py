"""The hazards of GGUF files where the GPU loads them."""

from __future__ import annotations

from faults.test_hazards_public import (  # noqa: F401  # pytest finds them here, with this folder's device
    test_typed_error,
    test_what_open_refuses_load_refuses_the_same_way,
)
