"""The same bits from the same request: any thread count, any run, whatever other sessions do.

What holds on the CPU: the logits do not depend on the number of threads, on the run, or on other
sessions, and decoding is the same from a cache that was reused. They may differ in the last bits
between prefill chunk sizes, because products over few and over many tokens add up in another
order; the same chunk sizes give the same bits. With batch_invariant=True (test_batch_invariant.py)
other chunks do too.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from children import run

import quantloom
from synthetic_model import Synthetic

PROMPT = [i * 7 % 90 for i in range(200)]


@pytest.fixture(scope="module", params=["F32", "Q4_K", "Q8_0", "Q4_0"])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    recipe = Synthetic(
        format=request.param, embedding=256, heads=4, head_size=64, feed_forward=512, context=512
    )
    return recipe.write(tmp_path_factory.mktemp("determinism"))


BITS = """
import hashlib
import os
for precision in ("exact", "fast"):
    with quantloom.load(path, device="cpu", threads=THREADS, precision=precision) as model:
        tokens = [i * 7 % 90 for i in range(200)]
        said = [hashlib.sha256(model.logits(tokens).tobytes()).hexdigest()]
        for options in ({}, {"temperature": 0.8, "seed": 5, "logprobs": 5}):
            result = model.generate(tokens, max_new_tokens=60, ignore_eos=True, **options)
            said += [str(result.tokens), str(result.logprobs)]
        print(precision, *said)
"""


def test_any_number_of_threads(path: Path) -> None:
    ended = [run(BITS.replace("THREADS", str(threads)), path) for threads in (1, 2, 3)]
    assert [each.err for each in ended] == [""] * 3
    assert len(ended[0].out.splitlines()) == 2
    assert len({each.out for each in ended}) == 1


def test_runs_and_other_sessions(path: Path, device: str) -> None:
    with quantloom.load(path, device=device) as model:
        expected = model.logits(PROMPT).tobytes()
        assert model.logits(PROMPT).tobytes() == expected
        with model.session() as other:
            other.generate([3] * 50, max_new_tokens=20)
            assert model.logits(PROMPT).tobytes() == expected
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(lambda _: model.logits(PROMPT).tobytes(), range(4)))
        assert together == [expected] * 4


@pytest.mark.slow_emulated
def test_eight_threads_with_a_session_each(path: Path, device: str) -> None:
    requests = [
        ([i * 5 % 90 for i in range(3 + 20 * n)], {"temperature": 0.7 * (n % 2), "seed": n})
        for n in range(8)
    ]
    with quantloom.load(path, device=device) as model:

        def said(request: tuple[list[int], dict[str, float]]) -> tuple[list[int], str]:
            prompt, options = request
            with model.session() as session:
                result = session.generate(
                    prompt, max_new_tokens=60, ignore_eos=True, logprobs=3, **options
                )
                return result.tokens, str(result.logprobs)

        alone = [said(request) for request in requests]
        with ThreadPoolExecutor(8) as pool:
            for _ in range(3):
                assert list(pool.map(said, requests)) == alone


@pytest.mark.parametrize("held", [1, 57, 199])
def test_a_reused_prefix_gives_the_same_tokens(held: int, path: Path, device: str) -> None:
    """Held to the token: a prefix's chunks may have been cut elsewhere than a fresh prompt's."""
    with quantloom.load(path, device=device) as model:
        fresh = model.generate(PROMPT, max_new_tokens=40, ignore_eos=True)
        with model.session() as session:
            session.generate(PROMPT[:held], max_new_tokens=1, ignore_eos=True)
            again = session.generate(PROMPT, max_new_tokens=40, ignore_eos=True)
        assert again.timings.reused_tokens == held
        assert again.tokens == fresh.tokens


def test_chunks_of_a_prompt(path: Path) -> None:
    """The same chunks give the same bits; other chunks what activations of 16 bits allow."""
    logits = {}
    with quantloom.load(path, device="cpu", cache_type="f32") as model:
        for chunk in (1, 16, 64, 200):
            rows = []
            for _ in range(2):
                with model.session(prefill_chunk=chunk) as session:
                    rows.append(session.logits(PROMPT))
            assert rows[0].tobytes() == rows[1].tobytes()
            logits[chunk] = rows[0]
    for chunk, rows_of_chunk in logits.items():
        difference = np.linalg.norm(rows_of_chunk - logits[200]) / np.linalg.norm(logits[200])
        assert difference <= 1e-3, (chunk, difference)


def test_the_hash_sees_one_bit() -> None:
    """What the tests above compare changes with the last bit of one logit."""
    row = np.ones(8, np.float32)
    before = hashlib.sha256(row.tobytes()).hexdigest()
    row.view(np.uint32)[3] ^= 1
    assert hashlib.sha256(row.tobytes()).hexdigest() != before


def test_changing_the_number_of_threads_under_a_generation(path: Path) -> None:
    """load(threads=...) holds for the process: computations that run meanwhile keep their bits."""
    with quantloom.load(path, device="cpu", threads=2) as model:
        expected = model.logits(PROMPT).tobytes()
        done = False

        def change() -> int:
            rounds = 0
            while not done or rounds < 8:
                threads = (1, 8, 2, 5)[rounds % 4]
                quantloom.load(path, device="cpu", threads=threads, check_weights=False).close()
                rounds += 1
            return rounds

        with ThreadPoolExecutor(3) as pool:
            changer = pool.submit(change)
            found = list(pool.map(lambda _: model.logits(PROMPT).tobytes(), range(8)))
            done = True
            assert changer.result() >= 8
        assert found == [expected] * 8
