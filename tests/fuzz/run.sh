#!/usr/bin/env bash
# Replays what is kept beside this file and runs each fuzz target for a time:
#   tests/fuzz/run.sh BUILD_FOLDER [SECONDS_EACH] [TARGET...]
# BUILD_FOLDER: made by clang with -DQUANTLOOM_FUZZ=ON -DQUANTLOOM_SANITIZE=address,undefined; the
# target `vocabulary` is Python and needs quantloom and atheris installed.
# An input of the reader is at most 4 KB and may allocate 64 MB at once; the seed is fixed, so that two
# runs of one build begin with the same inputs. What is found stays in BUILD_FOLDER/found-*.
set -euo pipefail
build=$(cd "$1" && pwd)
seconds=${2:-60}
shift $(($# < 2 ? $# : 2))
targets=("${@:-gguf load vocabulary}")
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for target in ${targets[*]}; do
  python3 "$here/make_corpus.py" "$target" "$work/$target" "$work/words.dict"
  case $target in
    gguf) run=("$build/fuzz_gguf" -max_len=4096 -malloc_limit_mb=64 "-dict=$work/words.dict") ;;
    load) run=("$build/fuzz_load" -max_len=65536 -mutate_depth=1) ;;
    vocabulary) run=(python3 "$here/fuzz_vocabulary.py" -max_len=16384 -mutate_depth=1) ;;
    *) echo "there is no target '$target'" >&2 && exit 1 ;;
  esac
  echo "fuzz $target: $(find "$work/$target" -type f | wc -l) files, then $seconds s"
  "${run[@]}" "-max_total_time=$seconds" -seed=1 -timeout=60 -rss_limit_mb=2048 \
    "-artifact_prefix=$build/found-$target-" -print_final_stats=1 "$work/$target" \
    >"$work/log" 2>&1 || { tail -n 60 "$work/log" && exit 1; }
  grep -E "^(Done|stat::number|stat::average|inputs)" "$work/log"
  { grep "^{" "$work/log" || true; } | tail -n 1
done
