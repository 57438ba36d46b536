#!/usr/bin/env bash
# Tests with everything of ours built for sanitizers:
#   tools/sanitize.sh [address|thread] [tests and options of pytest]
# address: ASan, UBSan and LeakSanitizer; all Python tests. The C++ tests are left to ctest, which needs no script.
# thread: ThreadSanitizer; the C++ tests, then the Python tests in which several threads are under way.
# Needs cmake, ninja, pybind11 and the extra `test` in the Python on the PATH; for `address` clang with its
# runtime libraries, for `thread` g++ (clang 14's runtime for threads does not start where it is preloaded).
# BUILD_FOLDER: where to build, and what is built there already is used; without it in a folder that goes again.
set -euo pipefail
cd "$(dirname "$0")/.."
kind=${1:-address}
shift $(($# < 1 ? $# : 1))
tests=("$@")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
build=${BUILD_FOLDER:-$work/build}
mkdir "$work/python" "$work/logs"
started=$SECONDS

case $kind in
  address)
    compiler=clang++ sanitize=address,undefined runtime=libclang_rt.asan-x86_64.so
    left_out=(
      # They measure time to a tenth of a second, which the runtime takes too.
      tests/generate/test_under_way.py::test_import_is_quick
      tests/gguf/test_open.py::test_sparse_5_gb_file_opens_at_once
      # They measure memory, and freed memory is held back to see whether it is used again.
      tests/faults/test_requests.py::test_a_stream_gives_its_cache_back
      tests/faults/test_failing_allocations.py::test_twenty_loads_give_everything_back
      # Where operator new would throw std::bad_alloc, the runtime ends the process.
      "tests/faults/test_memory_limits.py::test_what_does_not_fit[RoPE table]"
    )
    ;;
  thread)
    compiler=g++ sanitize=thread runtime=libtsan.so
    # Sessions, streams and cancelling on several threads, signals, and every operation on the pool's threads; what is
    # left are inputs by the thousand on one thread.
    [ ${#tests[@]} -gt 0 ] || tests=(tests/generate/test_{under_way,interrupted,generate,sampling}.py tests/cpu
      tests/faults/test_{determinism,signals,requests,changing_files,failing_allocations}.py)
    left_out=(
      tests/generate/test_under_way.py::test_import_is_quick # measures time, which the runtime takes too
      # Where an allocation fails, the runtime ends the process instead of returning null.
      "tests/faults/test_memory_limits.py::test_what_does_not_fit[RoPE table]"
      "tests/faults/test_memory_limits.py::test_what_does_not_fit[KV cache]"
      "tests/faults/test_memory_limits.py::test_what_does_not_fit[logits]"
      # A thread of the child may get the identity of one that the parent had, and the runtime ends the process.
      tests/faults/test_fork.py
      # Here the process ends, as it may, while a load has threads to join yet: the runtime calls them leaked.
      "tests/faults/test_signals.py::test_the_interpreter_ends_in_the_middle[daemon thread loads]"
    )
    ;;
  *) echo "there is no sanitizer '$kind'" >&2 && exit 1 ;;
esac

CXX=$compiler cmake -G Ninja -S . -B "$build" -DQUANTLOOM_CUDA=OFF -DQUANTLOOM_PYTHON=ON -DQUANTLOOM_TESTS=ON \
  "-DQUANTLOOM_SANITIZE=$sanitize" -DCMAKE_BUILD_TYPE=RelWithDebInfo \
  "-DPython_EXECUTABLE=$(command -v python3)" >/dev/null
targets=(_quantloom)
[ "$kind" = address ] || targets=(all)
cmake --build "$build" --target "${targets[@]}" >"$work/log" || { tail -n 60 "$work/log" && exit 1; }
cp -r python/quantloom "$work/python/"
cp "$build"/_quantloom*.so "$work/python/quantloom/"
echo "built for $sanitize in $((SECONDS - started)) s"

for test in "${left_out[@]}"; do tests+=("--deselect=$test"); done
options=(-p no:cacheprovider --timeout 900)
library=$($compiler "-print-file-name=$runtime")
[ -e "$library" ] || library=$($compiler -print-runtime-dir)/$runtime
reports=()
failed=0
if [ "$kind" = address ]; then
  # The runtime looks for the C++ library's throw when it starts, before Python loads the module.
  preload="$library $($compiler -print-file-name=libstdc++.so.6)"
  # Whole stacks of every allocation, also through libraries that keep no frame pointers: else a leak of ours
  # inside a std::string or a Python object would not name us. Python's own allocator for small objects stays
  # (with PYTHONMALLOC=malloc these stacks cost it six times the time), so what only such an object holds at the
  # end of a process counts as leaked too. Runtimes before LLVM 16 misread the thread-local memory of glibc.
  export ASAN_OPTIONS="detect_leaks=1:fast_unwind_on_malloc=0:malloc_context_size=16:intercept_tls_get_addr=0"
  # A file cut under its mapping ends the process with SIGBUS, and a test sees it.
  ASAN_OPTIONS+=":handle_sigbus=0"
  # A leak ends no process with an error, for Python has its own: report.py finds ours. Any error aborts.
  ASAN_OPTIONS+=":exitcode=0:abort_on_error=1:allocator_may_return_null=1:symbolize=0:log_path=$work/logs/address"
  export UBSAN_OPTIONS="print_stacktrace=1"
  reports=(--leaks)
else
  preload=$library
  # A child of fork() starts threads of its own, and that is tested.
  export TSAN_OPTIONS="die_after_fork=0:handle_sigbus=0"
  TSAN_OPTIONS+=":log_path=$work/logs/thread"
  export OPENBLAS_NUM_THREADS=1  # NumPy's, which TSan does not see into
  ctest --test-dir "$build" --output-on-failure || failed=1
fi
env "LD_PRELOAD=$preload" "PYTHONPATH=$work/python" python3 -m pytest "${options[@]}" "${tests[@]}" || failed=1
python3 tools/sanitizers/report.py "$work/logs" "${reports[@]}" || failed=1
echo "$kind: $((SECONDS - started)) s"
exit $failed
