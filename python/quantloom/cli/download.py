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

SPLIT = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$", re.IGNORECASE)


def choose(files: list[str], quant: str | None) -> list[str]:
    """The one file of `files` (or all parts of one split file) that is of `quant`.

    Raises:
        InvalidArgument: none or several fit; the message lists what there is.
    """
    candidates = [name for name in files if name.lower().endswith(".gguf")]
    # A projector of a vision model is no language model.
    candidates = [name for name in candidates if "mmproj" not in name.lower()]
    if quant is not None:
        pattern = re.compile(rf"(^|[-._/]){re.escape(quant)}([-./]|$)", re.IGNORECASE)
        candidates = [name for name in candidates if pattern.search(name)]
    groups: dict[str, list[str]] = {}
    for name in candidates:
        groups.setdefault(SPLIT.sub("", name), []).append(name)
    if len(groups) == 1:
        return sorted(next(iter(groups.values())))
    there = ", ".join(sorted(n for n in files if n.lower().endswith(".gguf"))) or "none"
    wanted = f"of quant {quant}" if quant else "alone in the repository (name a quant: repo:quant)"
    fault = "no file is" if not groups else f"{len(groups)} files are"
    raise InvalidArgument(f"{fault} {wanted}; GGUF files there: {there}", subject="repo")


def fetch(repo: str, *, directory: Path | None = None, revision: str | None = None) -> list[Path]:
    """Download `owner/name` or `owner/name:quant` and return the paths of its parts in order.

    Raises:
        InvalidArgument: `repo` is not of that form, or none or several of its files fit.
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
