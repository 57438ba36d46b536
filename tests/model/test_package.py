"""What `import quantloom` alone gives, and what its annotations say."""

from __future__ import annotations

import inspect
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any, get_type_hints

import pytest

import quantloom
from quantloom import errors

# What only the package's own code imports, or its users by name.
INTERNAL = {
    "arguments",
    "bench",
    "bench_picture",
    "buffers",
    "ceilings",
    "cli",
    "dlpack",
    "dtypes",
    "gguf_values",
    "tables",
    "unshared",
}
MODULES = sorted(
    module.name
    for module in pkgutil.iter_modules(quantloom.__path__)
    if not module.name.startswith("_") and module.name not in INTERNAL
)


@pytest.mark.parametrize("name", MODULES)
def test_modules_need_no_import_of_their_own(name: str) -> None:
    code = f"import quantloom; assert quantloom.{name}.__name__ == 'quantloom.{name}'"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert name in dir(quantloom)


def test_every_error_is_in_the_package() -> None:
    for name, error in vars(errors).items():
        if inspect.isclass(error) and error.__module__ == "quantloom.errors":
            # What is absent is caught as FileError or FileNotFoundError.
            assert name == "AbsentFileError" or getattr(quantloom, name) is error
            assert name == "AbsentFileError" or name in quantloom.__all__


def test_import_loads_nothing_more() -> None:
    code = (
        "import sys, quantloom\n"
        "loaded = [name for name in sys.modules if name.startswith('quantloom.')]\n"
        "assert loaded == [] and 'numpy' not in sys.modules, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def functions(thing: Any) -> Iterator[Any]:
    if inspect.isfunction(thing):
        yield thing
    elif inspect.isclass(thing) and thing.__module__.startswith("quantloom."):
        yield thing
        for member in vars(thing).values():
            if isinstance(member, property):
                yield member.fget
            else:
                member = getattr(member, "__func__", member)
                if inspect.isfunction(member):
                    yield member


@pytest.mark.parametrize("name", [name for name in quantloom.__all__ if name not in MODULES])
def test_annotations_can_be_evaluated(name: str) -> None:
    for function in functions(getattr(quantloom, name)):
        get_type_hints(function)


def test_annotations_say_what_they_did() -> None:
    hints = get_type_hints(quantloom.Model.generate)
    assert hints["return"] is quantloom.GenerationResult
    assert "GenerationKeywords" in str(hints["options"])
    assert get_type_hints(quantloom.Stream.__init__)["session"] is quantloom.Session
    home = import_module("quantloom.file")
    assert get_type_hints(home.LazyTensor.to)["return"] is quantloom.Tensor
