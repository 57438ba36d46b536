"""What the comparison of greedy tokens with float64's logits lets pass."""

from __future__ import annotations

import numpy as np
import pytest

from model.greedy import check_greedy

ROWS = np.array([[0.0, 3.0, 1.0, 2.0], [4.0, 0.0, 3.999, 0.0]])


def test_the_likeliest_tokens_pass_without_a_word(recwarn: pytest.WarningsRecorder) -> None:
    check_greedy([1, 0], ROWS, 2e-3)
    assert len(recwarn) == 0


def test_the_second_of_two_that_lie_close_is_said() -> None:
    said = "new token 1 is 2; float64's two best are 0 and 2, 1.8e-04 of the logits' norm apart"
    with pytest.warns(UserWarning, match=said):
        check_greedy([1, 2], ROWS, 2e-3)


@pytest.mark.parametrize("tokens", [[3, 0], [1, 1], [1, 3], [1]])
def test_other_tokens_fail(tokens: list[int]) -> None:
    with pytest.raises(AssertionError):
        check_greedy(tokens, ROWS, 2e-3)


def test_logits_that_are_no_numbers_fail() -> None:
    with pytest.raises(AssertionError):
        check_greedy([1, 0], np.where(ROWS == 3.999, np.nan, ROWS), 2e-3)
