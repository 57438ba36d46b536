"""`quantloom.load` and the model that it gives."""

from __future__ import annotations

import errno
import html
import os
import sys
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from quantloom import _quantloom, arguments
from quantloom.errors import Closed, FileError, InvalidArgument, TokenizerError
from quantloom.explain import Explanation, TensorPlace
from quantloom.file import File
from quantloom.file import open as open_file
from quantloom.generation import GenerationKeywords, GenerationResult
from quantloom.session import Message, Prompt, Session, Unpack, as_messages, token_count
from quantloom.stream import Stream
from quantloom.text.tokenizer import Tokenizer
from quantloom.unshared import Unshared

_Model = TypeVar("_Model", bound="Model")

__all__ = ["Model", "load"]


def load(
    path: str | os.PathLike[str] | None = None,
    *,
    device: str = "auto",
    gpu_layers: int | None = None,
    context_length: int | None = None,
    precision: str = "exact",
    cache_type: str = "f16",
    threads: int | None = None,
    check_weights: bool = True,
    batch_invariant: bool = False,
    pre: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    verbose: bool = True,
) -> Model:
    """Loads a model from a GGUF file.

    Args:
        path: the file, or any shard of a split one; None for the small model that comes with
            quantloom.
        device: "cpu", "cuda", "cuda:N", or "auto": the first GPU where it can be used, with as
            many layers as fit, the CPU elsewhere; "auto" says in one line on stderr what it chose.
        gpu_layers: that the GPU computes, counted from the first; the CPU has the rest and the
            head. By default all; with "auto" it is the most that are taken.
        context_length: tokens that a session holds, up to what the model was trained for; by
            default that, capped at 8192.
        precision: "exact" carries activations at 16 bits or more; "fast" may use 8.
        cache_type: "f16", "f32" or "q8_0", the type of the keys and values that a session keeps.
        threads: CPU threads, up to 1024; by default all cores. All models of a process compute on
            the same ones, and each load sets their number anew, for models loaded before as well.
        check_weights: look for NaN and Inf in all scales first.
        batch_invariant: give a request the same bits however its prompt is cut into chunks and
            whatever prefix of it a session has in its cache. Short prompts and the ends of long
            ones then take the kernels of long ones, long ones are cut into smaller calls, and a
            session computes anew what it generated itself when that comes back in a prompt;
            decoding keeps its speed (benchmarks/batch_invariant.py measures each). Excludes
            `speculate`.
        pre: name of the pre-tokenizer, where the file's `tokenizer.ggml.pre` is missing or wrong
            (`quantloom.text.PRE_TOKENIZERS` holds them).
        progress: called with bytes done and bytes in all; what it raises stops the load.
        verbose: False keeps "auto" silent.

    Raises:
        FileError: the file cannot be opened, or changed while it was read.
        GGUFError: the file is not valid GGUF, or a scale is NaN or Inf.
        ModelError: it holds no model that quantloom runs; the message names the key or tensor.
        TokenizerError: its vocabulary is broken or of an unknown kind.
        DeviceError: the device is not there, or the model is beyond what it takes; the message
            says why.
        OutOfMemory: the message says what was asked and what is free; where layers do not fit the
            GPU, also the largest `gpu_layers` that would.
        InvalidArgument: an argument is outside its range.
    """
    if gpu_layers is not None:
        gpu_layers = arguments.integer("gpu_layers", gpu_layers, 0)
    if threads is not None:
        threads = arguments.integer("threads", threads, 1, arguments.MOST_THREADS)
    if context_length is not None:
        context_length = arguments.integer("context_length", context_length)
    check_weights = arguments.flag("check_weights", check_weights)
    batch_invariant = arguments.flag("batch_invariant", batch_invariant)
    verbose = arguments.flag("verbose", verbose)
    for name, value in (("device", device), ("precision", precision), ("cache_type", cache_type)):
        arguments.text(name, value)
    arguments.check_progress(progress)
    chosen, reason = _quantloom.default_device() if device == "auto" else (device, "")
    file = open_file(bundled_model() if path is None else path)
    core: Any = None
    try:
        # The weights are read without the interpreter lock, so the vocabulary is built meanwhile.
        with ThreadPoolExecutor(1) as worker:
            tokenizer = worker.submit(_tokenizer_of, file, pre)
            core = _quantloom.Model.load(
                file._handle.file,
                chosen,
                precision,
                cache_type,
                context_length,
                gpu_layers,
                device == "auto",
                threads,
                check_weights,
                batch_invariant,
                progress,
            )
            model = Model(core, file, tokenizer.result())
    except BaseException:
        core = None  # a notebook keeps the error, and with it this frame
        file.close()
        raise
    if reason and verbose and sys.stderr is not None:  # print would take None for stdout
        where = _where(model, chosen, reason, gpu_layers)
        print(f"quantloom: {file.path.name} {where}", file=sys.stderr)
    return model


def _where(model: Model, chosen: str, reason: str, most_layers: int | None) -> str:
    if model.gpu_layers in (0, model.block_count):
        if model.device == chosen:
            return f"on {chosen} ({reason})"
        if most_layers == 0:
            return f"on {model.device} (gpu_layers is 0)"
        obstacle = model._core.gpu_obstacle or "no layer fits the free memory"
        return f"on {model.device} ({chosen}: {obstacle})"
    layers = f"{model.gpu_layers} of {model.block_count} layers on {chosen} ({reason})"
    return f"with {layers}, the rest on cpu"


def bundled_model() -> Path:
    """Path of the small model that comes with quantloom.

    Raises:
        FileError: this installation has none.
    """
    folder = Path(__file__).parent / "data"
    files = sorted(folder.glob("*.gguf"))
    if not files:
        raise FileError(
            "this installation of quantloom has no bundled model; give load() a path",
            subject=str(folder),
            errno=errno.ENOENT,
            filename=str(folder),
        )
    return files[0]


def _tokenizer_of(file: File, pre: str | None) -> Tokenizer | None:
    """The file's tokenizer, or None where it has no vocabulary."""
    model = file.metadata.get("tokenizer.ggml.model", "no_vocab")
    if model == "no_vocab":
        if pre is not None:
            raise InvalidArgument(f"pre is {pre!r}, but the file has no tokenizer", subject="pre")
        return None
    return Tokenizer.from_metadata(file.metadata, pre=pre)


class Model(Unshared):
    """A model on a device. Made by :func:`load`; safe to share between threads.

    Attributes:
        file: the open GGUF file, with its metadata and lazy tensors.
        tokenizer: of the file's vocabulary, or None where it has none.
        device: "cpu" or "cuda:N"; of the first layer.
        gpu_layers: layers that a GPU computes.
        precision, cache_type, batch_invariant: as given to :func:`load`.
        architecture: such as "llama".
        context_length: tokens that a session holds.
        trained_context_length: the most that `context_length` can be.
        vocabulary_size: number of token ids.
        embedding_length: width of a hidden state.
        block_count: number of layers.
        weight_bytes: of all tensors.
        cache_bytes: that the cache of one session takes.
    """

    _instead = "it is safe to share between threads; load() its file again in another process"

    def __init__(self, core: Any, file: File, tokenizer: Tokenizer | None) -> None:
        self._core: Any = core
        self.file = file
        self.tokenizer = tokenizer
        self.device: str = core.device
        self.gpu_layers: int = core.gpu_layers
        self.precision: str = core.precision
        self.cache_type: str = core.cache_type
        self.batch_invariant: bool = core.batch_invariant
        self.architecture: str = core.architecture
        self.context_length: int = core.context_length
        self.trained_context_length: int = core.trained_context_length
        self.vocabulary_size: int = core.vocabulary_size
        self.embedding_length: int = core.embedding_length
        self.block_count: int = core.block_count
        self.weight_bytes: int = core.weight_bytes
        self.cache_bytes: int = core.cache_bytes
        # Copied in one step while other threads add to it, which a WeakSet is not.
        self._sessions: set[weakref.ref[Session]] = set()

    @property
    def path(self) -> Path:
        """Of the file."""
        return self.file.path

    @property
    def metadata(self) -> Mapping[str, Any]:
        """Of the file."""
        return self.file.metadata

    @property
    def closed(self) -> bool:
        """Whether `close()` was called."""
        return self._core is None

    def session(self, *, prefill_chunk: int | None = None) -> Session:
        """A sequence with a cache of its own, which later prompts that begin the same way reuse.

        Args:
            prefill_chunk: tokens of a prompt that one pass takes at most; by default
                512 on the CPU, and on a GPU 1,024 to 4,096, more for narrower models.

        Raises:
            OutOfMemory: there is no room for its cache.
            Closed: the model was closed.
        """
        return Session(self, prefill_chunk=prefill_chunk)

    def generate(self, prompt: Prompt, **options: Unpack[GenerationKeywords]) -> GenerationResult:
        """Continues a prompt.

        Each call starts from an empty cache, so that the same request gives the same tokens; see
        :meth:`session` to go on from an earlier one.

        Args:
            prompt: text, token ids, or chat messages. BOS is put before text where the file asks
                for it; a chat template's text may hold one already, so give the messages, or what
                :meth:`Tokenizer.encode_messages` makes of them.
            options: see :class:`quantloom.generation.GenerationKeywords`.

        Raises:
            ContextFull: the prompt has more tokens than the context.
            InvalidArgument: a token id or an option is outside its range.
            NumericsError: the logits are NaN or Inf.
            TokenizerError: the prompt is text and the model has no tokenizer, or cannot take it.
            Closed: the model was closed.
        """
        stream = self.stream(prompt, **options)
        try:  # `with` first calls __enter__, where Ctrl-C would leave the stream open
            return stream.run()
        finally:
            stream.close()

    def stream(self, prompt: Prompt, **options: Unpack[GenerationKeywords]) -> Stream:
        """As :meth:`generate`, piece by piece.

        The prompt is checked now; the first piece computes it. Closing the stream, its end and its
        last reference each free its cache.
        """
        session = self.session()
        try:
            return session._open(prompt, options, owned=True)
        except BaseException:
            session.close()
            raise

    def chat(
        self, messages: str | Sequence[Message], **options: Unpack[GenerationKeywords]
    ) -> GenerationResult:
        """Answers messages through the file's chat template.

        Control tokens in messages are text (:meth:`Tokenizer.encode_messages`).

        Args:
            messages: mappings with "role" and "content", or one question as text.
            options: as for :meth:`generate`.

        Raises:
            TemplateError: the file has no chat template, or it fails.
        """
        return self.generate(as_messages(messages), **options)

    def logits(self, tokens: Sequence[int] | npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Logits of every position: float32 [tokens, vocabulary_size], computed in chunks.

        Args:
            tokens: ids, from 1 to `context_length` of them.
        """
        with self.session() as session:
            return session.logits(tokens)

    def tokenize(self, text: str, add_special: bool = True) -> list[int]:
        """Token ids of a text, with BOS and EOS around it where the file asks for them."""
        return self._require_tokenizer().encode(text, add_special)

    def detokenize(self, tokens: Sequence[int] | npt.NDArray[Any]) -> str:
        """Text of token ids, without control tokens."""
        ids = arguments.token_ids("tokens", tokens)
        return self._require_tokenizer().decode(ids.tolist())

    def explain(self) -> Explanation:
        """Every tensor with its type, device, kernel and bytes, and their sums; print it.

        Raises:
            Closed: the model was closed.
        """
        tensors = tuple(TensorPlace(*row) for row in self._require_core().tensors())
        totals: dict[str, int] = {}
        for tensor in tensors:
            totals[tensor.device] = totals.get(tensor.device, 0) + tensor.bytes
        return Explanation(tensors, totals, self.cache_bytes, self._step())

    def _step(self) -> str:
        """How a GPU computes a generated token, for `explain()`."""
        if self.gpu_layers == 0:
            return ""
        core = self._require_core()
        text = f"layers of a token on {self.device}: "
        if core.step_obstacle:
            return f"{text}a kernel for each operation, as {core.step_obstacle}"
        text += "one kernel"
        if core.full_step_obstacle:
            text += f"; in the end one for each operation, as {core.full_step_obstacle}"
        return text

    def close(self) -> None:
        """Frees the weights and closes every session; they and the model raise Closed from then on.

        A generation that runs in another thread is cancelled first.
        """
        self._core = None  # before it looks at sessions: those made from here on close themselves
        for reference in list(self._sessions):
            session = reference()
            if session is not None:
                session.close()
        self.file.close()

    def __enter__(self: _Model) -> _Model:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _require_core(self) -> Any:
        core = self._core
        if core is None:
            raise Closed(f"the model {self.path.name} is closed")
        return core

    def _new_core_session(self, prefill_chunk: int | None) -> Any:
        return _quantloom.Session(self._require_core(), prefill_chunk)

    def _hold(self, session: Session) -> None:
        """`close()` closes the session from now on; so does this where another thread did."""
        self._sessions.add(weakref.ref(session, self._sessions.discard))
        try:
            self._require_core()
        except Closed:
            session.close()
            raise

    def _require_tokenizer(self) -> Tokenizer:
        if self.tokenizer is None:
            raise TokenizerError(
                f"{self.path.name} has no tokenizer; give and take token ids",
                subject="tokenizer.ggml.model",
            )
        return self.tokenizer

    def _prompt_tokens(self, prompt: Prompt) -> npt.NDArray[np.int64]:
        if isinstance(prompt, str):
            return np.array(self._require_tokenizer().encode(prompt), np.int64)
        if isinstance(prompt, Sequence) and len(prompt) > 0 and isinstance(prompt[0], Mapping):
            ids = self._require_tokenizer().encode_messages(prompt)  # type: ignore[arg-type]
            return np.array(ids, np.int64)
        return arguments.token_ids("prompt", prompt)

    @property
    def _placed(self) -> str:
        """As "on cpu", or "with 3 of 9 layers on cuda:0, the rest on cpu"."""
        if self.gpu_layers in (0, self.block_count):
            return f"on {self.device}"
        layers = f"{self.gpu_layers} of {self.block_count} layers"
        return f"with {layers} on {self.device}, the rest on cpu"

    def _summary(self) -> dict[str, str]:
        return {
            "architecture": self.architecture,
            "layers": str(self.block_count),
            "weights": f"{self.weight_bytes / 1e6:,.1f} MB",
            "device": self._placed.split(" ", 1)[1],
            "precision": self.precision,
            "context": token_count(self.context_length),
            "cache": f"{self.cache_bytes / 1e6:,.1f} MB a session, {self.cache_type}",
        }

    def __repr__(self) -> str:
        state = "closed"
        if not self.closed:
            of = self._summary()
            state = (
                f"{of['architecture']}, {of['layers']} layers, {of['weights']} {self._placed}, "
                f"{of['precision']}, context of {of['context']}, cache of {of['cache']}"
            )
        return f"<quantloom.Model {self.path.name!r}: {state}>"

    def _repr_html_(self) -> str:
        rows = {} if self.closed else self._summary()
        cells = "".join(
            f"<tr><th>{html.escape(key)}</th><td>{html.escape(value)}</td></tr>"
            for key, value in rows.items()
        )
        name = html.escape(self.path.name + (" (closed)" if self.closed else ""))
        return f"<p><b>{name}</b></p><table>{cells}</table>"
