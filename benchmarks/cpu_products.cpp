// Speed of the CPU's matrix products alone, per instruction set, format and precision: one token in
// GB of weights a second, 512 tokens in GFLOP a second.
//
//   benchmark_cpu_products [threads] [instruction set | all] [format | all] [wall | cpu]
//
// With "cpu" time is the processor time of all threads divided by their number, for a machine that
// others use too.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <random>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "cpu/instruction_set.h"
#include "cpu/operations.h"
#include "formats/types.h"

namespace {

using quantloom::formats::Format;
using quantloom::formats::TypeInfo;
using quantloom::ops::Operations;
using quantloom::ops::Precision;
using quantloom::ops::Weight;

constexpr std::int64_t rows = 2048;
constexpr std::int64_t columns = 4096;

bool processor_time = false;

double now() {
  if (processor_time) {
    timespec time = {};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    const double seconds =
        static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
    return seconds / quantloom::thread_count();
  }
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double seconds_of(Operations& operations, const std::vector<Weight>& weights, const float* x,
                  std::int64_t tokens, float* out, double least_seconds) {
  double best = 1e30;
  double total = 0;
  for (int repeat = 0; repeat < 2 || total < least_seconds; ++repeat) {
    const double start = now();
    for (const Weight& weight : weights) operations.project(x, tokens, {&weight, nullptr, out});
    const double taken = now() - start;
    best = std::min(taken, best);
    total += taken;
  }
  return best;
}

void measure(const TypeInfo& info, const char* set) {
  const std::int64_t bytes = rows * columns / info.elements * info.bytes;
  // Far more than any cache, so that one token reads from memory.
  const std::int64_t copies = (std::int64_t{300} << 20) / bytes + 1;
  std::vector<std::uint8_t> blocks(static_cast<std::size_t>(bytes * copies));
  std::mt19937_64 random(1);
  std::vector<std::uint64_t> pool(1 << 16);
  for (std::uint64_t& word : pool) {
    // As a half, bfloat16, float or E8M0 exponent of a moderate size: subnormals would be slow.
    word = (random() & 0x0f8f0f8f0f8f0f8fu) | 0x3030303030303030u;
  }
  for (std::size_t at = 0; at < blocks.size(); at += pool.size() * 8) {
    std::memcpy(blocks.data() + at, pool.data(), std::min(pool.size() * 8, blocks.size() - at));
  }
  std::vector<Weight> weights(static_cast<std::size_t>(copies));
  for (std::size_t i = 0; i < weights.size(); ++i) {
    weights[i] = {.name = info.name,
                  .format = static_cast<Format>(info.id),
                  .rows = rows,
                  .columns = columns,
                  .blocks = blocks.data() + static_cast<std::int64_t>(i) * bytes,
                  .planes = nullptr};
  }
  constexpr std::int64_t many = 512;
  std::vector<float> x(static_cast<std::size_t>(many * columns));
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i * 7919 % 2003) / 1000 - 1;
  std::vector<float> out(static_cast<std::size_t>(many * rows));
  std::printf("%-12s %-8s", set, info.name);
  for (const Precision precision : {Precision::exact, Precision::fast}) {
    const auto operations = quantloom::cpu::make_operations(precision);
    const double one = seconds_of(*operations, weights, x.data(), 1, out.data(), 0.2);
    const double four = seconds_of(*operations, weights, x.data(), 4, out.data(), 0);
    const std::vector<Weight> few(weights.begin(), weights.begin() + 2);
    const double prefill = seconds_of(*operations, few, x.data(), many, out.data(), 0.1);
    const double gigabytes = static_cast<double>(bytes * copies) / 1e9;
    const double flops = 2.0 * 2 * rows * columns * many;
    std::printf("  %s: 1 token %5.1f GB/s, 4 tokens %5.1f GB/s, 512 tokens %6.0f GFLOP/s",
                precision == Precision::exact ? "exact" : "fast", gigabytes / one, gigabytes / four,
                flops / prefill / 1e9);
  }
  std::printf("\n");
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  quantloom::set_thread_count(argc > 1 ? std::atoi(argv[1]) : 0);
  const std::string only_set = argc > 2 ? argv[2] : "all";
  const std::string only_format = argc > 3 ? argv[3] : "all";
  processor_time = argc > 4 && std::string(argv[4]) == "cpu";
  for (const auto set : quantloom::cpu::available_instruction_sets()) {
    const char* name = quantloom::cpu::to_string(set);
    if (only_set != "all" && only_set != name) continue;
    quantloom::cpu::set_instruction_set(name);
    for (const TypeInfo& info : quantloom::formats::type_table()) {
      if (info.state != quantloom::formats::TypeState::served) continue;
      if (only_format != "all" && only_format != info.name) continue;
      measure(info, name);
    }
  }
}
