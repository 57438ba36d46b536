"""Which GPUs can load a build: machine code for each architecture, PTX only where it is safe."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

CMAKE = shutil.which("cmake")


def targets(repository: Path, tmp_path: Path, *architectures: str) -> list[str]:
    """What nvcc is asked to embed: sm_ for machine code, compute_ for PTX."""
    if CMAKE is None:
        pytest.skip("needs cmake")
    script = tmp_path / "flags.cmake"
    script.write_text(
        f'include("{repository}/tools/cmake/gencode.cmake")\n'
        f"quantloom_gencode(flags {' '.join(architectures)})\n"
        'message("${flags}")\n'
    )
    ran = subprocess.run([CMAKE, "-P", script], capture_output=True, text=True, check=True)
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
