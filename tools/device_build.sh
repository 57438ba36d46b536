#!/bin/sh
# Builds everything for the GPU and the Python of this machine and puts the module beside the package:
#   tools/device_build.sh BUILD_FOLDER && PYTHONPATH=python python3 -m pytest tests/gpu
# QUANTLOOM_CUDA_ARCHS overrides the architectures; ccache is used where it is on the PATH.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
cmake -G Ninja -S "$root" -B "$1" -DQUANTLOOM_CUDA=ON "-DQUANTLOOM_CUDA_ARCHS=${QUANTLOOM_CUDA_ARCHS:-}" \
  -DQUANTLOOM_PYTHON=ON "-DPython_EXECUTABLE=$(command -v python3)"
cmake --build "$1" --target _quantloom
cp "$1"/_quantloom*.so "$root/python/quantloom/"
