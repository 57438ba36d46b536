"""A session: one sequence on a model, its cache and its streams; and what a prompt can be."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

import quantloom
from quantloom import arguments
from quantloom.errors import InvalidArgument, OutOfMemory
from quantloom.generation import GenerationKeywords, GenerationResult, Request
from quantloom.stream import Stream
from quantloom.unshared import Unshared

# All of them exist while the program runs, for `typing.get_type_hints`.
if TYPE_CHECKING:
    from typing_extensions import Unpack
elif sys.version_info >= (3, 11):
    from typing import Unpack
else:

    class Unpack:
        """Python 3.10 has none; the mapping of the keywords stands for itself."""

        def __class_getitem__(cls, keywords: Any) -> Any:
            """Those keywords."""
            return keywords


Message: TypeAlias = Mapping[str, Any]
Prompt: TypeAlias = str | Sequence[int] | npt.NDArray[Any] | Sequence[Message]
_Session = TypeVar("_Session", bound="Session")

__all__ = ["Message", "Prompt", "Session", "Unpack", "as_messages", "token_count"]


class Session(Unshared):
    """One sequence on a model. Made by :meth:`Model.session`.

    A prompt is always the whole sequence: the part of it that the cache holds already is not
    computed again. One thread at a time: a second one gets SessionBusy, as does a second generation
    while a stream of the first is open.
    """

    _instead = "take another session() of its model"

    def __init__(self, model: quantloom.Model, *, prefill_chunk: int | None = None) -> None:
        if prefill_chunk is not None:
            prefill_chunk = arguments.integer("prefill_chunk", prefill_chunk)
        self.model = model
        self._core = model._new_core_session(prefill_chunk)
        model._hold(self)

    @property
    def tokens(self) -> list[int]:
        """The tokens that the cache holds."""
        tokens: list[int] = self._core.tokens()
        return tokens

    @property
    def closed(self) -> bool:
        """Whether `close()` was called."""
        closed: bool = self._core.closed
        return closed

    def generate(self, prompt: Prompt, **options: Unpack[GenerationKeywords]) -> GenerationResult:
        """As :meth:`Model.generate`, from this session's cache."""
        stream = self.stream(prompt, **options)
        try:  # `with` first calls __enter__, where Ctrl-C would leave the stream open
            return stream.run()
        finally:
            stream.close()

    def stream(self, prompt: Prompt, **options: Unpack[GenerationKeywords]) -> Stream:
        """As :meth:`Model.stream`, from this session's cache, which stays."""
        return self._open(prompt, options, owned=False)

    def chat(
        self, messages: str | Sequence[Message], **options: Unpack[GenerationKeywords]
    ) -> GenerationResult:
        """As :meth:`Model.chat`, from this session's cache; `messages` is all that was said."""
        return self.generate(as_messages(messages), **options)

    def logits(self, tokens: Sequence[int] | npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """As :meth:`Model.logits`; the cache then holds `tokens`."""
        ids = arguments.token_ids("tokens", tokens)
        try:
            values: npt.NDArray[np.float32] = self._core.logits(ids)
        except OutOfMemory:
            raise
        except MemoryError as error:
            raise OutOfMemory(f"no room for the logits of {len(ids)} tokens: {error}") from None
        return values

    def cancel(self) -> None:
        """Stops a generation that runs in another thread, within one token."""
        self._core.cancel()

    def reset(self) -> None:
        """Forgets the sequence; the next prompt is computed from its start."""
        self._core.reset()

    def close(self) -> None:
        """Frees the cache. What another thread runs ends first; its `logits()` raises Closed."""
        self._core.close()

    def __enter__(self: _Session) -> _Session:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _open(self, prompt: Prompt, options: Mapping[str, Any], *, owned: bool) -> Stream:
        request = Request.of(options, self.model.tokenizer)
        tokens = self.model._prompt_tokens(prompt)
        return Stream(self, tokens, request, owned=owned)

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"context of {token_count(self.model.context_length)}"
        return f"<quantloom.Session on {self.model.path.name!r}: {state}>"


def as_messages(messages: str | Sequence[Message]) -> list[Message]:
    """One question as text becomes a message of the user."""
    found: Sequence[Any] = (
        [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
    )
    if isinstance(found, Sequence) and found and isinstance(found[0], Mapping):
        return list(found)
    raise InvalidArgument(
        "messages must be text or a sequence of mappings with role and content", subject="messages"
    )


def token_count(count: int) -> str:
    """The number in words."""
    return "1 token" if count == 1 else f"{count:,} tokens"
