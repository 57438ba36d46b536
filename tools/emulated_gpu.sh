#!/usr/bin/env bash
# The GPU tests on the emulator of tools/emulator, where no GPU is:
#   tools/emulated_gpu.sh [tests and options of pytest]
# PYTHON names an interpreter with the test dependencies and pybind11, BUILD a folder for the build, JOBS its processes.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3} build=${BUILD:-build/emulated}
mkdir -p "$build"
cmake -G Ninja -S . -B "$build" -DQUANTLOOM_EMULATED_GPU=ON \
  -DPython_EXECUTABLE="$(command -v "$python")" >"$build/configure.log" ||
  { cat "$build/configure.log"; exit 1; }
cmake --build "$build" --target _quantloom_emulated -j "${JOBS:-$(nproc)}"
# A package of its own, for an extension that emulates must not lie where a wheel is made.
rm -rf "$build/python"
mkdir -p "$build/python"
cp -rs "$PWD/python/quantloom" "$build/python/"
rm -f "$build"/python/quantloom/_quantloom*.so
cp "$build"/emulated/_quantloom*.so "$build/python/quantloom/"
[ $# -gt 0 ] || set -- tests/gpu
# A run whose tests all skip because there is no GPU would pass.
unset CUDA_VISIBLE_DEVICES
export QUANTLOOM_REQUIRE_GPU=${QUANTLOOM_EMULATOR_DEVICES:-1}
PYTHONPATH=$(cd "$build" && pwd)/python exec "$python" -m pytest "$@"
