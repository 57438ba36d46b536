"""What `quantloom.load` gives and says."""

from __future__ import annotations

import copy
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

import quantloom
from quantloom import _quantloom
from quantloom.errors import InvalidArgument, Unsupported
from synthetic_model import VOCABULARY, Synthetic


def test_auto_says_in_one_line_what_it_chose(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Synthetic().write(tmp_path, "named.gguf")
    with quantloom.load(path) as model:
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.count("\n") == 1
        assert f"named.gguf on {model.device}" in said.err
    with quantloom.load(path, verbose=False), quantloom.load(path, device="cpu"):
        assert capsys.readouterr() == ("", "")


def test_the_notice_goes_nowhere_without_an_error_stream(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Synthetic().write(tmp_path)
    monkeypatch.setattr(sys, "stderr", None)
    quantloom.load(path).close()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("device", ["gpu", "", "cuda:", "cuda:-1", "CPU", "cpu\n"])
def test_an_unknown_device_is_told_all_that_load_takes(device: str, tmp_path: Path) -> None:
    path = Synthetic().write(tmp_path)
    with pytest.raises(InvalidArgument) as caught:
        quantloom.load(path, device=device)
    expected = f"device '{device}' is not one of 'cpu', 'cuda', 'cuda:N' or, for a model, 'auto'"
    assert str(caught.value) == expected
    assert caught.value.subject == "device"


def test_progress_must_be_callable(tmp_path: Path) -> None:
    path = Synthetic().write(tmp_path)
    with pytest.raises(InvalidArgument, match="progress must be callable, not int") as caught:
        quantloom.load(path, progress=3)  # type: ignore[arg-type]
    assert caught.value.subject == "progress"


@pytest.mark.parametrize("name", ["check_weights", "batch_invariant", "verbose"])
def test_choices_of_load_are_true_or_false(name: str, tmp_path: Path) -> None:
    path = Synthetic().write(tmp_path)
    with pytest.raises(InvalidArgument, match=f"{name} must be True or False, not 'no'") as caught:
        quantloom.load(path, **{name: "no"})  # type: ignore[arg-type]
    assert caught.value.subject == name


def test_one_token_is_one_token(tmp_path: Path) -> None:
    path = Synthetic().write(tmp_path)
    with quantloom.load(path, device="cpu", context_length=1) as model:
        assert repr(model.session()).endswith("context of 1 token>")
        assert "1 token," in repr(model)


def test_the_bundled_model(capsys: pytest.CaptureFixture[str]) -> None:
    with quantloom.load(device="cpu") as model:
        assert model.architecture == "llama"
        assert "4" in model.chat("What is 2+2?", max_new_tokens=20).text


def test_attributes(tmp_path: Path) -> None:
    path = Synthetic("qwen3", qk_norm=True, head_size=32, context=300).write(tmp_path)
    with quantloom.load(path, device="cpu", context_length=100, cache_type="f32") as model:
        assert model.path == path
        assert model.architecture == "qwen3"
        assert (model.device, model.precision, model.cache_type) == ("cpu", "exact", "f32")
        assert (model.context_length, model.trained_context_length) == (100, 300)
        assert model.vocabulary_size == VOCABULARY
        assert (model.embedding_length, model.block_count) == (64, 2)
        assert model.weight_bytes == sum(t.nbytes for t in model.file.tensors.values())
        # 2 layers of keys and values, 2 heads of 32 at 100 positions, 4 bytes each.
        assert model.cache_bytes == 2 * 2 * 2 * 32 * 100 * 4
        assert model.metadata["qwen3.block_count"] == 2
        assert model.tokenizer is None


def test_a_long_context_is_capped_unless_asked_for(tmp_path: Path) -> None:
    path = Synthetic(context=20000).write(tmp_path)
    with quantloom.load(path, device="cpu") as model:
        assert (model.context_length, model.trained_context_length) == (8192, 20000)
    with quantloom.load(path, device="cpu", context_length=20000) as model:
        assert model.context_length == 20000


def test_no_vocab(tmp_path: Path) -> None:
    path = Synthetic(metadata={"tokenizer.ggml.model": "no_vocab"}).write(tmp_path)
    with quantloom.load(path, device="cpu") as model:
        assert model.tokenizer is None
        assert len(model.generate([1, 2], max_new_tokens=3).tokens) == 3


def test_a_broken_vocabulary_fails_the_load(tmp_path: Path) -> None:
    metadata = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "nobody-knows",
        "tokenizer.ggml.tokens": [f"t{i}" for i in range(VOCABULARY)],
        "tokenizer.ggml.merges": ["t 1"],
    }
    path = Synthetic(metadata=metadata).write(tmp_path)
    with pytest.raises(quantloom.TokenizerError, match="nobody-knows"):
        quantloom.load(path, device="cpu")


def test_numpy_numbers_are_numbers(tmp_path: Path) -> None:
    path = Synthetic().write(tmp_path)
    with quantloom.load(path, device="cpu", context_length=np.int32(64)) as model:
        result = model.generate(
            np.array([1, 2], np.int32),
            max_new_tokens=np.int64(3),
            temperature=np.float32(0.5),
            top_k=np.uint8(4),
            seed=np.uint64(2**64 - 1),
        )
        assert len(result.tokens) == 3
        assert (
            result.tokens
            == model.generate(
                [1, 2], max_new_tokens=3, temperature=0.5, top_k=4, seed=2**64 - 1
            ).tokens
        )


def test_the_file_s_mapping_outlives_its_handle(tmp_path: Path) -> None:
    """The weights are used from the map; closing the file alone must not unmap them."""
    path = Synthetic().write(tmp_path)
    with quantloom.load(path, device="cpu") as model:
        before = model.logits([1, 2, 3])
        model.file.close()
        assert np.array_equal(model.logits([1, 2, 3]), before)


def test_each_load_sets_the_threads(tmp_path: Path) -> None:
    path = Synthetic().write(tmp_path)
    _quantloom.set_thread_count(0)
    cores = _quantloom.thread_count()
    with quantloom.load(path, device="cpu", threads=3) as first:
        assert _quantloom.thread_count() == 3
        with first.stream([1, 2], max_new_tokens=4) as stream:
            tokens = [next(stream).token]
            with quantloom.load(path, device="cpu"):
                assert _quantloom.thread_count() == cores
            tokens += [piece.token for piece in stream]
        assert tokens == first.generate([1, 2], max_new_tokens=4).tokens


def test_what_a_model_shows_of_itself(tmp_path: Path) -> None:
    path = Synthetic().write(tmp_path, "a.gguf")
    with quantloom.load(path, device="cpu", context_length=100) as model:
        assert repr(model).startswith("<quantloom.Model 'a.gguf': llama, 2 layers, ")
        assert " on cpu, exact, context of 100 tokens, cache of " in repr(model)


def test_nothing_of_a_model_is_copied(tmp_path: Path) -> None:
    path = Synthetic().write(tmp_path)
    with quantloom.load(path, device="cpu") as model, model.session() as session:
        with session.stream([1, 2], max_new_tokens=2) as stream:
            for thing in (model, session, stream):
                name = type(thing).__name__
                for call in (copy.copy, copy.deepcopy, pickle.dumps):
                    with pytest.raises(Unsupported, match=f"a {name} is not copied or pickled; "):
                        call(thing)
            assert len(stream.run().tokens) == 2


def test_a_prompt_has_an_order(tmp_path: Path) -> None:
    with quantloom.load(Synthetic().write(tmp_path), device="cpu") as model:
        unordered = ({1, 2}, frozenset([1]), {1: 2}, {1: 2}.keys())
        for prompt in (*unordered, b"ab", bytearray(b"ab"), memoryview(b"ab")):
            with pytest.raises(InvalidArgument, match="prompt must be a sequence of token ids"):
                model.generate(prompt)  # type: ignore[arg-type]
        with pytest.raises(InvalidArgument, match="prompt is a masked array"):
            model.generate(np.ma.masked_array([1, 2], [True, False]))
