#!/usr/bin/env bash
# The four tools of compute-sanitizer over GPU tests at small shapes:
#   PYTHONPATH=python tools/compute_sanitizer.sh [tests and options of pytest]
# By default some of every kind of kernel: products of few tokens, of many, from raw blocks and with float weights,
# dequantization, the operations of a layer, attention over each type of cache, the sampler, the decode program with both
# of its caches, and whole generations. Few of the formats; tests/gpu has all of them.
# A finding makes it end with 9, any other failure with that tool's own status. The tools run side by side, each in
# PROCESSES processes that share the tests named (options go to every process); SECONDS_EACH bounds each of them.
# TOOLS says which run, LOGS names a folder that keeps what they print. racecheck wants a module built with
# -DQUANTLOOM_RACECHECK=ON (tools/device_build.sh passes it on): of the others it reports orders that it does not
# follow (tools/sanitizers/handover.cu). The other tools want a module without it: with it, synccheck (2025.3) may not
# come back from the decode program. With 24 steps a test, racecheck took 100 to 200 s and tens of GB of the host's
# memory for one of the decode program, so each takes QUANTLOOM_TEST_STEPS here, 3 unless it is set. With those, on an
# H200 of its own: synccheck 10 s for all of it, racecheck 140 s for the decode program in two processes.
set -uo pipefail
cd "$(dirname "$0")/.."
tests=("$@")
if [ $# -eq 0 ]; then
  gpu=tests/gpu
  tests=(
    # One to 16 tokens, their sums over a cluster, and one to 300 tokens, whose tiles are of several sizes.
    $gpu/test_gpu_matmul.py::test_few_tokens_share_their_conversion"[100-1056-Q4_0]"
    $gpu/test_gpu_matmul.py::test_few_tokens_share_their_conversion"[72-4352-IQ2_XS]"
    $gpu/test_gpu_matmul.py::test_sums_of_splits_meet_in_a_cluster"[Q4_K]"
    $gpu/test_gpu_matmul.py::test_sixteen_bits_in_and_out"[Q6_K-bfloat16]"
    $gpu/test_gpu_matmul.py::test_sixteen_bits_in_and_out"[TQ2_0-float16]"
    $gpu/test_gpu_matmul.py::test_the_kernels_for_raw_blocks_agree"[Q8_0]"
    $gpu/test_gpu_matmul.py::test_float_weights"[float32-36]"
    $gpu/test_gpu_matmul.py::test_float_weights"[bfloat16-264]"
    $gpu/test_gpu_matmul.py::test_packing_keeps_every_bit"[Q5_K]"
    $gpu/test_dequantize.py::test_the_cpu_and_the_gpu_give_the_same_bits"[Q4_K-float16]"
    $gpu/test_dequantize.py::test_the_cpu_and_the_gpu_give_the_same_bits"[IQ3_S-bfloat16]"
    $gpu/test_dequantize.py::test_the_cpu_and_the_gpu_give_the_same_bits"[Q5_0-float32]"
    $gpu/test_operations.py::test_norm
    $gpu/test_operations.py::test_embed
    $gpu/test_operations.py::test_elementwise"[1000]"
    $gpu/test_operations.py::test_mixed_projections"[formats0-rows0-512-7]"
    $gpu/test_operations.py::test_mixed_projections"[formats0-rows0-512-40]"
    $gpu/test_operations.py::test_feed_forward"[Q8_0-7-512]"
    $gpu/test_operations.py::test_feed_forward"[Q5_0-130-832]"
    $gpu/test_operations.py::test_gate_up"[Q4_K-silu-8]"
    $gpu/test_operations.py::test_gate_up"[Q8_0-gelu-130]"
    $gpu/test_operations.py::test_attention"[decode]"
    $gpu/test_operations.py::test_attention"[a few tokens]"
    $gpu/test_operations.py::test_attention"[prefill on a past]"
    $gpu/test_operations.py::test_attention"[f32 cache]"
    $gpu/test_operations.py::test_attention"[q8_0 cache, decode]"
    $gpu/test_operations.py::test_attention"[q8_0 cache, prefill]"
    $gpu/test_operations.py::test_attention"[head of 80]"
    $gpu/test_operations.py::test_the_gpu_chooses_as_the_cpu_does"[greedy-300]"
    $gpu/test_operations.py::test_the_gpu_chooses_as_the_cpu_does"[chain-300]"
    $gpu/test_operations.py::test_the_gpu_chooses_as_the_cpu_does"[penalties-32000]"
    $gpu/test_operations.py::test_the_gpu_chooses_as_the_cpu_does"[log-probabilities-32000]"
    # The decode program, over histories of one part and of several.
    $gpu/test_decode_kernel.py::test_heads"[6-128]"
    $gpu/test_decode_kernel.py::test_window_and_soft_cap"[f16-40]"
    $gpu/test_decode_kernel.py::test_window_and_soft_cap"[q8_0-300]"
    $gpu/test_decode_kernel.py::test_gate_and_up_of_two_formats"[IQ3_S-IQ4_XS-512-qwen3]"
    $gpu/test_decode_kernel.py::test_sums_of_x"[parts1]"
    $gpu/test_decode_kernel.py::test_sums_of_long_rows"[IQ1_M]"
    $gpu/test_decode_kernel.py::test_tables_of_one_layer
    # Prompts in chunks, and tokens with the operations one by one.
    $gpu/test_model.py::test_architectures"[llama Q8_0]"
    $gpu/test_model.py::test_architectures"[llama soft caps]"
    $gpu/test_model.py::test_architectures"[qwen3 Q4_K]"
    $gpu/test_model.py::test_a_cache_that_holds_the_beginning_is_reused"[33]"
  )
fi
read -ra tools <<<"${TOOLS:-memcheck racecheck initcheck synccheck}"
processes=${PROCESSES:-1}
export QUANTLOOM_TEST_STEPS=${QUANTLOOM_TEST_STEPS:-3}
named=()
options=()
for argument in "${tests[@]}"; do
  if [[ $argument == *::* || $argument == *.py ]]; then named+=("$argument"); else options+=("$argument"); fi
done
if [ -n "${LOGS:-}" ]; then
  logs=$LOGS
  mkdir -p "$logs"
else
  logs=$(mktemp -d)
  trap 'rm -rf "$logs"' EXIT
fi
pids=()
for tool in "${tools[@]}"; do
  for ((process = 0; process < processes; ++process)); do
    share=()
    for ((i = process; i < ${#named[@]}; i += processes)); do share+=("${named[i]}"); done
    [ ${#share[@]} -gt 0 ] || [ "$process" -eq 0 ] || continue
    # Calls that are probed and answered with an error (has this build code for this chip?) are no findings.
    # A time that is up interrupts pytest, which then still says what failed so far. With backtraces, which ask for
    # the interpreter's lock, calls of several threads waited for each other for ever.
    timeout -s INT --kill-after=30 "${SECONDS_EACH:-900}" compute-sanitizer --tool "$tool" --report-api-errors no \
      --show-backtrace no --error-exitcode 9 --target-processes application-only \
      python3 -m pytest -o addopts= -v -p no:cacheprovider --timeout 900 --durations 3 "${options[@]}" "${share[@]}" \
      >"$logs/$tool.$process" 2>&1 &
    pids+=($!)
  done
done
worst=0
for pid in "${pids[@]}"; do
  wait "$pid"
  code=$?
  [ $code -gt $worst ] && worst=$code
done
for tool in "${tools[@]}"; do
  # Counted line by line: a run that was out of time may not have said it at its end.
  echo "== $tool: $(cat "$logs/$tool".* | grep -cE "::.* PASSED") passed," \
    "$(cat "$logs/$tool".* | grep -cE "::.* (FAILED|ERROR)") failed of" \
    "$(sed -nE 's/^collect.* ([0-9]+) items?.*/\1/p' "$logs/$tool".* | awk '{ all += $1 } END { print all + 0 }')"
  grep -hE "^========= " "$logs/$tool".* | grep -vE "COMPUTE-SANITIZER" | head -n 40
  grep -hE "^E  |^ERROR|^FAILED|call +tests/" "$logs/$tool".* | tail -n 20
done
exit $worst
