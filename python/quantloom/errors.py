"""Every error that quantloom raises. Each kind of failure has its own class."""

from __future__ import annotations


class QuantloomError(Exception):
    """Base of all errors of this package.

    Attributes:
        subject: the metadata key, tensor or argument at fault, or None.
        offset: byte offset into the file where the fault lies, or None.
        limit: the bound that was passed, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        subject: str | None = None,
        offset: int | None = None,
        limit: int | None = None,
    ) -> None:
        super().__init__(message)
        self.subject = subject
        self.offset = offset
        self.limit = limit


class GGUFError(QuantloomError):
    """A file that is not valid GGUF."""


class ModelError(QuantloomError):
    """A valid GGUF file that does not hold a model quantloom can run."""


class TokenizerError(QuantloomError):
    """A vocabulary that is broken or of a kind quantloom does not know, or text it cannot take."""


class TemplateError(QuantloomError):
    """A chat template that is missing, broken, or passes a cap on size, output or time."""


class DeviceError(QuantloomError):
    """A device that is not there, or a GPU, driver or kernel failure."""


class OutOfMemory(QuantloomError, MemoryError):
    """Host or device memory ran out; the message says what was asked and what is free."""


class ContextFull(QuantloomError):
    """A prompt longer than the context; `limit` is the context length in tokens."""


class InvalidArgument(QuantloomError, ValueError):
    """An argument outside its range; `subject` names it."""


class NumericsError(QuantloomError, ArithmeticError):
    """NaN or Inf where a number must be, such as in the logits."""


class SessionBusy(QuantloomError, RuntimeError):
    """A second thread used a session while a first one was in it."""


class Cancelled(QuantloomError):
    """The work was stopped by its caller."""


class FileError(QuantloomError, OSError):
    """The operating system could not open, map, read or write a file."""


class Closed(QuantloomError, RuntimeError):
    """Something was used after its close()."""
