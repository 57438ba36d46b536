"""The base of every error that quantloom raises, and a class for each kind of failure."""

from __future__ import annotations

import errno as codes
import os
from functools import partial
from typing import Any


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


class Unsupported(QuantloomError, TypeError):
    """Something that an object cannot do, such as rows without dimensions, or being copied."""


class OutsideIndex(InvalidArgument, IndexError):
    """An index outside a tensor; `limit` is the number of rows."""


class FileError(QuantloomError, OSError):
    """The operating system could not open, map, read or write a file.

    Of a file that is absent it is a FileNotFoundError too.

    Attributes:
        errno, strerror: the system's number and words for the cause, or None.
        filename: the file at fault where `errno` is set, else None.
    """

    def __new__(cls, message: str, *, errno: int | None = None, **_: Any) -> FileError:
        """An AbsentFileError where `errno` says so, as OSError picks its own subclasses."""
        absent = cls is FileError and errno == codes.ENOENT
        return super().__new__(AbsentFileError if absent else cls, message)

    def __init__(
        self, message: str, *, errno: int | None = None, filename: str | None = None, **fault: Any
    ) -> None:
        super().__init__(message, **fault)
        self.errno = errno
        self.strerror = None if errno is None else os.strerror(errno)
        self.filename = filename

    @classmethod
    def of(cls, action: str, path: str | os.PathLike[str], error: OSError) -> FileError:
        """What the system answered when it was to `action` the file ("read", "write")."""
        name = os.fspath(path)
        return cls(
            f"cannot {action} {name}: {error.strerror or error}",
            subject=name,
            errno=error.errno,
            filename=name,
        )

    def __str__(self) -> str:
        return str(self.args[0])

    def __reduce__(self) -> tuple[Any, ...]:
        rebuild = partial(type(self), errno=self.errno, filename=self.filename)
        return rebuild, self.args, self.__dict__


class AbsentFileError(FileError, FileNotFoundError):
    """A file that is not there."""


class Closed(QuantloomError, RuntimeError):
    """Something was used after its close()."""
