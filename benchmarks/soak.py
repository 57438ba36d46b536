"""A long run: random requests against one model, every greedy answer checked against its first.

    python benchmarks/soak.py --seconds 3600 --device cpu [model.gguf]

Requests differ in length, sampling, and in how they end: by themselves, cancelled from another
thread, by a stream that is closed or dropped half-way, or by an error. The report gives counts and
the process's resident memory at the start (after a warm-up), at the end, and at its peak, what of
it malloc has given out, and device memory on a GPU. The exit status is 1 where an answer changed,
an error was not the expected one, or memory grew by more than --growth.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from origin import origin

import quantloom

QUESTIONS = 40  # different greedy requests, each asked again and again
MIB = 1 << 20


def resident() -> int:
    """Bytes of this process in memory."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


class _MallocInfo(ctypes.Structure):
    """struct mallinfo2 of glibc."""

    _names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in _names.split()]


def allocated() -> int:
    """Bytes that malloc has given out and not got back; 0 where glibc is older than 2.33."""
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError):
        return 0
    mallinfo.restype = _MallocInfo
    info = mallinfo()
    return int(info.uordblks + info.hblkhd)


def on_device(device: str) -> int:
    """Bytes of device memory in use; 0 on the CPU."""
    if device == "cpu":
        return 0
    return int(quantloom.cuda.memory(device).in_use)


@dataclass
class Soak:
    model: quantloom.Model
    random: random.Random
    counts: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    wrong: list[str] = field(default_factory=list)
    answers: dict[int, list[int]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def question(self, number: int) -> tuple[list[int], dict[str, Any]]:
        """The prompt and the options of greedy request `number`, always the same."""
        draw = random.Random(number)
        length = draw.choice([1, 2, 7, 40, 200, self.model.context_length - 30])
        length = max(1, min(length, self.model.context_length - 1))
        prompt = [draw.randrange(self.model.vocabulary_size) for _ in range(length)]
        return prompt, {"max_new_tokens": draw.choice([1, 5, 20, 60]), "ignore_eos": True}

    def fail(self, what: str) -> None:
        with self.lock:
            self.wrong.append(what)

    def check(self, number: int, tokens: list[int], *, whole: bool = True) -> None:
        with self.lock:
            self.tokens += len(tokens)
            first = self.answers.setdefault(number, tokens) if whole else self.answers.get(number)
        if first is not None and tokens != (first if whole else first[: len(tokens)]):
            self.fail(f"greedy request {number} gave {tokens}, at first {first}")

    def greedy(self, draw: random.Random) -> None:
        number = draw.randrange(QUESTIONS)
        prompt, options = self.question(number)
        self.check(number, self.model.generate(prompt, **options).tokens)

    def half_a_stream(self, draw: random.Random) -> None:
        number = draw.randrange(QUESTIONS)
        prompt, options = self.question(number)
        stream = self.model.stream(prompt, **options)
        taken = [p.token for p, _ in zip(stream, range(draw.randrange(1, 9)), strict=False)]
        if draw.random() < 0.5:
            stream.close()
        self.check(number, [token for token in taken if token is not None], whole=False)

    def cancelled(self, draw: random.Random) -> None:
        number = draw.randrange(QUESTIONS)
        prompt, options = self.question(number)
        with self.model.session() as session:
            timer = threading.Timer(draw.random() * 0.05, session.cancel)
            timer.start()
            result = session.generate(prompt, **options)
            timer.cancel()
            timer.join()
            self.check(number, result.tokens, whole=result.finish_reason != "cancelled")
            prompt, options = self.question(0)
            self.check(0, session.generate(prompt, **options).tokens)

    def sampled(self, draw: random.Random) -> None:
        prompt, options = self.question(draw.randrange(QUESTIONS))
        options |= {"temperature": draw.uniform(0.1, 2), "seed": draw.getrandbits(64)}
        options |= draw.choice(
            [{}, {"top_k": 20}, {"top_p": 0.9}, {"min_p": 0.05}, {"typical_p": 0.8}]
        )
        options |= draw.choice([{}, {"logprobs": 5}, {"repetition_penalty": 1.2}])
        first = self.model.generate(prompt, **options).tokens
        if first != self.model.generate(prompt, **options).tokens:
            self.fail(f"a seed gave two answers: {options}")
        with self.lock:
            self.tokens += 2 * len(first)

    def session_that_goes_on(self, draw: random.Random) -> None:
        prompt, _ = self.question(draw.randrange(QUESTIONS))
        prompt = prompt[: self.model.context_length // 2]
        with self.model.session() as session:
            for _ in range(3):
                result = session.generate(prompt, max_new_tokens=8, ignore_eos=True)
                prompt = [*prompt, *result.tokens]
                if len(prompt) > self.model.context_length:
                    break
            session.reset()
            number = draw.randrange(QUESTIONS)
            asked, options = self.question(number)
            self.check(number, session.generate(asked, **options).tokens)

    def error(self, draw: random.Random) -> None:
        calls: list[tuple[type[Exception], Callable[[], object]]] = [
            (quantloom.ContextFull, lambda: self.model.generate([0] * 100_000)),
            (quantloom.InvalidArgument, lambda: self.model.generate([])),
            (quantloom.InvalidArgument, lambda: self.model.generate([-1])),
            (quantloom.InvalidArgument, lambda: self.model.generate([0], temperature=-1)),
            (quantloom.InvalidArgument, lambda: self.model.session(prefill_chunk=0)),
            (
                quantloom.NumericsError,
                lambda: self.model.generate(
                    [0],
                    logit_bias=dict.fromkeys(range(self.model.vocabulary_size), float("-inf")),
                ),
            ),
            (quantloom.FileError, lambda: quantloom.load("no such file", device="cpu")),
            (quantloom.GGUFError, lambda: quantloom.load(__file__, device="cpu")),
        ]
        kind, call = draw.choice(calls)
        try:
            call()
        except kind:
            return
        except Exception as error:
            self.fail(f"wanted {kind.__name__}, got {type(error).__name__}: {error}")
        else:
            self.fail(f"wanted {kind.__name__}, got nothing")

    def reload(self, draw: random.Random) -> None:
        """Another model beside this one, loaded and closed."""
        number = draw.randrange(QUESTIONS)
        prompt, options = self.question(number)
        with quantloom.load(
            self.model.path,
            device=self.model.device,
            context_length=self.model.context_length,
            precision=self.model.precision,
            cache_type=self.model.cache_type,
        ) as other:
            self.check(number, other.generate(prompt, **options).tokens)

    def one(self, seed: int) -> None:
        """One random request."""
        draw = random.Random(seed)
        kinds = [self.greedy] * 8 + [self.half_a_stream] * 3 + [self.cancelled] * 2
        kinds += [self.sampled] * 3 + [self.session_that_goes_on] * 2 + [self.error] * 3
        kinds += [self.reload]
        kind = draw.choice(kinds)
        try:
            kind(draw)
        except Exception as error:
            self.fail(f"{kind.__name__} (seed {seed}): {type(error).__name__}: {error}")
        with self.lock:
            self.counts[kind.__name__] += 1


def main() -> int:
    """Runs for a set time and prints a report as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", help="GGUF file; the bundled model by default")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads-of-requests", type=int, default=3)
    parser.add_argument("--warm-up", type=float, default=0.2, help="share of the time, up to 60 s")
    parser.add_argument("--growth", type=float, default=16, help="MiB that memory may grow by")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commit", help="what was built; by default what git says")
    parser.add_argument("--json", type=Path, help="where the report goes too")
    arguments = parser.parse_args()

    model = quantloom.load(
        arguments.model, device=arguments.device, context_length=arguments_context(arguments.model)
    )
    soak = Soak(model, random.Random(arguments.seed))
    start = time.monotonic()
    end = start + arguments.seconds
    warm = start + min(60.0, arguments.warm_up * arguments.seconds)
    memory: list[tuple[int, int, int]] = []  # resident, on the device, allocated
    with ThreadPoolExecutor(arguments.threads_of_requests) as pool:
        while time.monotonic() < end and not soak.wrong:
            seeds = [soak.random.getrandbits(64) for _ in range(16)]
            list(pool.map(soak.one, seeds))
            if time.monotonic() >= warm:
                memory.append((resident(), on_device(arguments.device), allocated()))
    if not memory:
        memory.append((resident(), on_device(arguments.device), allocated()))
    tenth = max(1, len(memory) // 10)

    def report_of(which: int) -> dict[str, Any]:
        mib = [round(m[which] / MIB, 1) for m in memory]
        # The least of each tenth: what is held between requests.
        least = [min(mib[i : i + tenth]) for i in range(0, len(mib), tenth)]
        return {
            "start": least[0],
            "end": min(mib[-tenth:]),
            "peak": max(mib),
            "least_of_each_tenth": least,
        }

    held = {name: report_of(i) for i, name in enumerate(("resident", "device", "allocated"))}
    report = {
        **origin(model.device, arguments.commit),
        "model": model.path.name,
        "seconds": round(time.monotonic() - start, 1),
        "requests": dict(sorted(soak.counts.items())),
        "requests_in_all": sum(soak.counts.values()),
        "tokens": soak.tokens,
        "greedy_answers_known": len(soak.answers),
        **{f"{name}_mib": values for name, values in held.items()},
        "wrong": soak.wrong[:10],
    }
    text = json.dumps(report, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(text + "\n")
    grown = max(held[name]["end"] - held[name]["start"] for name in ("resident", "device"))
    return 0 if not soak.wrong and grown <= arguments.growth else 1


def arguments_context(path: str | None) -> int | None:
    """Short enough that a prompt which fills the context stays quick."""
    if path is None:
        return 512
    with quantloom.open(path) as file:
        trained = file.metadata.get(f"{file.architecture}.context_length", 512)
    return min(512, int(trained))


if __name__ == "__main__":
    sys.exit(main())
