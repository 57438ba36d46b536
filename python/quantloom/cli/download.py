"""`quantloom download`: a GGUF file from the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from quantloom.cli.options import Json, named, print_json
from quantloom.errors import FileError, InvalidArgument

# A part of a split file: what all parts have in common is the first and the last group.
SPLIT = re.compile(r"(.*)-(\d{5})(-of-(\d{5})\.gguf)$", re.IGNORECASE)
FORMAT = re.compile(r"(^|[-._/])(I?Q\d|TQ\d|B?F16|F32|MXFP4|NVFP4)", re.IGNORECASE)


def choose(files: list[str], quant: str | None) -> list[str]:
    """The one model among `files` that is of `quant`: a file, or all parts of a split one in order.

    Raises:
        InvalidArgument: none or several fit, and the message lists what there is, or parts of the
            one that fits are missing, and it names them.
    """
    ggufs = [name for name in files if name.lower().endswith(".gguf")]
    candidates = [name for name in ggufs if _is_model(name)]
    if quant is not None:
        pattern = re.compile(rf"(^|[-._/]){re.escape(quant)}([-./]|$)", re.IGNORECASE)
        candidates = [name for name in candidates if pattern.search(name)]
    models: dict[str, list[str]] = {}
    for name in candidates:
        models.setdefault(SPLIT.sub(r"\1\3", name), []).append(name)
    if len(models) == 1:
        (parts,) = models.values()
        return _complete(sorted(parts))
    if models:
        fault = f"{len(models)} models are "
        fault += f"of quant {quant}" if quant else "there, name one by its quant (owner/name:quant)"
    else:
        fault = f"no file is of quant {quant}" if quant else "no file is a model"
    there = ", ".join(sorted(ggufs)) or "none"
    raise InvalidArgument(f"{fault}; GGUF files there: {there}", subject="repo")


def _is_model(name: str) -> bool:
    """Whether a GGUF file of this name is a language model, and no file that goes with one.

    Such are the projector of a vision model, and the importance matrix that a model was quantized
    with; but a model may be named after its matrix too, and then also after its format.
    """
    lower = name.lower()
    named_format = FORMAT.search(name.rpartition("/")[2]) is not None
    return "mmproj" not in lower and ("imatrix" not in lower or named_format)


def _complete(parts: list[str]) -> list[str]:
    """`parts`, all files of one model.

    Raises:
        InvalidArgument: they are parts of a split file, and not all of them.
    """
    split = SPLIT.fullmatch(parts[0])
    if split is None:
        return parts
    stem, _, rest, count = split.groups()
    wanted = [f"{stem}-{number:05}{rest}" for number in range(1, int(count) + 1)]
    if parts == wanted:
        return parts
    missing = sorted(set(wanted) - set(parts))
    if missing:
        more = f" and {len(missing) - 8} more" if len(missing) > 8 else ""
        fault = f"{len(missing)} of its {len(wanted)} parts are missing: "
        fault += ", ".join(missing[:8]) + more
    else:
        fault = f"{min(set(parts) - set(wanted))} is none of its {len(wanted)} parts"
    raise InvalidArgument(f"the model is split, and {fault}", subject="repo")


def fetch(repo: str, *, directory: Path | None = None, revision: str | None = None) -> list[Path]:
    """Download `owner/name` or `owner/name:quant` and return the paths of its parts in order.

    Raises:
        InvalidArgument: `repo` is not of that form, none or several of its models fit, or the one
            that does lacks parts.
        FileError: the hub or a file cannot be reached, or a file cannot be written.
    """
    try:
        from huggingface_hub import HfApi, hf_hub_download
    except ImportError as error:
        raise InvalidArgument(
            "download needs huggingface_hub: pip install huggingface_hub", subject="repo"
        ) from error
    name, _, quant = repo.partition(":")
    if name.count("/") != 1 or not all(name.split("/")):
        raise InvalidArgument(f"'{repo}' is not owner/name or owner/name:quant", subject="repo")
    with _hub_errors(name):
        files = HfApi().list_repo_files(name, revision=revision)
    chosen = choose(files, quant or None)
    with _hub_errors(name):
        return [
            Path(hf_hub_download(name, file, revision=revision, local_dir=directory))
            for file in chosen
        ]


@contextmanager
def _hub_errors(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # which classes there are depends on the hub's own HTTP library
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FileError(f"could not download {name}: {reason}", subject=name) from error


def download(
    repo: Annotated[str, typer.Argument(help="owner/name:quant, such as owner/model-GGUF:Q4_K_M.")],
    directory: Annotated[
        Path | None,
        typer.Option(parser=named, help="Folder to put the file in; default: the hub's cache."),
    ] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit.")] = None,
    json: Json = False,
) -> None:
    """Download a GGUF file (all parts of it) and print its path."""
    paths = fetch(repo, directory=directory, revision=revision)
    if json:
        print_json({"repo": repo, "paths": [str(path) for path in paths]})
    else:
        typer.echo(paths[0])
