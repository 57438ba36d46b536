#!/usr/bin/env bash
# Runs the fuzz target of a build made with clang, -DQUANTLOOM_FUZZ=ON and
# -DQUANTLOOM_SANITIZE=address,undefined, over a corpus made on the spot.
#   tests/fuzz/run.sh BUILD_FOLDER [RUNS]
# The seed is fixed, so that two runs of the same build try the same inputs. An input of at most 4 KB
# may allocate 64 MB at once and take 5 s; above that it counts as found.
set -euo pipefail
build=$1
runs=${2:-200000}
here=$(cd "$(dirname "$0")" && pwd)
target=$(find "$build" -name fuzz_gguf -type f -perm -u+x -print -quit)
[ -n "$target" ] || { echo "no fuzz_gguf under $build: build with -DQUANTLOOM_FUZZ=ON" >&2; exit 1; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 "$here/make_corpus.py" "$work/corpus" "$work/words.dict"
"$target" -runs="$runs" -seed=1 -max_len=4096 -timeout=5 -rss_limit_mb=1024 -malloc_limit_mb=64 \
  -dict="$work/words.dict" -artifact_prefix="$build/found-" -print_final_stats=1 "$work/corpus" \
  2>&1 | tail -n 25
