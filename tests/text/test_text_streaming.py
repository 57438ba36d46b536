"""Streams: whole characters only, and the same text however it is cut."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quantloom.errors import InvalidArgument
from quantloom.text import StopMatcher, StreamDecoder, Tokenizer

IDS = st.lists(st.integers(0, 268), max_size=40)


@settings(max_examples=300, deadline=None)
@given(ids=IDS, skip_special=st.booleans())
def test_a_stream_is_the_whole_text(
    bpe: Tokenizer, spm: Tokenizer, ids: list[int], skip_special: bool
) -> None:
    for tokenizer in (bpe, spm):
        decoder = StreamDecoder(tokenizer, skip_special=skip_special)
        text = "".join(map(decoder.push, ids)) + decoder.flush()
        assert text == tokenizer.decode(ids, skip_special=skip_special)


def test_a_character_comes_whole_or_not_at_all(bpe: Tokenizer, spm: Tokenizer) -> None:
    for tokenizer in (bpe, spm):
        ids = tokenizer.encode("🦙€", add_special=False)
        decoder = tokenizer.stream_decoder()
        increments = [decoder.push(index) for index in ids]
        assert [text for text in increments if text] == ["🦙", "€"]
        assert decoder.flush() == ""
        decoder = tokenizer.stream_decoder()
        assert [decoder.push(index) for index in ids[:-1]][-1] == ""
        assert decoder.flush() == "\ufffd"


def test_the_leading_space(spm: Tokenizer) -> None:
    a, b = spm.token_id("▁a"), spm.token_id("b")
    assert a is not None and b is not None
    assert spm.stream_decoder().push(a) == "a"
    assert spm.stream_decoder(previous=spm.bos_id).push(a) == "a"
    assert spm.stream_decoder(previous=b).push(a) == " a"
    decoder = spm.stream_decoder()
    assert decoder.push(a) + decoder.push(a) == "a a"


def test_an_id_outside_the_vocabulary(bpe: Tokenizer) -> None:
    with pytest.raises(InvalidArgument, match="outside the vocabulary"):
        bpe.stream_decoder().push(269)


@pytest.mark.parametrize(
    ("stops", "pieces", "shown", "stopped"),
    [
        (["</s>"], ["Hi <", "/", "b> </", "s> more"], "Hi </b> ", "</s>"),
        (["\n\n"], ["a\n", "b\n", "\n", "c"], "a\nb", "\n\n"),
        (["aab"], ["a", "a", "a", "b", "!"], "a", "aab"),
        (["abcd", "bc"], ["xab", "cd"], "xa", "bc"),
        (["abc", "bc"], ["xab", "c"], "x", "abc"),
        ("stop", ["st", "o"], "sto", None),
        ([], ["a", "b"], "ab", None),
    ],
)
def test_stop_strings(stops: Any, pieces: list[str], shown: str, stopped: str | None) -> None:
    matcher = StopMatcher(stops)
    assert "".join(map(matcher.push, pieces)) + matcher.flush() == shown
    assert matcher.stopped == stopped


def test_held_back_text_is_not_shown() -> None:
    matcher = StopMatcher("STOP")
    assert matcher.push("go ST") == "go "
    assert matcher.push("AY") == "STAY"
    assert matcher.push("STOP it") == ""
    assert matcher.push("more") == "" == matcher.flush()


@settings(max_examples=300, deadline=None)
@given(
    stops=st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
    pieces=st.lists(st.text("abc", max_size=5), max_size=8),
)
def test_how_the_text_is_cut_makes_no_difference(stops: list[str], pieces: list[str]) -> None:
    cut, whole = StopMatcher(stops), StopMatcher(stops)
    shown = "".join(map(cut.push, pieces)) + cut.flush()
    assert shown == "".join(map(whole.push, "".join(pieces))) + whole.flush()
    assert cut.stopped == whole.stopped
    assert not any(stop in shown for stop in stops)


@pytest.mark.parametrize("stops", ["", ["a", ""], [3]])
def test_stop_strings_that_are_none(stops: Any) -> None:
    with pytest.raises(InvalidArgument, match="a stop string must be"):
        StopMatcher(stops)
