"""What benchmarks/gpu_report.py makes of the programs' output, and of programs that fail."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gpu_report
import pytest
from origin import origin

import quantloom
from quantloom import cuda

MATMUL = {
    "read_gbs": 4668.8,
    "results": [
        {"format": "Q4_K", "rows": 28672, "columns": 4096, "tokens": 1, "kernel": "stream-1",
         "us": 18.5, "gbs": 3570.7, "share": 0.765},
        {"format": "Q4_K", "rows": 4096, "columns": 4096, "tokens": 2048, "kernel": "wide",
         "us": 110.0, "gbs": 86.0, "share": 0.018},
    ],
}  # fmt: skip
OPERATIONS = """\
rms_norm, 1 rows of 4096                          3.61 us       9 GB/s
rms_norm, 512 rows of 4096                        6.02 us    2787 GB/s
attention f16, 64 tokens after 0                 12.81 us   168.0 TFLOP/s
sample, top_k 40, top_p 0.9, min_p 0.05           9.70 us      53 GB/s
"""
UPLOAD = """\
pinned copy 55.5 GB/s
mapped, threads  2, pieces of 1024 KiB:  12.2 GB/s, 0.22 of the pinned copy
read, threads 10, pieces of 2048 KiB:  43.2 GB/s, 0.78 of the pinned copy
to a destination: 0 words differ
through device buffers: 41.0 GB/s, 0.74 of the pinned copy
cancelled: the load was cancelled
"""


@pytest.fixture
def results(repository: Path) -> Path:
    return repository / "benchmarks" / "results"


def test_matmul_stands_beside_the_nearer_ceiling() -> None:
    found = gpu_report.parse_matmul(MATMUL)
    assert found.rates == {"read": 4668.8}
    one, many = gpu_report.with_shares(found.rows, {"read": 4700.0, "bf16": 780.0})
    assert (one["of"], one["name"]) == ("read", "Q4_K 28672 x 4096, 1 tokens, stream-1")
    assert one["share"] == pytest.approx(3570.7 / 4700)
    assert many["of"] == "bf16"
    assert many["share"] == pytest.approx(2e-6 * 2048 * 4096 * 4096 / 110 / 780)


def test_dequantize_as_recorded(results: Path) -> None:
    report = json.loads((results / "dequantize_h200.json").read_text())
    found = gpu_report.parse_dequantize(report)
    assert found.rates == {"copy": report["copy_gb_s"]}
    assert len(found.rows) == 3 * len(report["formats"])
    for row in gpu_report.with_shares(found.rows, found.rates):
        assert row["share"] == pytest.approx(
            report["formats"][row["format"]][row["output"]]["share"], abs=1e-3
        )


def test_attention_as_recorded(results: Path) -> None:
    text = (results / "attention_h200.txt").read_text()
    found = gpu_report.parse_attention(text)
    assert found.rates == {"bf16": 778}
    assert len(found.rows) == text.count(" us ")
    rows = {
        row["name"]: row for row in gpu_report.with_shares(found.rows, {"read": 4600, "bf16": 778})
    }
    assert rows["F16, 8192 tokens after 0"]["share"] == pytest.approx(600.1 / 778)
    row = rows["F16, 1 tokens after 32767, invariant"]
    assert (row["of"], row["share"], row["invariant"]) == ("read", 2248 / 4600, True)


def test_attention_without_checks(results: Path) -> None:
    text = (results / "attention_h200.txt").read_text()
    bare = "\n".join(line.partition("  error")[0] for line in text.splitlines())
    assert gpu_report.parse_attention(bare) == gpu_report.parse_attention(text)


def test_operations() -> None:
    rows = gpu_report.with_shares(
        gpu_report.parse_operations(OPERATIONS).rows, {"read": 4600.0, "copy": 4200.0}
    )
    assert [row["of"] for row in rows] == ["copy", "copy", None, "read"]
    assert rows[2] == {
        "name": "attention f16, 64 tokens after 0", "us": 12.81, "bf16": 168.0,
        "share": None, "of": None,
    }  # fmt: skip
    assert rows[3]["name"] == "sample, top_k 40, top_p 0.9, min_p 0.05"


def test_upload() -> None:
    found = gpu_report.parse_upload(UPLOAD)
    assert found.rates == {"pinned": 55.5}
    assert [row["pinned"] for row in found.rows] == [12.2, 43.2, 41.0]
    assert found.rows[0]["name"] == "mapped, threads 2, pieces of 1024 KiB"


def test_decode_as_recorded(results: Path) -> None:
    text = (results / "decode_breakdown_h200.txt").read_text()
    section = text.split("\n== ")[1]
    found = gpu_report.parse_decode(section)
    assert found.rates == {"read": 4520}
    rows = {row["name"]: row for row in gpu_report.with_shares(found.rows, {"read": 4520.0})}
    assert rows["32 of 28672 x 4096 Q4_K"]["share"] == pytest.approx(467.6 / 510.2)
    assert rows["32 of attention"]["share"] is None
    whole = rows["a step after 512 tokens"]
    assert whole["share"] == pytest.approx(rows["all"]["share"] * rows["all"]["us"] / whole["us"])
    without = section.split("\n\n")[0] + "\nnot in one kernel: the context is longer\n"
    *_, only = gpu_report.parse_decode(without).rows
    assert only["name"] == "a step after 512 tokens, not in one kernel: the context is longer"


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (gpu_report.parse_operations, "rms_norm, 1 rows      nan us\n"),
        (gpu_report.parse_operations, ""),
        (gpu_report.parse_upload, "read, 2 threads: 12.2 GB/s\n"),
        (gpu_report.parse_attention, "F16 64 tokens after 0   7.33 us\n"),
        (gpu_report.parse_attention, "no GPU\n"),
    ],
)
def test_what_is_not_understood(parse: Any, text: str) -> None:
    with pytest.raises(gpu_report.Failure):
        parse(text)


def program(folder: Path, name: str, script: str) -> None:
    path = folder / f"benchmark_{name}"
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(0o755)


def one_model(options: argparse.Namespace, read: float) -> Iterator[tuple[str, dict[str, Any]]]:
    yield "Llama-3.2-1B:Q4_K_M", {"read": read}
    raise quantloom.OutOfMemory("no room for the second")


def test_a_part_that_fails_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "matmul").write_text(json.dumps(MATMUL))
    (tmp_path / "upload.txt").write_text(UPLOAD)
    program(tmp_path, "matmul", f'cp "{tmp_path}/matmul" "$1"')
    program(tmp_path, "upload", f'cat "{tmp_path}/upload.txt"')
    program(tmp_path, "operations", "echo no such kernel; exit 3")
    monkeypatch.setattr(cuda, "is_available", lambda: True)
    monkeypatch.setattr(cuda, "trim", lambda device: None)
    monkeypatch.setattr(gpu_report.models, "measure_all", one_model)
    monkeypatch.setattr(gpu_report, "origin", lambda device, built: origin("cpu", built))
    monkeypatch.setattr(gpu_report, "read_bandwidth", lambda device: 4.5e12)
    monkeypatch.setattr(
        gpu_report,
        "product_seconds",
        lambda device, shapes, tokens: (dict.fromkeys(shapes, 1.4e-3), ""),
    )
    path = tmp_path / "found.json"
    words = ["--build", str(tmp_path), "--json", str(path), "--commit", "abc"]
    words += ["--skip", "decode"]
    monkeypatch.setattr(sys, "argv", ["gpu_report.py", *words])
    assert gpu_report.main() == 1
    shown = capsys.readouterr()
    assert "FAILED: operations: benchmark_operations ended with 3: no such kernel" in shown.err
    assert "FAILED: attention: there is no" in shown.err
    assert "read, threads 10, pieces of 2048 KiB" in shown.out
    report = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert sorted(report["failed"]) == ["attention", "dequantize", "models", "operations"]
    assert report["failed"]["models"] == "OutOfMemory: no room for the second"
    assert report["models"] == {"Llama-3.2-1B:Q4_K_M": {"read": 4.6688e12}}
    assert report["skipped"] == ["decode"]
    assert report["commit"] == "abc" and report["device"] and report["date"]
    assert report["ceilings"]["read"]["rate"] == 4668.8  # what benchmark_matmul reached
    assert report["ceilings"]["read"]["measured"]["ceilings"] == 4500
    assert sorted(report["parts"]) == ["matmul", "matmul_many", "upload"]


@pytest.mark.skipif(cuda.is_available(), reason="a GPU is there")
def test_no_gpu_is_said(repository: Path) -> None:
    command = [sys.executable, "benchmarks/gpu_report.py", "--build", "nowhere"]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("no GPU can be used: ")
