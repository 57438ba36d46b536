"""Every instruction set of this machine does what the highest does."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest

from operations import cases, checks
from operations.products import BOUNDS, QUANTIZED, activations, error, guarded, matrix
from quantloom import Tensor, _quantloom
from quantloom.errors import InvalidArgument

SETS = _quantloom.instruction_sets()
TYPES = {entry[1]: entry for entry in _quantloom.type_table() if entry[4] == "served"}


@pytest.fixture(params=SETS)
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    before = _quantloom.instruction_set()
    _quantloom.set_instruction_set(request.param)
    yield request.param
    _quantloom.set_instruction_set(before)


def random_blocks(name: str, rows: int, columns: int) -> npt.NDArray[np.uint8]:
    """Quantized noise: what a file holds."""
    values = np.random.default_rng(7).standard_normal((rows, columns), np.float32)
    return np.ascontiguousarray(_quantloom.quantize(values.reshape(-1), TYPES[name][0]))


@pytest.mark.parametrize("precision", ["exact", "fast"])
@pytest.mark.parametrize("format", QUANTIZED)
def test_products(instruction_set: str, format: str, precision: str) -> None:
    """One block, columns that fill no span of 256 where a format has such, and several spans."""
    one_block = TYPES[format][2]
    for rows, columns in [(1, one_block), (37, 7 * one_block), (66, 768)]:
        w, weights = matrix(format, rows, columns)
        x = activations(33, columns)
        for tokens in (1, 3, 8, 9, 33):
            found = guarded(Tensor(x[:tokens]), w, precision)
            assert error(found, x[:tokens], weights) <= BOUNDS[precision], (rows, columns, tokens)


@pytest.mark.parametrize("precision", ["exact", "fast"])
@pytest.mark.parametrize("format", ["Q4_0", "Q4_K", "IQ3_S"])
def test_more_tokens_than_share_an_unpacking(
    instruction_set: str, format: str, precision: str
) -> None:
    """The borders of tiles of tokens and of panels of 512; no single token is off either."""
    w, weights = matrix(format, 70, 256)
    x = activations(1030, 256)
    for tokens in (16, 17, 63, 64, 65, 128, 129, 511, 512, 513, 1025, 1030):
        found = guarded(Tensor(x[:tokens]), w, precision)
        assert error(found, x[:tokens], weights) <= BOUNDS[precision], tokens
        for token in {0, tokens // 2, tokens - 1}:
            one = slice(token, token + 1)
            assert error(found[one], x[one], weights) <= 4 * BOUNDS[precision], (tokens, token)


@pytest.mark.parametrize("precision", ["exact", "fast"])
@pytest.mark.parametrize("name", [name for name, entry in TYPES.items() if entry[5]])
def test_a_column_of_x_that_is_far_larger(instruction_set: str, name: str, precision: str) -> None:
    columns = 768
    blocks = random_blocks(name, 37, columns)
    weights = _quantloom.dequantize(blocks, TYPES[name][0]).reshape(-1, columns)
    for tokens in (1, 3, 8, 9, 33):
        x = np.random.default_rng(tokens).standard_normal((tokens, columns), np.float32)
        x[:, 5] = 3000
        out = _quantloom.matmul(x, blocks, TYPES[name][0], precision)
        wanted = x.astype(np.float64) @ weights.T.astype(np.float64)
        wrong = np.sum((out - wanted) ** 2)
        assert wrong <= BOUNDS[precision] * np.sum(wanted**2), (tokens, wrong)  # false for NaN
        # Beside that column all others are next to nothing, and they must be there too.
        x[:, 5] = 0
        others = np.sum((x.astype(np.float64) @ weights.T.astype(np.float64)) ** 2)
        assert wrong <= (1e-3 if precision == "exact" else 0.25) * others, (tokens, wrong / others)


@pytest.mark.parametrize("name", cases.ATTENTIONS)
def test_attention(instruction_set: str, name: str) -> None:
    checks.check_attention("cpu", **cases.ATTENTIONS[name])


@pytest.mark.parametrize("count", [1, 7, 1000])
def test_elementwise(instruction_set: str, count: int) -> None:
    checks.check_elementwise("cpu", count)


def test_norm(instruction_set: str) -> None:
    for rows, width in cases.NORMS:
        checks.check_norm("cpu", rows, width)


@pytest.mark.parametrize("width", [7, 64, 1000])
def test_norm_of_numbers_whose_squares_overflow(instruction_set: str, width: int) -> None:
    runner = _quantloom.OperationRunner("cpu", "exact")
    weight = np.random.default_rng(0).standard_normal(width, np.float32)
    unit = np.random.default_rng(1).uniform(-1, 1, (3, width))
    for size in (1e18, 1e19, 1e25, 3e38):
        x = (size * unit).astype(np.float32)
        exact = x.astype(np.float64)
        exact *= weight / np.sqrt(np.mean(exact**2, axis=1, keepdims=True))
        np.testing.assert_allclose(runner.norm(x, weight, 1e-5), exact, rtol=1e-5)
    x[1, 3] = np.inf
    finite = np.isfinite(runner.norm(x, weight, 1e-5)).all(axis=1)
    assert finite.tolist() == [True, False, True]


def test_the_same_bits_on_any_number_of_threads(instruction_set: str) -> None:
    blocks = random_blocks("Q4_K", 300, 512)
    format = TYPES["Q4_K"][0]
    before = _quantloom.thread_count()
    try:
        for tokens in (1, 7, 100):
            x = np.random.default_rng(tokens).standard_normal((tokens, 512), np.float32)
            results = []
            for threads in (1, 2, 5):
                _quantloom.set_thread_count(threads)
                results.append(_quantloom.matmul(x, blocks, format, "exact"))
            assert np.array_equal(results[0], results[1])
            assert np.array_equal(results[0], results[2])
    finally:
        _quantloom.set_thread_count(before)


def test_callers_on_several_threads_do_not_disturb_each_other() -> None:
    blocks = random_blocks("Q6_K", 256, 512)
    format = TYPES["Q6_K"][0]
    inputs = [np.random.default_rng(i).standard_normal((i + 1, 512), np.float32) for i in range(6)]
    wanted = [_quantloom.matmul(x, blocks, format, "exact") for x in inputs]
    wrong: list[int] = []

    def work(index: int) -> None:
        for _ in range(20):
            out = _quantloom.matmul(inputs[index], blocks, format, "exact")
            if not np.array_equal(out, wanted[index]):
                wrong.append(index)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_child_computes_after_fork() -> None:
    code = (
        "import os, numpy as np\n"
        "from quantloom import _quantloom as q\n"
        "q.set_thread_count(3)\n"
        "x = np.ones((4, 64), np.float32); w = np.ones(64 * 200, np.float32).view(np.uint8)\n"
        "first = q.matmul(x, w, 0, 'exact')\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    os._exit(0 if np.array_equal(q.matmul(x, w, 0, 'exact'), first) else 1)\n"
        "raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    assert run(code).returncode == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sse9", "QUANTLOOM_CPU names the unknown instruction set 'sse9'; known are auto, plain"),
        ("", ""),
        ("plain", ""),
    ],
)
def test_the_environment_chooses(name: str, message: str) -> None:
    code = "from quantloom import _quantloom as q; print(q.instruction_set())"
    result = run(code, QUANTLOOM_CPU=name)
    if message:
        assert result.returncode != 0
        assert message in result.stderr
    else:
        assert result.stdout.strip() == (name or SETS[-1])


def test_what_is_not_there_is_refused() -> None:
    known = ["plain", "avx2", "avx512", "avx512_vnni", "amx"]
    for name in [name for name in known if name not in SETS]:
        with pytest.raises(InvalidArgument, match="which this machine does not have"):
            _quantloom.set_instruction_set(name)
    with pytest.raises(InvalidArgument, match="unknown instruction set 'x87'"):
        _quantloom.set_instruction_set("x87")


@pytest.mark.parametrize("threads", [-1, 1025])
def test_threads_out_of_range(threads: int) -> None:
    with pytest.raises(InvalidArgument, match=f"threads is {threads}, outside 0 to 1024"):
        _quantloom.set_thread_count(threads)


def test_products_that_do_not_fit() -> None:
    blocks = random_blocks("Q4_K", 2, 512)
    format = TYPES["Q4_K"][0]
    with pytest.raises(InvalidArgument, match="are not rows of 500 weights in Q4_K blocks of 256"):
        _quantloom.matmul(np.zeros((1, 500), np.float32), blocks, format, "exact")
    with pytest.raises(InvalidArgument, match="x has 1 dimensions, not 2"):
        _quantloom.matmul(np.zeros(512, np.float32), blocks, format, "exact")
    with pytest.raises(InvalidArgument, match="is not one of 'exact', 'fast'"):
        _quantloom.matmul(np.zeros((1, 512), np.float32), blocks, format, "rough")
