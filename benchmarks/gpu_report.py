"""What this GPU reaches at most, and what the kernels and models reach of it, in one command.

    python benchmarks/gpu_report.py --build BUILD_FOLDER
    python benchmarks/gpu_report.py --build BUILD_FOLDER --quick --json benchmarks/results/gpu.json

BUILD_FOLDER is one of CMake's, built with -DQUANTLOOM_BENCHMARKS=ON. The ceilings are the highest
rates that anything reached in this run which does nothing else: reading memory, copying it,
cuBLAS's bfloat16 product of 8192 x 8192 x 8192, and copying from pinned memory of the host. A
kernel stands beside the ceiling that it is nearest to, of those that its bytes and operations count
for; one whose values fit the level-2 cache can pass that of memory. Rates are in the ceilings'
units. The programs that can leave out their checks do (NO_CHECKS). A part that fails is named at
the end, and the exit status is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import models
from origin import origin

from quantloom import cuda
from quantloom.ceilings import product_seconds, read_bandwidth

Row = dict[str, Any]

DEVICE = "cuda:0"
UNITS = {"read": "GB/s", "copy": "GB/s", "bf16": "TFLOP/s", "pinned": "GB/s"}
# In this order: what is bound by operations leaves the clock low for a while.
KERNEL_PARTS = (
    "dequantize", "upload", "operations", "matmul", "decode", "attention", "matmul_many",
)  # fmt: skip
PARTS = (*KERNEL_PARTS, "models")
FEW_TOKENS, MANY_TOKENS = ("1", "8", "16"), ("512", "2048")
QUICK_FORMATS, QUICK_FORMATS_OF_MANY = "Q4_0,Q4_K,Q6_K,Q8_0,IQ4_XS", "Q4_K,Q8_0"
QUICK_MODELS = ["Llama-3.1-8B:Q4_K_M", "Llama-3.2-1B:Q4_K_M"]
DECODED, QUICKLY_DECODED = QUICK_MODELS
PRODUCT = 8192
LIMIT = 600  # seconds of one program


class Failure(Exception):
    """Of one part; the others go on."""


@dataclass
class Found:
    """Rows of a part, and the rates that it measured of what does nothing else."""

    rows: list[Row] = field(default_factory=list)
    rates: dict[str, float] = field(default_factory=dict)


def _figures(text: str, pattern: str, looks_like: str) -> Iterator[re.Match[str]]:
    """Matches of the lines that hold figures; one that does not match is a change unheard of."""
    found = False
    for line in text.splitlines():
        match = re.match(pattern, line)
        if match:
            found = True
            yield match
        elif re.search(looks_like, line):
            raise Failure(f"a line of figures that is not understood: {line!r}")
    if not found:
        raise Failure("it printed no figures")


def _rates(text: str, pattern: str) -> list[float]:
    found = [float(rate) for rate in re.findall(pattern, text, re.MULTILINE)]
    if not found:
        raise Failure(f"nothing like {pattern!r} in what it printed")
    return found


def parse_matmul(report: dict[str, Any]) -> Found:
    """benchmark_matmul's JSON."""
    rows = [
        {
            "name": f"{r['format']} {r['rows']} x {r['columns']}, {r['tokens']} tokens, "
            f"{r['kernel']}",
            **{key: r[key] for key in ("format", "rows", "columns", "tokens", "kernel", "us")},
            "read": r["gbs"],
            "bf16": 2e-6 * r["tokens"] * r["rows"] * r["columns"] / r["us"],
        }
        for r in report["results"]
    ]
    return Found(rows, {"read": report["read_gbs"]})


def parse_dequantize(report: dict[str, Any]) -> Found:
    """benchmark_dequantize's JSON."""
    rows = [
        {"name": f"{format} to {output}", "format": format, "output": output, "copy": entry["gb_s"]}
        for format, outputs in report["formats"].items()
        for output, entry in outputs.items()
    ]
    return Found(rows, {"copy": report["copy_gb_s"]})


def parse_attention(text: str) -> Found:
    """What benchmark_attention prints."""
    pattern = (
        r"(?P<cache>F16|Q8_0) +(?P<tokens>\d+) tokens after +(?P<past>\d+)(?P<mode>, invariant)? +"
        r"(?P<us>[\d.]+) us +(?P<read>[\d.]+) GB/s +(?P<bf16>[\d.]+) TFLOP/s "
    )
    rows: list[Row] = [
        {
            "name": f"{m['cache']}, {m['tokens']} tokens after {m['past']}{m['mode'] or ''}",
            "cache": m["cache"],
            "tokens": int(m["tokens"]),
            "past": int(m["past"]),
            "invariant": m["mode"] is not None,
            **{key: float(m[key]) for key in ("us", "read", "bf16")},
        }
        for m in _figures(text, pattern, r" us\b")
    ]
    return Found(rows, {"bf16": max(_rates(text, r"^cuBLAS bf16.* (\d+) TFLOP/s$"))})


def parse_operations(text: str) -> Found:
    """What benchmark_operations prints."""
    pattern = r"(?P<name>\S.*?) +(?P<us>[\d.]+) us(?: +(?P<bytes>[\d.]+) GB/s)?"
    pattern += r"(?: +(?P<bf16>[\d.]+) TFLOP/s)?"
    rows = []
    for m in _figures(text, pattern, r" us\b"):
        row: Row = {"name": m["name"], "us": float(m["us"])}
        if m["bytes"]:
            # The others write about as much as they read.
            reads = m["name"].startswith(("sample", "attention", "matmul", "raw_matmul"))
            row["read" if reads else "copy"] = float(m["bytes"])
        if m["bf16"]:
            row["bf16"] = float(m["bf16"])
        rows.append(row)
    return Found(rows)


def parse_upload(text: str) -> Found:
    """What benchmark_upload prints."""
    pattern = r"(?P<name>(?:read|mapped|through).*?): +(?P<rate>[\d.]+) GB/s"
    rows: list[Row] = [
        {"name": re.sub(" +", " ", m["name"]), "pinned": float(m["rate"])}
        for m in _figures(text, pattern, r": +[\d.]+ GB/s")
    ]
    return Found(rows, {"pinned": _rates(text, r"^pinned copy ([\d.]+) GB/s$")[0]})


def parse_decode(text: str) -> Found:
    """What benchmark_decode_breakdown prints."""
    step = re.search(r"at (\d+) tokens: ([\d.]+) us a step, of which sampling ([\d.]+)", text)
    if step is None:
        raise Failure("it printed no step")
    us = float(step[2])
    whole: Row = {"name": f"a step after {step[1]} tokens", "us": us}
    sampling: Row = {"name": "its sampling", "us": float(step[3])}
    obstacle = re.search(r"^not in one kernel: .*$", text, re.MULTILINE)
    if obstacle:
        whole["name"] += f", {obstacle[0]}"
        return Found([sampling, whole])
    read = _rates(text, r"^limit: memory is read at ([\d.]+) GB/s$")[0]
    pattern = r"(?P<name>.*\S) +(?P<count>\d+)" + "".join(
        rf" +(?P<{name}>-?[\d.]+)"
        for name in ("us", "limit", "inputs", "sums", "slowest", "outputs")
    )
    rows: list[Row] = []
    at_limit = 0.0  # of the last line, which has all of them
    for m in _figures(text, pattern + "$", r" \d+( +\S+){6}$"):
        name = m["name"] if m["name"] == "all" else f"{m['count']} of {m['name']}"
        row: Row = {"name": name, "us": float(m["us"])}
        at_limit = float(m["limit"])
        if at_limit > 0 and row["us"] > 0:  # attention's bytes are not counted
            row["read"] = read * at_limit / row["us"]
        rows.append(row)
    whole["read"] = read * at_limit / us
    return Found([*rows, sampling, whole], {"read": read})


def with_shares(rows: list[Row], ceilings: dict[str, float]) -> list[Row]:
    """The rows, each with its share of the ceiling that it is nearest to."""
    for row in rows:
        shares = [(row[of] / ceilings[of], of) for of in UNITS if of in row and ceilings.get(of)]
        share, of = max(shares, default=(None, None))
        row |= {"share": share, "of": of}
    return rows


def print_rows(part: str, rows: list[Row], ceilings: dict[str, float]) -> None:
    print(f"\n{part}")
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        us = f"{row['us']:12,.2f} us" if "us" in row else ""
        of = row["of"]
        if of is None:
            print(f"  {row['name']:{width}} {us}")
            continue
        print(
            f"  {row['name']:{width}} {us} {row[of]:9,.1f} {UNITS[of]:7} {row['share']:6.3f} of "
            f"{of} {ceilings[of]:,.0f}"
        )


class Programs:
    """Those of a build folder."""

    def __init__(self, build: Path, scratch: Path, quick: bool) -> None:
        self.build, self.scratch, self.quick = build, scratch, quick
        # Products as the models call them: a launch begins while the one before ends.
        self.environment = os.environ | {"NO_CHECKS": "1", "OVERLAP": "1"}
        self.environment["LD_LIBRARY_PATH"] = ":".join(self._libraries())

    @staticmethod
    def _libraries() -> list[str]:
        """First where this process has its cuBLAS from, which may be pip's."""
        folders = []
        for line in Path("/proc/self/maps").read_text().splitlines():
            if "/libcublas.so" in line:
                folders = [str(Path(line[line.index("/") :]).parent)]
        return folders + [f for f in os.environ.get("LD_LIBRARY_PATH", "").split(":") if f]

    def run(self, name: str, *words: str) -> str:
        program = self.build / f"benchmark_{name}"
        if not program.is_file():
            why = " (CMake leaves it out where it finds no cuBLAS)" if name == "attention" else ""
            raise Failure(f"there is no {program}{why}")
        try:
            done = subprocess.run(
                [program, *words],
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=LIMIT,
            )
        except subprocess.TimeoutExpired as error:
            raise Failure(f"{program.name} ran for more than {LIMIT} s") from error
        except OSError as error:
            raise Failure(f"{program.name}: {error}") from error
        if done.returncode != 0:
            last = "\n".join(done.stdout.splitlines()[-5:])
            raise Failure(f"{program.name} ended with {done.returncode}: {last}")
        return done.stdout

    def report(self, name: str, *words: str) -> dict[str, Any]:
        """What it writes as JSON."""
        path = self.scratch / f"{name}.json"
        self.run(name, str(path), *words)
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def dequantize(self) -> Found:
        return parse_dequantize(self.report("dequantize"))

    def upload(self) -> Found:
        return parse_upload(self.run("upload", str(self.scratch / "upload")))

    def operations(self) -> Found:
        return parse_operations(self.run("operations"))

    def attention(self) -> Found:
        return parse_attention(self.run("attention"))

    def matmul(self) -> Found:
        formats = QUICK_FORMATS if self.quick else ""
        return parse_matmul(self.report("matmul", formats, *FEW_TOKENS))

    def matmul_many(self) -> Found:
        formats = QUICK_FORMATS_OF_MANY if self.quick else ""
        return parse_matmul(self.report("matmul", formats, *MANY_TOKENS))

    def decode(self, file: Path) -> Found:
        return parse_decode(self.run("decode_breakdown", str(file), "512"))


class Run:
    """One run: what was measured, what failed, and the file that says so."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.rates: dict[str, dict[str, float]] = {of: {} for of in UNITS}
        self.parts: dict[str, list[Row]] = {}
        self.models: dict[str, Row] = {}
        self.seconds: dict[str, float] = {}
        self.failed: dict[str, str] = {}
        self.origin = origin(DEVICE, arguments.commit)

    @property
    def ceilings(self) -> dict[str, float]:
        return {of: max(rates.values()) for of, rates in self.rates.items() if rates}

    @property
    def read(self) -> float:
        if not self.rates["read"]:
            raise Failure("the rate of reading memory was not measured")
        return self.ceilings["read"]

    def attempt(self, part: str, work: Callable[[], Found]) -> None:
        """Keeps what a part finds, or why it failed."""
        print(f"{part} ...", file=sys.stderr, flush=True)
        start = time.perf_counter()
        try:
            found = work()
            if found.rows:
                self.parts[part] = found.rows
            for of, rate in found.rates.items():
                self.rates[of][part] = rate
        except Exception as error:  # whatever it is, the other parts have their turn
            text = str(error) if isinstance(error, Failure) else f"{type(error).__name__}: {error}"
            self.failed[part] = text
        self.seconds[part] = round(time.perf_counter() - start, 1)
        self.save()

    def save(self) -> None:
        if self.arguments.json is None:
            return
        report = {
            **self.origin,
            "quick": self.arguments.quick,
            "ceilings": {
                of: {"unit": UNITS[of], "rate": rate, "measured": self.rates[of]}
                for of, rate in self.ceilings.items()
            },
            "parts": {part: with_shares(rows, self.ceilings) for part, rows in self.parts.items()},
            "models": self.models,
            "seconds": self.seconds,
            "skipped": self.arguments.skip,
            "failed": self.failed,
        }
        self.arguments.json.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")

    def measure_ceilings(self) -> Found:
        read = read_bandwidth(DEVICE) * 1e-9
        self.rates["read"]["ceilings"] = read
        shape = (PRODUCT, PRODUCT)
        seconds, _ = product_seconds(DEVICE, [shape], PRODUCT)
        cuda.trim(DEVICE)  # the programs need the memory
        return Found(rates={"bf16": 2e-12 * PRODUCT**3 / seconds[shape]})

    def measure_models(self) -> Found:
        words = ["--models", *self.arguments.models, "--device", DEVICE]
        words += ["--commit", self.origin["commit"]] + ["--quick"] * self.arguments.quick
        if self.arguments.folder:
            words += ["--folder", str(self.arguments.folder)]
        options = models.options_of(words)
        print("\nmodels: tokens/s, with shares of limits")
        for entry, row in models.measure_all(options, self.read * 1e9):
            self.models[entry] = row
            self.save()
        return Found()

    def kernels(self, scratch: Path) -> None:
        programs = Programs(self.arguments.build, scratch, self.arguments.quick)
        for part in KERNEL_PARTS:
            if part in self.arguments.skip:
                continue
            if part == "decode":
                self.attempt(part, lambda: self.decode(programs, scratch))
            else:
                self.attempt(part, getattr(programs, part))

    def decode(self, programs: Programs, scratch: Path) -> Found:
        entry = QUICKLY_DECODED if self.arguments.quick else DECODED
        folder = self.arguments.folder or scratch
        folder.mkdir(parents=True, exist_ok=True)
        path = models.file_of(entry, folder)
        found = programs.decode(path)
        if not self.arguments.folder:
            path.unlink()
        found.rows[-1]["name"] += f", {entry}"
        return found

    def print_kernels(self) -> None:
        print("ceilings")
        for of, rate in self.ceilings.items():
            by = ", ".join(f"{part} {rate:,.1f}" for part, rate in self.rates[of].items())
            print(f"  {of:8} {rate:9,.1f} {UNITS[of]:7}  measured: {by}")
        for part, rows in self.parts.items():
            print_rows(part, with_shares(rows, self.ceilings), self.ceilings)
        sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--build", type=Path, required=True, help="where the programs are")
    parser.add_argument("--quick", action="store_true", help="fewer formats, sizes and models")
    parser.add_argument(
        "--skip", nargs="+", choices=PARTS, default=[], metavar="PART", help=", ".join(PARTS)
    )
    parser.add_argument("--models", nargs="+", type=models.known, metavar="NAME:MIX")
    parser.add_argument("--folder", type=Path, help="where the models' files are written and kept")
    parser.add_argument("--commit", help="what was built; by default what git says")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    arguments.models = arguments.models or (QUICK_MODELS if arguments.quick else models.MODELS)
    if not cuda.is_available():
        parser.exit(2, f"no GPU can be used: {cuda.status().reason}\n")
    run = Run(arguments)
    print(" ".join(f"{name} {value}" for name, value in run.origin.items()))
    run.attempt("ceilings", run.measure_ceilings)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        run.kernels(scratch)
        run.print_kernels()
        if "models" not in arguments.skip:
            run.attempt("models", run.measure_models)
    print("\nseconds: " + ", ".join(f"{part} {spent}" for part, spent in run.seconds.items()))
    for part, why in run.failed.items():
        print(f"FAILED: {part}: {why}", file=sys.stderr)
    return 1 if run.failed else 0


if __name__ == "__main__":
    sys.exit(main())
