"""Run quantized language models (GGUF) on an NVIDIA GPU or the CPU, straight from their blocks.

    model = quantloom.load()            # the bundled model; or a path to a GGUF file
    print(model.chat("What is 2+2?"))

Names are imported when they are first used, so that `import quantloom` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from quantloom import cuda as cuda
    from quantloom import errors as errors
    from quantloom import explain as explain
    from quantloom import file as file
    from quantloom import formats as formats
    from quantloom import generation as generation
    from quantloom import gguf_writer as gguf_writer
    from quantloom import mixes as mixes
    from quantloom import model as model
    from quantloom import perplexity as perplexity
    from quantloom import products as products
    from quantloom import quantization as quantization
    from quantloom import reference as reference
    from quantloom import session as session
    from quantloom import stream as stream
    from quantloom import tensor as tensor
    from quantloom import text as text
    from quantloom._quantloom import __version__ as __version__
    from quantloom.errors import Cancelled as Cancelled
    from quantloom.errors import Closed as Closed
    from quantloom.errors import ContextFull as ContextFull
    from quantloom.errors import DeviceError as DeviceError
    from quantloom.errors import FileError as FileError
    from quantloom.errors import GGUFError as GGUFError
    from quantloom.errors import InvalidArgument as InvalidArgument
    from quantloom.errors import ModelError as ModelError
    from quantloom.errors import NumericsError as NumericsError
    from quantloom.errors import OutOfMemory as OutOfMemory
    from quantloom.errors import OutsideIndex as OutsideIndex
    from quantloom.errors import QuantloomError as QuantloomError
    from quantloom.errors import SessionBusy as SessionBusy
    from quantloom.errors import TemplateError as TemplateError
    from quantloom.errors import TokenizerError as TokenizerError
    from quantloom.errors import Unsupported as Unsupported
    from quantloom.file import File as File
    from quantloom.file import open as open
    from quantloom.generation import GenerationResult as GenerationResult
    from quantloom.model import Model as Model
    from quantloom.model import load as load
    from quantloom.products import matmul as matmul
    from quantloom.quantization import dequantize as dequantize
    from quantloom.quantization import quantize as quantize
    from quantloom.quantization import quantize_file as quantize_file
    from quantloom.session import Session as Session
    from quantloom.stream import Stream as Stream
    from quantloom.tensor import Tensor as Tensor
    from quantloom.text import Tokenizer as Tokenizer

_ERRORS = (
    "Cancelled",
    "Closed",
    "ContextFull",
    "DeviceError",
    "FileError",
    "GGUFError",
    "InvalidArgument",
    "ModelError",
    "NumericsError",
    "OutOfMemory",
    "OutsideIndex",
    "QuantloomError",
    "SessionBusy",
    "TemplateError",
    "TokenizerError",
    "Unsupported",
)

# Name to the module that holds it; a module of the same name is given itself.
_HOMES = {
    **dict.fromkeys(_ERRORS, "quantloom.errors"),
    "File": "quantloom.file",
    "GenerationResult": "quantloom.generation",
    "Model": "quantloom.model",
    "Session": "quantloom.session",
    "Stream": "quantloom.stream",
    "Tensor": "quantloom.tensor",
    "Tokenizer": "quantloom.text",
    "__version__": "quantloom._quantloom",
    "cuda": "quantloom.cuda",
    "dequantize": "quantloom.quantization",
    "formats": "quantloom.formats",
    "load": "quantloom.model",
    "matmul": "quantloom.products",
    "open": "quantloom.file",
    "quantize": "quantloom.quantization",
    "quantize_file": "quantloom.quantization",
    "reference": "quantloom.reference",
}

__all__ = [name for name in _HOMES if name != "__version__"]

_MODULES = (
    "errors",
    "explain",
    "file",
    "generation",
    "gguf_writer",
    "mixes",
    "model",
    "perplexity",
    "products",
    "quantization",
    "session",
    "stream",
    "tensor",
    "text",
)
_HOMES.update({name: f"quantloom.{name}" for name in _MODULES})

if not TYPE_CHECKING:  # type checkers read the imports above

    def __getattr__(name: str) -> Any:
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module 'quantloom' has no attribute {name!r}")
        module = import_module(home)
        value = module if home == f"quantloom.{name}" else getattr(module, name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_HOMES))
