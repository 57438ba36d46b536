"""How fast a model prefills and decodes here, beside what the machine allows at most."""

from __future__ import annotations

import resource
import statistics
import time
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from quantloom import arguments, cuda
from quantloom.ceilings import product_seconds, read_bandwidth
from quantloom.errors import DeviceError, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeAlias

    from quantloom.model import Model
    from quantloom.session import Session

    Shape: TypeAlias = tuple[int, int]
    Products: TypeAlias = Callable[[str, Iterable[Shape], int], tuple[dict[Shape, float], str]]


@dataclass(frozen=True)
class Limits:
    """What the machine allows for one model, from rates measured here.

    Attributes:
        read_bandwidth: bytes of memory that are read per second.
        weight_bytes: of the weights that each new token reads: all, less an untied embedding table.
        cache_bytes: of the keys and values that a token reads at the middle of the run.
        decode: new tokens per second if reading those were all there is to do.
        prefill: prompt tokens per second if the prompt were plain products, or None.
        product: what the plain products were computed by, or why there were none.
        product_rate: their operations per second on the model's own shapes, or None.
    """

    read_bandwidth: float
    weight_bytes: int
    cache_bytes: int
    decode: float
    prefill: float | None
    product: str
    product_rate: float | None


@dataclass(frozen=True)
class BenchResult:
    """Medians of `bench`.

    Attributes:
        prompt_tokens, new_tokens: sizes of each run.
        prefill: prompt tokens per second.
        decode: new tokens per second.
        time_to_first_token: seconds from the call to the first token.
        prefill_runs, decode_runs: every run's figure, in order.
        gap_p50, gap_p99: seconds between two tokens as the caller sees them, half and 99 in 100 of
            which are shorter.
        gaps: all of them.
        thread_busy: share of the decoding time that the caller's thread computed.
        memory_bytes: of the GPU in use by this process at the peak, weights, cache and workspace;
            of the host on the CPU.
        limits: of this machine, or None.
        decode_share, prefill_share: of the limits, or None.
    """

    prompt_tokens: int
    new_tokens: int
    prefill: float
    decode: float
    time_to_first_token: float
    prefill_runs: list[float]
    decode_runs: list[float]
    gap_p50: float
    gap_p99: float
    gaps: list[float]
    thread_busy: float
    memory_bytes: int
    limits: Limits | None

    @property
    def decode_share(self) -> float | None:
        """Of the limit."""
        return None if self.limits is None else self.decode / self.limits.decode

    @property
    def prefill_share(self) -> float | None:
        """Of the limit."""
        if self.limits is None or self.limits.prefill is None:
            return None
        return self.prefill / self.limits.prefill


def bench(
    model: Model,
    *,
    prompt_tokens: int = 512,
    new_tokens: int = 128,
    repeat: int = 5,
    limits: bool = True,
    prefill_chunk: int | None = None,
) -> BenchResult:
    """Generate `new_tokens` after a random prompt, `repeat` times after two warm-ups.

    Args:
        model: on any device.
        prompt_tokens: of each run.
        new_tokens: of each run.
        repeat: runs that count.
        limits: measure what this machine allows, too.
        prefill_chunk: tokens of the prompt that one pass takes at most.

    Raises:
        InvalidArgument: the sizes do not fit the context.
    """
    limits = arguments.flag("limits", limits)
    if prompt_tokens < 1 or new_tokens < 2 or repeat < 1:
        raise InvalidArgument("bench takes at least 1 prompt token, 2 new tokens and 1 repeat")
    if prompt_tokens + new_tokens > model.context_length:
        raise InvalidArgument(
            f"{prompt_tokens} + {new_tokens} tokens do not fit the context of "
            f"{model.context_length}",
            subject="prompt_tokens",
            limit=model.context_length,
        )
    random = np.random.default_rng(0)
    runs: list[_Run] = []
    # Two warm-ups: the first calls a step, the second records it.
    with model.session(prefill_chunk=prefill_chunk) as session:
        for run in range(repeat + 2):
            prompt = random.integers(0, model.vocabulary_size, prompt_tokens).tolist()
            session.reset()  # so that no run reuses the cache of the one before
            measured = _run(session, prompt, new_tokens)
            if run >= 2:
                runs.append(measured)
    gaps = [gap for run in runs for gap in run.gaps]
    if model.device == "cpu":
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    else:
        memory = cuda.memory(model.device).peak
    return BenchResult(
        prompt_tokens=prompt_tokens,
        new_tokens=new_tokens,
        prefill=statistics.median(prompt_tokens / run.first for run in runs),
        decode=statistics.median((new_tokens - 1) / run.rest for run in runs),
        time_to_first_token=statistics.median(run.first for run in runs),
        prefill_runs=[prompt_tokens / run.first for run in runs],
        decode_runs=[(new_tokens - 1) / run.rest for run in runs],
        gap_p50=float(np.quantile(gaps, 0.5)),
        gap_p99=float(np.quantile(gaps, 0.99)),
        gaps=gaps,
        thread_busy=statistics.median(run.busy / run.rest for run in runs),
        memory_bytes=memory,
        limits=measure_limits(model, prompt_tokens, new_tokens) if limits else None,
    )


@dataclass(frozen=True)
class _Run:
    first: float  # seconds to the first token
    rest: float  # from the first to the last
    busy: float  # of these, that this thread computed
    gaps: list[float]


def _run(session: Session, prompt: list[int], new_tokens: int) -> _Run:
    start = time.perf_counter()
    with session.stream(
        prompt, max_new_tokens=new_tokens, temperature=0, ignore_eos=True
    ) as stream:
        next(stream)
        times = [time.perf_counter()]
        busy = time.thread_time()
        times.extend(time.perf_counter() for piece in stream if piece.token is not None)
        busy = time.thread_time() - busy
    gaps = [later - earlier for earlier, later in pairwise(times)]
    return _Run(times[0] - start, times[-1] - times[0], busy, gaps)


def read_per_token(model: Model) -> int:
    """Bytes of weights that one token reads."""
    tensors = model.file.tensors
    tied = "output.weight" not in tensors
    return sum(t.nbytes for name, t in tensors.items() if tied or name != "token_embd.weight")


def measure_limits(
    model: Model,
    prompt_tokens: int,
    new_tokens: int,
    bandwidth: float | None = None,
    products: Products = product_seconds,
) -> Limits:
    """What this machine allows for a model that lies on one device.

    Args:
        model: whose tensors are counted.
        prompt_tokens: before the first new token.
        new_tokens: after them.
        bandwidth: of reading, where it has been measured.
        products: what times plain products.
    """
    bandwidth = bandwidth or read_bandwidth(model.device)
    weights = read_per_token(model)
    middle = prompt_tokens + new_tokens // 2
    cache = model.cache_bytes * middle // model.context_length
    rate, prefill = None, None
    try:
        rate, product = _product_rate(model, prompt_tokens, products)
        prefill = prompt_tokens * rate / prefill_operations(model, prompt_tokens)
    except DeviceError as error:
        product = str(error)
    return Limits(
        read_bandwidth=bandwidth,
        weight_bytes=weights,
        cache_bytes=cache,
        decode=bandwidth / (weights + cache),
        prefill=prefill,
        product=product,
        product_rate=rate,
    )


def _matrices(model: Model) -> Counter[tuple[int, int]]:
    """Shapes of the matrices that every token of a prompt is multiplied by."""
    return Counter(
        (int(t.shape[0]), int(t.shape[1]))
        for name, t in model.file.tensors.items()
        if name.startswith("blk.") and t.ndim == 2
    )


def prefill_operations(model: Model, tokens: int) -> float:
    """Multiplications and additions of a prompt: the layers' products, attention, and one head."""
    products = 2 * tokens * sum(n * r * c for (r, c), n in _matrices(model).items())
    metadata: Any = model.metadata
    prefix = model.architecture + "."
    heads = int(metadata[prefix + "attention.head_count"])
    size = int(metadata.get(prefix + "attention.key_length", model.embedding_length // heads))
    attention = 2 * model.block_count * heads * size * tokens * (tokens + 1)
    return products + attention + 2 * model.vocabulary_size * model.embedding_length


def _product_rate(model: Model, tokens: int, products: Products) -> tuple[float, str]:
    shapes = _matrices(model)
    seconds, product = products(model.device, shapes, tokens)
    operations = 2 * tokens * sum(n * r * c for (r, c), n in shapes.items())
    return operations / sum(n * seconds[shape] for shape, n in shapes.items()), product
