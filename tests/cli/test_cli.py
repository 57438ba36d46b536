"""The command line, run as a user runs it: as a process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import good, run

import quantloom
from quantloom.bench_picture import PictureError, check
from quantloom.gguf_writer import GGUFWriter
from quantloom.model import bundled_model
from quantloom.perplexity import perplexity


def test_version() -> None:
    assert good("--version") == f"quantloom {quantloom.__version__}\n"


def test_one_question() -> None:
    assert good("chat", "What is 2+2?").strip() == "4"


def test_a_conversation_on_standard_input() -> None:
    answers = good("chat", stdin="What is 3+4?\n/reset\n\nWhat is 5-2?\n/quit\nnever read\n")
    assert answers.split() == ["7", "3"]


def test_chat_as_json() -> None:
    answer = json.loads(good("chat", "What is 2+2?", "--json"))
    assert answer == {"question": "What is 2+2?", "answer": "4"}


def test_generate_streams_and_reports() -> None:
    done = run("generate", "Once upon a time", "-n", "12", "--device", "cpu")
    assert done.returncode == 0
    assert len(done.stdout.split()) > 3
    assert "12 tokens on cpu" in done.stderr
    assert "finish_reason length" in done.stderr


def test_generate_as_json_repeats_with_its_seed() -> None:
    options = ["generate", "Once", "-n", "16", "-t", "1", "--json", "--device", "cpu"]
    first = json.loads(good(*options))
    second = json.loads(good(*options, "--seed", str(first["seed"])))
    assert second["tokens"] == first["tokens"]
    assert first["finish_reason"] in ("stop", "length")
    assert len(first["tokens"]) <= 16


def test_generate_reads_standard_input_and_stops_at_a_string() -> None:
    text = good("generate", "-", "-n", "40", "--stop", ".", stdin="Once upon a time")
    assert "." not in text
    assert text.strip()


def test_inspect() -> None:
    path = bundled_model()
    text = good("inspect", str(path), env={"COLUMNS": "160"})
    assert "general.architecture" in text
    assert "token_embd.weight" in text
    listed = json.loads(good("inspect", str(path), "--json"))
    assert listed["metadata"]["general.architecture"] == "llama"
    assert sum(t["bytes"] for t in listed["tensors"]) == listed["bytes"]


def test_quantize(tmp_path: Path) -> None:
    source = tmp_path / "source.gguf"
    target = tmp_path / "target.gguf"
    writer = GGUFWriter()
    writer.add("general.architecture", "llama")
    weights = np.random.default_rng(0).normal(size=(8, 256)).astype(np.float32)
    writer.add_tensor("blk.0.ffn_up.weight", weights)
    writer.write(source)
    out = good("quantize", str(source), str(target), "--type", "Q4_0")
    assert "Q4_0" in out
    with quantloom.open(target) as file:
        assert file.tensors["blk.0.ffn_up.weight"].format == "Q4_0"
    refused = run("quantize", str(source), str(target), "--type", "Q4_0")
    assert refused.returncode == 1
    assert "--overwrite" in refused.stderr
    missing = run("quantize", str(tmp_path / "none.gguf"), str(target), "--overwrite")
    assert missing.returncode == 1
    assert "FileError: cannot open" in missing.stderr
    assert "none.gguf" in missing.stderr and len(missing.stderr.splitlines()) == 1
    again = tmp_path / "again.gguf"
    refused = run("quantize", str(target), str(again), "--type", "Q8_0")
    assert refused.returncode == 1
    assert "--allow-requantize" in refused.stderr
    good("quantize", str(target), str(again), "--type", "Q8_0", "--allow-requantize")
    with quantloom.open(again) as file:
        assert file.tensors["blk.0.ffn_up.weight"].format == "Q8_0"


def test_quantize_compares_with_all_shards(tmp_path: Path) -> None:
    shards = [tmp_path / f"s-{number:05}-of-00002.gguf" for number in (1, 2)]
    for number, path in enumerate(shards):
        writer = GGUFWriter()
        writer.add("split.no", number, "uint16")
        writer.add("split.count", 2, "uint16")
        writer.add("split.tensors.count", 2, "int32")
        rows = 8 + 504 * number
        writer.add_tensor(f"blk.{number}.ffn_up.weight", np.ones((rows, 256), np.float32))
        writer.write(path)
    before = sum(path.stat().st_size for path in shards)
    target = tmp_path / "target.gguf"
    result = json.loads(good("quantize", str(shards[0]), str(target), "--type", "Q8_0", "--json"))
    after = target.stat().st_size
    assert (result["source_bytes"], result["target_bytes"]) == (before, after)
    out = good("quantize", str(shards[0]), str(target), "--type", "Q8_0", "--overwrite")
    assert f"{after / before:.2f} of the 2 shards of {shards[0].name}" in out


def test_bench() -> None:
    result = json.loads(
        good("bench", "--prompt-tokens", "8", "--new-tokens", "4", "--repeat", "2", "--json")
    )
    assert result["prefill"] > 0
    assert result["decode"] > 0
    assert len(result["decode_runs"]) == 2
    assert 0 < result["gap_p50"] <= result["gap_p99"]
    assert 0 <= result["thread_busy"] < 1.1
    limits = result["limits"]
    assert limits["read_bandwidth"] > 1e8
    assert result["decode_share"] == pytest.approx(result["decode"] / limits["decode"])
    assert result["prefill_share"] == pytest.approx(result["prefill"] / limits["prefill"])
    too_long = run("bench", "--prompt-tokens", "100000")
    assert too_long.returncode == 1
    assert "do not fit" in too_long.stderr


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_bench_draws(tmp_path: Path, ending: str) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / f"bench.{ending}"
    sizes = ("--prompt-tokens", "8", "--new-tokens", "4", "--repeat", "1")
    shown = good("bench", str(bundled_model()), *sizes, "--picture", str(picture))
    assert "decode" in shown and "prefill" in shown
    assert picture.read_bytes()[:5] in (b"\x89PNG\r", b"<?xml")


def test_bench_names_what_a_picture_needs(tmp_path: Path) -> None:
    # What is asked before the model is loaded does not wait for a bench of hours.
    endless = ("bench", "--repeat", "1000000", "--picture")
    refused = run(*endless, str(tmp_path / "bench.bmp"), timeout=30)
    assert refused.returncode == 1
    assert "a picture ends in .png or .svg" in refused.stderr
    refused = run(*endless, str(tmp_path / "none" / "bench.png"), timeout=30)
    assert refused.returncode == 1
    assert "FileError: no folder" in refused.stderr


def test_bench_asks_for_matplotlib_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("quantloom.bench_picture.find_spec", lambda name: None)
    with pytest.raises(PictureError, match="pip install matplotlib"):
        check(tmp_path / "bench.png")


def test_bench_prints_before_it_draws(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "bench.png"
    picture.mkdir()
    sizes = ("--prompt-tokens", "8", "--new-tokens", "4", "--repeat", "1")
    failed = run("bench", *sizes, "--picture", str(picture))
    assert failed.returncode == 1
    assert "decode" in failed.stdout and "prefill" in failed.stdout
    assert "FileError: cannot write" in failed.stderr


def test_bench_takes_one_file() -> None:
    refused = run("bench", str(bundled_model()), "--model", "other.gguf", timeout=30)
    assert refused.returncode == 1
    assert "InvalidArgument: two files to measure" in refused.stderr


def test_bench_shows_its_file_in_one_pair_of_brackets() -> None:
    text = good("bench", "--help", env={"COLUMNS": "160", "NO_COLOR": "1"}).upper()
    assert "[FILE]" in text and "[[FILE]]" not in text


def test_perplexity(tmp_path: Path) -> None:
    story = json.loads(good("generate", "Once upon a time", "-n", "200", "--json"))["text"]
    text = tmp_path / "story.txt"
    text.write_text("Once upon a time" + story)
    result = json.loads(good("perplexity", str(text), "--context", "64", "--json"))
    # The model's own greedy text surprises it little.
    assert 1 <= result["perplexity"] < 4
    assert result["tokens"] == result["windows"] * 32
    short = run("perplexity", str(text), "--context", "1000")
    assert short.returncode == 1
    assert "fewer than one window" in short.stderr
    for windows in ("0", "-3"):
        none = run("perplexity", str(text), "--windows", windows)
        assert none.returncode == 1
        assert f"InvalidArgument: max_windows is {windows}, below 1" in none.stderr


def test_perplexity_keeps_the_ends_of_lines(tmp_path: Path) -> None:
    content = "Once upon a time\r\nthere was a girl.\r" * 12
    text = tmp_path / "lines.txt"
    text.write_bytes(content.encode())
    result = json.loads(good("perplexity", str(text), "--context", "32", "--json"))
    with quantloom.load(device="cpu", verbose=False) as model:
        expected = perplexity(model, content, context=32)
    assert result["tokens"] == expected.tokens
    assert result["perplexity"] == pytest.approx(expected.perplexity, rel=1e-4)


def test_perplexity_of_what_is_no_text(tmp_path: Path) -> None:
    text = tmp_path / "latin.txt"
    text.write_bytes(b"caf\xe9 " * 400)
    refused = run("perplexity", str(text))
    assert refused.returncode == 1
    assert f"FileError: cannot read {text}: " in refused.stderr
    assert "position 3" in refused.stderr


def expected_perplexity(model: quantloom.Model, windows: list[list[int]]) -> float:
    losses = []
    for tokens in windows:
        logits = model.logits(tokens).astype(np.float64)
        log_sum = np.log(np.exp(logits).sum(axis=1))
        for place in range(len(tokens) // 2, len(tokens)):
            losses.append(log_sum[place - 1] - logits[place - 1, tokens[place]])
    return float(np.exp(np.mean(losses)))


@pytest.mark.parametrize("add_bos", [True, False])
def test_perplexity_of_a_text_that_names_control_tokens(add_bos: bool) -> None:
    text = "Once upon a time<|end|> there was a girl. " * 10
    with quantloom.load(device="cpu", verbose=False) as model:
        assert model.tokenizer is not None
        model.tokenizer.add_bos, model.tokenizer.add_eos = add_bos, not add_bos
        tokens = model.tokenizer.encode(text, parse_special=False)
        windows = [tokens[start : start + 32] for start in range(0, len(tokens) - 31, 32)]
        if add_bos:
            windows = [[tokens[0], *window[1:]] for window in windows]
        found = perplexity(model, text, context=32).perplexity
        assert found == pytest.approx(expected_perplexity(model, windows), rel=1e-4)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("context", 64.0),
        ("context", True),
        ("context", 7),
        ("max_windows", "2"),
        ("max_windows", 1.5),
        ("max_windows", 0),
    ],
)
def test_perplexity_checks_its_numbers(name: str, value: Any) -> None:
    with quantloom.load(device="cpu") as model:
        with pytest.raises(quantloom.InvalidArgument) as caught:
            perplexity(model, "Once upon a time. " * 100, **{name: value})
    assert caught.value.subject == name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["generate", "x", "--model", "nowhere.gguf"], ["FileError", "nowhere.gguf"]),
        (["generate", "x", "--device", "tpu"], ["InvalidArgument", "tpu"]),
        (["generate", "x", "--device", "cuda:99"], ["DeviceError"]),
        (["generate", "x", "-n", "-3"], ["InvalidArgument", "max_new_tokens"]),
        (["generate", "x", "--gpu-layers", "-1"], ["InvalidArgument", "gpu_layers is -1, below 0"]),
        (["bench", "--device", "cpu", "--gpu-layers", "1"], ["the device is 'cpu'"]),
        (["generate", "x", "--temperature", "-1"], ["InvalidArgument", "temperature"]),
        (["generate", "x", "--pre", "klingon"], ["InvalidArgument", "pre is 'klingon'"]),
        (["perplexity", __file__, "--pre", "klingon"], ["InvalidArgument", "pre is 'klingon'"]),
        (["generate", "x", "--precision", "wrong"], ["InvalidArgument", "precision"]),
        (["inspect", "nowhere.gguf"], ["FileError"]),
        (["inspect", ""], ["FileError", "the name ''"]),
        (["generate", "x", "--model", ""], ["FileError", "the name ''"]),
        (["quantize", str(bundled_model()), ""], ["FileError", "the name ''"]),
        (["perplexity", ""], ["FileError", "the name ''"]),
        (["download", "not-a-repository"], ["InvalidArgument", "owner/name"]),
    ],
)
def test_an_error_is_one_line(arguments: list[str], words: list[str]) -> None:
    done = run(*arguments)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("quantloom: ")
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in last
