"""batch_invariant=True on the GPU: the same bits for any chunks and prefix."""

from __future__ import annotations

from faults.test_batch_invariant import (  # noqa: F401  # pytest finds them here, with this folder's device
    model,
    path,
    test_a_long_history,
    test_a_split_of_the_prompt_beside_other_sessions,
    test_any_chunks_give_the_same_bits,
    test_any_prefix_that_is_reused_gives_the_same_bits,
    test_other_caches,
    test_speculation_is_refused,
    test_what_was_generated_is_computed_anew,
)
