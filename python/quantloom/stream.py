"""A generation under way: an iterator of pieces of text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from threading import Lock
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

import quantloom
from quantloom.errors import Closed, InvalidArgument, SessionBusy
from quantloom.generation import (
    Candidate,
    GenerationResult,
    Piece,
    Request,
    Timings,
    TokenLogprobs,
)
from quantloom.text.streaming import StopMatcher
from quantloom.unshared import Unshared

# Numbers of generations, unique in the process.
_generations = count(1)

_Stream = TypeVar("_Stream", bound="Stream")


class Stream(Unshared, Iterator[Piece]):
    """Pieces of text as they are generated. Made by `stream()` of a model or a session.

    Iterate over it; close it, use it as a context manager or drop it to stop early.
    """

    _instead = "ask for another one"

    def __init__(
        self,
        session: quantloom.Session,
        prompt: npt.NDArray[np.int64],
        request: Request,
        *,
        owned: bool,
    ) -> None:
        self._owned = owned
        self._open = False
        self._taking = Lock()
        if request.stop and session.model.tokenizer is None:
            raise InvalidArgument(
                "stop strings need a tokenizer, which this model has not; use stop_tokens",
                subject="stop",
            )
        self._session = session
        self._core: Any = session._core
        self._request = request
        self._tokenizer = session.model.tokenizer
        self._top = min(request.logprobs, session.model.vocabulary_size)
        self._matcher = StopMatcher(request.stop)
        self._decoder = (
            self._tokenizer.stream_decoder(previous=int(prompt[-1]))
            if self._tokenizer is not None and len(prompt) > 0
            else None
        )
        self._tokens: list[int] = []
        self._texts: list[str] = []
        self._logprobs: list[TokenLogprobs] | None = [] if request.logprobs >= 0 else None
        self._finish_reason = ""
        self._timings = Timings(prompt_tokens=len(prompt))
        # Known before it begins: Ctrl-C may come when begin() is done and before it has returned.
        self._generation = next(_generations)
        self._open = True
        try:
            self._core.begin(
                self._generation,
                prompt,
                request.max_new_tokens,
                request.stop_tokens,
                request.sampler,
            )
        except BaseException:
            self._core.end(self._generation)
            self._open = False
            raise

    def __iter__(self: _Stream) -> _Stream:
        return self

    def __next__(self) -> Piece:
        # Taking a piece is several steps; a second thread would see them half done.
        if not self._taking.acquire(blocking=False):
            raise SessionBusy("another thread is taking a piece of this stream")
        try:
            return self._take()
        finally:
            self._taking.release()

    def _take(self) -> Piece:
        if not self._open:
            raise StopIteration
        if self._matcher.stopped is not None:  # interrupted before it was ended
            self._end("stop")
            raise StopIteration
        try:
            step = self._core.next(self._generation, self._top)
        except (Closed, SessionBusy) as error:
            if not self._open:
                self._closed_meanwhile("", None)
                raise StopIteration from None
            if isinstance(error, Closed):
                self.close()
            raise  # busy: another thread is in the session; its work goes on
        except BaseException:
            self.close()
            raise
        if not self._open:
            self._closed_meanwhile(*(step if len(step) == 2 else ("", None)))
        if len(step) == 2:
            return self._last_piece(*step)
        token, logprob, top = step
        self._tokens.append(token)
        details = self._record(token, logprob, top)
        text = self._decoder.push(token) if self._decoder is not None else ""
        text = self._matcher.push(text)
        self._texts.append(text)
        if self._matcher.stopped is not None:
            self._end("stop")
        return Piece(text, token, details)

    def run(self) -> GenerationResult:
        """Takes all pieces and gives the result."""
        for _ in self:
            pass
        return self.result

    @property
    def result(self) -> GenerationResult:
        """What has been generated; before the end, so far.

        The finish_reason is "cancelled" then, and only `timings.prompt_tokens` is known of the
        timings.
        """
        return GenerationResult(
            text="".join(self._texts),
            tokens=list(self._tokens),
            finish_reason=self._finish_reason or "cancelled",
            logprobs=None if self._logprobs is None else list(self._logprobs),
            timings=self._timings,
            seed=self._request.seed,
        )

    def cancel(self) -> None:
        """Stops this generation from another thread, within one token."""
        self._core.cancel(self._generation)

    def close(self) -> None:
        """Ends the generation; a cache that belongs to this stream alone is freed.

        A piece that another thread is taking is waited for, up to the next token.
        """
        if self._open:
            self._end("")
        if self._owned:
            self._session.close()

    def __enter__(self: _Stream) -> _Stream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_open", False):
            self.close()

    def _last_piece(self, reason: str, timings: tuple[Any, ...] | None) -> Piece:
        rest = self._decoder.flush() if self._decoder is not None else ""
        rest = self._matcher.push(rest) + self._matcher.flush()
        if rest:  # before what can be interrupted: what was flushed is flushed once
            self._texts.append(rest)
        self._ended(reason, timings)
        if not rest:
            raise StopIteration
        return Piece(rest, None)

    def _end(self, reason: str) -> None:
        found, timings = self._core.end(self._generation)
        # Only now: interrupted before it, the generation is open yet.
        self._ended(reason or found, timings)

    def _ended(self, reason: str, timings: tuple[Any, ...] | None) -> None:
        known = self._timings if timings is None else Timings(*timings)
        if not self._open:  # closed by another thread
            return
        # Nothing between these can be interrupted.
        self._finish_reason = reason
        self._timings = known
        self._open = False
        if self._owned:
            with suppress(SessionBusy):  # from within its own next(), which closes it then
                self._session.close()

    def _closed_meanwhile(self, reason: str, timings: tuple[Any, ...] | None) -> None:
        """Does what a close() during next() could not: a signal handler's only cancels."""
        if timings is None:
            reason, timings = self._core.end(self._generation)
        if timings is not None:
            self._timings = Timings(*timings)
        self._finish_reason = self._finish_reason or reason
        if self._owned:
            self._session.close()

    def _record(
        self, token: int, logprob: float | None, top: list[tuple[int, float]] | None
    ) -> TokenLogprobs | None:
        if self._logprobs is None or logprob is None or top is None:
            return None
        candidates = tuple(Candidate(other, self._text(other), value) for other, value in top)
        self._logprobs.append(TokenLogprobs(token, self._text(token), logprob, candidates))
        return self._logprobs[-1]

    def _text(self, token: int) -> str:
        if self._tokenizer is None:
            return ""
        return self._tokenizer.token_bytes(token).decode("utf-8", errors="replace")

    def __repr__(self) -> str:
        state = "open" if self._open else self._finish_reason or "closed"
        return f"<quantloom.Stream: {len(self._tokens)} tokens, {state}>"
