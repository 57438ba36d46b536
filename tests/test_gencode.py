"""Which GPUs can load a build: machine code for each architecture, PTX only where it is safe."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

CMAKE = shutil.which("cmake")


def cmake(repository: Path, tmp_path: Path, call: str) -> subprocess.CompletedProcess[str]:
    """Prints `answer`, which `call` sets."""
    if CMAKE is None:
        pytest.skip("needs cmake")
    script = tmp_path / "call.cmake"
    script.write_text(
        f'include("{repository}/tools/cmake/gencode.cmake")\n{call}\nmessage("${{answer}}")\n'
    )
    return subprocess.run([CMAKE, "-P", script], capture_output=True, text=True, check=False)


def targets(repository: Path, tmp_path: Path, *architectures: str) -> list[str]:
    """What nvcc is asked to embed: sm_ for machine code, compute_ for PTX."""
    ran = cmake(repository, tmp_path, f"quantloom_gencode(answer {' '.join(architectures)})")
    assert ran.returncode == 0, ran.stderr
    return [flag.rpartition("code=")[2] for flag in ran.stderr.strip().split(";")]


def test_a_later_gpu_compiles_only_ptx_whose_kernels_wait(repository: Path, tmp_path: Path) -> None:
    """Before 9.0 they do not wait for the kernel before, which later GPUs let them overlap."""
    assert targets(repository, tmp_path, "80", "90a") == ["sm_80", "sm_90a"]
    assert targets(repository, tmp_path, "86", "89") == ["sm_86", "sm_89"]


def test_the_latest_plain_architecture_goes_along_as_ptx(repository: Path, tmp_path: Path) -> None:
    every = ["80", "86", "89", "90a", "100", "120"]
    machine_code = [f"sm_{arch}" for arch in every]
    assert targets(repository, tmp_path, *every) == [*machine_code, "compute_120"]
    assert targets(repository, tmp_path, "120", "100", "80")[-1] == "compute_120"
    assert targets(repository, tmp_path, "90a", "100a") == ["sm_90a", "sm_100a"]
    assert targets(repository, tmp_path, "90a") == ["sm_90a"]


@pytest.mark.parametrize(
    ("capabilities", "architectures"),
    [("8.6", "86"), ("9.0 9.0 12.0", "90a;120"), ("7.5 8.9", "89"), ("7.5", ""), ("6.1 7.0", "")],
)
def test_gpus_that_the_kernels_do_not_compile_for_are_left_out(
    repository: Path, tmp_path: Path, capabilities: str, architectures: str
) -> None:
    ran = cmake(repository, tmp_path, f"quantloom_served(answer {capabilities})")
    assert (ran.returncode, ran.stderr.strip()) == (0, architectures)


def test_an_architecture_asked_for_by_name_must_be_served(repository: Path, tmp_path: Path) -> None:
    ran = cmake(repository, tmp_path, "quantloom_gencode(answer 75)")
    assert ran.returncode != 0
    assert "compute capability 8.0 or later" in " ".join(ran.stderr.split())
