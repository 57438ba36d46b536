"""What the scripts of benchmarks/ write beside their figures, and that the sides do the same."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import batch_invariant
import models
import pytest
from origin import device_name, origin

import cpu

LLAMA_BENCH = """\
#!{python}
import json, sys
with open({log!r}, "a") as log:
    log.write(json.dumps(sys.argv[1:]) + "\\n")
after = sys.argv[sys.argv.index("-d") + 1] if "-d" in sys.argv else "0"
print(json.dumps([{{"avg_ts": 100.0 + int(after), "build_commit": "abc"}}]))
"""


def test_origin_says_how_and_with_what(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["/home/someone/benchmarks/cpu.py", "--llama-bench", "/home/someone/llama-bench"]
    monkeypatch.setattr(sys, "argv", [*words, "--repeat", "2"])
    found = origin("cpu", "abc")
    assert found["command"] == "python benchmarks/cpu.py --llama-bench llama-bench --repeat 2"
    assert found["commit"] == "abc" and found["device"] and found["date"]
    assert sorted(found["versions"]) == ["numpy", "python", "quantloom"]


def run(module: Any, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [module.__file__, *words])
    module.main()


def test_both_sides_decode_after_the_prompt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log, program, file = (tmp_path / name for name in ("log", "llama-bench", "model.gguf"))
    program.write_text(LLAMA_BENCH.format(python=sys.executable, log=str(log)))
    program.chmod(0o755)
    file.write_bytes(b"1234")
    monkeypatch.setattr(cpu, "measure_quantloom", lambda work, precision: cpu.Speed(300.0, 40.0))
    monkeypatch.setenv("QUANTLOOM_CPU", "auto")
    path = tmp_path / "cpu.json"
    words = ["--llama-bench", str(program), "--file", str(file), "--json", str(path)]
    run(cpu, [*words, "--prompt-tokens", "32", "--new-tokens", "8"], monkeypatch)
    asked = [json.loads(line) for line in log.read_text().splitlines()]
    of_each = ["-m", str(file), "-t", "2"]
    assert asked[0] == [*of_each, "-p", "32", "-n", "0", "-r", "1", "-o", "json"]
    assert asked[1] == [*of_each, "-p", "0", "-n", "8", "-d", "32", "-r", "1", "-o", "json"]
    found = json.loads(path.read_text())
    assert found["results"]["llama.cpp"] == {"prefill": 100.0, "decode": 132.0}
    assert found["results"]["exact"] == {"prefill": 300.0, "decode": 40.0}
    assert found["llama_commit"] == "abc" and found["commit"] and found["command"]
    assert str(tmp_path) not in path.read_text()
    assert "llama.cpp" in capsys.readouterr().out


class Session:
    """Notes when it is reset."""

    def __init__(self, name: str, seen: list[str]) -> None:
        self._name, self._seen = name, seen

    def reset(self) -> None:
        self._seen.append(self._name)


def test_modes_take_turns() -> None:
    seen: list[str] = []
    sessions: Any = {False: Session("off", seen), True: Session("on", seen)}
    # The first turn, which warms up, is the slowest.
    found = batch_invariant.in_turn(sessions, lambda s: (100.0 / len(seen), 1.0), 3)
    assert seen == ["off", "on"] * 4
    assert found == {False: [100 / 5, 1.0], True: [100 / 6, 1.0]}


def measured(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(models, "read_bandwidth", lambda device: 1e9)
    monkeypatch.setattr(models, "file_of", lambda entry, folder, long: folder / "model.gguf")
    monkeypatch.setattr(models, "measure", lambda path, arguments, bandwidth: {"rate": 1.0})
    monkeypatch.setattr(models, "print_row", lambda entry, row, long: None)
    run(models, ["--device", "cpu", *words], monkeypatch)


def test_each_model_says_where_its_figures_are_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.json"
    words = ["--json", str(path), "--folder", str(tmp_path), "--models"]
    measured(monkeypatch, *words, "Qwen3-0.6B:Q8_0")
    measured(monkeypatch, *words, "Llama-3.2-1B:Q4_K_M", "--commit", "abc")
    found = json.loads(path.read_text())
    assert sorted(found["models"]) == ["Llama-3.2-1B:Q4_K_M", "Qwen3-0.6B:Q8_0"]
    row = found["models"]["Llama-3.2-1B:Q4_K_M"]
    assert row["commit"] == "abc" and row["device"] == found["device"] == device_name("cpu")
    assert "--models Llama-3.2-1B:Q4_K_M" in row["command"] and row["versions"]
    assert "--models Qwen3-0.6B:Q8_0" in found["models"]["Qwen3-0.6B:Q8_0"]["command"]


def test_figures_of_another_device_are_not_mixed_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.json"
    text = json.dumps({"device": "NVIDIA H200", "models": {}})
    path.write_text(text)
    with pytest.raises(SystemExit, match="holds figures of NVIDIA H200, not of"):
        measured(monkeypatch, "--json", str(path), "--models", "Qwen3-0.6B:Q8_0")
    assert path.read_text() == text
