"""The result of a bench as a picture."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from quantloom.errors import FileError, InvalidArgument, QuantloomError

if TYPE_CHECKING:
    from quantloom.bench import BenchResult


class PictureError(QuantloomError, ImportError):
    """matplotlib, which draws, is not installed or does not work."""


def check(path: Path) -> None:
    """Whether a picture can be drawn to `path`, to be asked before what it shows is measured.

    Raises:
        InvalidArgument: another ending than .png or .svg.
        FileError: there is no such folder.
        PictureError: matplotlib is missing.
    """
    if path.suffix not in (".png", ".svg"):
        raise InvalidArgument(f"a picture ends in .png or .svg, not {path.name!r}", subject="path")
    if not path.parent.is_dir():
        raise FileError(f"no folder {str(path.parent)!r} for a picture", subject=str(path))
    # Not imported here: it would count in the memory that a bench on the CPU reports.
    if find_spec("matplotlib") is None:
        raise PictureError("a picture needs matplotlib: pip install matplotlib")


def draw(result: BenchResult, path: Path, title: str) -> None:
    """Where a token's and a prompt's time goes, and how even the tokens come: PNG or SVG.

    Raises:
        InvalidArgument: another ending than .png or .svg, or a result without limits.
        FileError: the file cannot be written.
        PictureError: matplotlib is missing or broken.
    """
    check(path)
    limits = result.limits
    if limits is None:
        raise InvalidArgument("a picture needs the limits: bench(limits=True)", subject="result")
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise PictureError(f"matplotlib, which draws, cannot be imported: {error}") from None

    figure = Figure(figsize=(10, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    decode, prefill, spread = figure.subplots(1, 3)
    token = 1000 / result.decode
    weights = 1000 * limits.weight_bytes / limits.read_bandwidth
    cache = 1000 * limits.cache_bytes / limits.read_bandwidth
    parts = [("reading weights", weights), ("reading the cache", cache)]
    _stack(decode, [*parts, ("all else", token - weights - cache)])
    decode.set(title=f"a token: {token:,.2f} ms", ylabel="ms")
    prompt = 1000 * result.time_to_first_token
    if limits.prefill is None:
        prefill.set_axis_off()
        prefill.set(title="no plain product to compare with")
    else:
        products = 1000 * result.prompt_tokens / limits.prefill
        _stack(
            prefill, [(f"products, {limits.product}", products), ("all else", prompt - products)]
        )
        prefill.set(title=f"a prompt of {result.prompt_tokens:,}: {prompt:,.1f} ms", ylabel="ms")
    spread.hist([1000 * gap for gap in result.gaps], bins=60, color="tab:blue")
    for name, value in (("p50", result.gap_p50), ("p99", result.gap_p99)):
        spread.axvline(1000 * value, color="black", linewidth=0.8)
        spread.annotate(name, (1000 * value, 0.95), xycoords=("data", "axes fraction"), fontsize=8)
    spread.set(title="between two tokens", xlabel="ms", ylabel="tokens", yscale="log")
    figure.suptitle(title)
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise FileError.of("write", path, error) from error


def _stack(axes: object, parts: list[tuple[str, float]]) -> None:
    """One bar of parts; what is below zero, a limit that was passed, is left out."""
    bottom = 0.0
    for name, value in parts:
        if value > 0:
            axes.bar([""], [value], bottom=bottom, label=f"{name} {value:,.2f}", width=0.5)  # type: ignore[attr-defined]
            bottom += value
    axes.set_ylim(0, bottom * 1.35)  # type: ignore[attr-defined]
    axes.legend(fontsize=8, loc="upper center")  # type: ignore[attr-defined]
