#!/bin/sh
# Builds everything for the GPU and the Python of this machine and puts the module beside the package:
#   tools/device_build.sh BUILD_FOLDER [options of cmake] && PYTHONPATH=python python3 -m pytest tests/gpu
# QUANTLOOM_CUDA_ARCHS overrides the architectures; ccache is used where it is on the PATH.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
build=$1
shift
cmake -G Ninja -S "$root" -B "$build" -DQUANTLOOM_CUDA=ON "-DQUANTLOOM_CUDA_ARCHS=${QUANTLOOM_CUDA_ARCHS:-}" \
  -DQUANTLOOM_PYTHON=ON "-DPython_EXECUTABLE=$(command -v python3)" "$@"
cmake --build "$build" --target _quantloom
cp "$build"/_quantloom*.so "$root/python/quantloom/"
