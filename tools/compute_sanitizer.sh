#!/usr/bin/env bash
# The four tools of compute-sanitizer over the GPU tests that run every kind of kernel at small shapes:
#   PYTHONPATH=python tools/compute_sanitizer.sh [tests and options of pytest]
# A tool's finding makes its run end with 9. The tools run side by side; SECONDS_EACH bounds each.
set -uo pipefail
cd "$(dirname "$0")/.."
tests=("$@")
[ $# -gt 0 ] || tests=(tests/gpu/test_model.py -k "architectures or chunks")
logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
for tool in memcheck racecheck initcheck synccheck; do
  # Calls that are probed and answered with an error (has this build code for this chip?) are no findings.
  # A time that is up interrupts pytest, which then still says what failed so far. With backtraces, which ask for
  # the interpreter's lock, calls of several threads waited for each other for ever.
  timeout -s INT --kill-after=30 "${SECONDS_EACH:-900}" compute-sanitizer --tool "$tool" --report-api-errors no \
    --show-backtrace no \
    --error-exitcode 9 --target-processes application-only \
    python3 -m pytest -q -p no:cacheprovider --timeout 900 "${tests[@]}" >"$logs/$tool" 2>&1 &
  pids+=($!)
done
worst=0
for index in 0 1 2 3; do
  wait "${pids[$index]}"
  code=$?
  [ $code -gt $worst ] && worst=$code
done
for tool in memcheck racecheck initcheck synccheck; do
  echo "== $tool"
  grep -E "^=========" "$logs/$tool" | grep -vE "COMPUTE-SANITIZER" | head -n 40
  grep -vE "^=========|^$" "$logs/$tool" | grep -E "^E  |^FAILED|passed|failed" | tail -n 20
done
exit $worst
