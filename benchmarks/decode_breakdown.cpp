// Where the microseconds of one decoded token go, for a model file on a GPU:
//
//   benchmark_decode_breakdown MODEL.gguf [CONTEXT]
//
// The limit is the rate of reading memory, measured here. Times of the whole step by the host's
// clock over many steps; inside the decode kernel by the GPU's own clock, per operation and block.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "cuda/operations.h"
#include "device/read_once.h"
#include "device/tensor.h"
#include "generate/pipeline.h"
#include "model/model.h"

namespace {

using namespace quantloom;
using Clock = std::chrono::steady_clock;

struct Line {
  int count = 0;
  double span = 0;       // from the end of the operation before to its own, the latest block's
  double streaming = 0;  // its weights at the measured rate of reading
  double inputs = 0;     // mean over blocks: the wait for x, reading and converting it
  double sums = 0;       // mean: the weights that were not there yet, and the arithmetic
  double slowest = 0;    // what the slowest block's sums take beyond the mean
  double outputs = 0;    // mean: adding the warps' sums, storing
};

// Bytes per nanosecond at which a kernel that does nothing else reads memory.
double read_rate(const device::Device& gpu) {
  constexpr std::int64_t bytes = std::int64_t{2} << 30;  // far beyond the level-2 cache
  constexpr int reads = 10;
  double best = 0;
  {
    const auto memory = device::Tensor::empty(device::DType::u8, {bytes}, gpu);
    const auto sum = device::Tensor::empty(device::DType::u32, {1}, gpu);
    for (int turn = 0; turn < 4; ++turn) {
      device::synchronize(gpu);
      const auto start = Clock::now();
      for (int i = 0; i < reads; ++i) device::read_once(memory, sum);
      device::synchronize(gpu);
      const double ns = std::chrono::duration<double, std::nano>(Clock::now() - start).count();
      if (turn > 0) best = std::max(best, static_cast<double>(reads * bytes) / ns);
    }
  }
  device::trim_memory(gpu);
  return best;
}

void print_profile(const cuda::StepProfile& profile, double bytes_per_ns) {
  std::vector<std::string> order;
  std::map<std::string, Line> lines;
  std::uint64_t before = ~std::uint64_t{0}, start = 0;
  for (const cuda::StepProfile::Operation& operation : profile.operations) {
    std::uint64_t end = 0;
    Line line;
    const auto blocks = static_cast<double>(operation.times.size() / 4);
    for (std::size_t i = 0; i < operation.times.size(); i += 4) {
      const std::uint64_t* t = &operation.times[i];
      if (start == 0) before = std::min(before, t[0]);
      end = std::max(end, t[3]);
      line.inputs += static_cast<double>(t[1] - t[0]) / blocks;
      line.sums += static_cast<double>(t[2] - t[1]) / blocks;
      line.outputs += static_cast<double>(t[3] - t[2]) / blocks;
      line.slowest = std::max(line.slowest, static_cast<double>(t[2] - t[1]));
    }
    if (start == 0) start = before;
    line.span = static_cast<double>(end) - static_cast<double>(before);
    before = end;
    const auto [found, added] = lines.try_emplace(operation.name);
    if (added) order.push_back(operation.name);
    Line& total = found->second;
    ++total.count;
    total.span += line.span;
    total.streaming += static_cast<double>(operation.weight_bytes) / bytes_per_ns;
    total.inputs += line.inputs, total.sums += line.sums, total.outputs += line.outputs;
    total.slowest += line.slowest - line.sums;
  }
  std::printf("\n%-24s %5s %10s %10s %10s %10s %10s %10s   (us per token)\n",
              "in the decode kernel", "count", "span", "at limit", "inputs", "sums", "slowest+",
              "outputs");
  Line all;
  for (const std::string& name : order) {
    const Line& l = lines[name];
    std::printf("%-24s %5d %10.1f %10.1f %10.1f %10.1f %10.1f %10.1f\n", name.c_str(), l.count,
                l.span / 1e3, l.streaming / 1e3, l.inputs / 1e3, l.sums / 1e3, l.slowest / 1e3,
                l.outputs / 1e3);
    all.count += l.count, all.span += l.span, all.streaming += l.streaming;
    all.inputs += l.inputs, all.sums += l.sums, all.slowest += l.slowest;
    all.outputs += l.outputs;
  }
  std::printf("%-24s %5d %10.1f %10.1f %10.1f %10.1f %10.1f %10.1f\n", "all", all.count,
              all.span / 1e3, all.streaming / 1e3, all.inputs / 1e3, all.sums / 1e3,
              all.slowest / 1e3, all.outputs / 1e3);
}

}  // namespace

int main(int count, char** values) {
  if (count < 2) {
    std::fprintf(stderr, "benchmark_decode_breakdown MODEL.gguf [CONTEXT]\n");
    return 2;
  }
  const std::int64_t context = count > 2 ? std::atoll(values[2]) : 512;
  constexpr int steps = 200;
  try {
    model::LoadOptions options;
    options.device = device::parse_device("cuda");
    options.context_length = context + steps + 8;
    options.check_weights = false;
    const double bytes_per_ns = read_rate(options.device);
    const auto model =
        model::Model::load(loader::ModelFile::open(values[1]), options, ops::Progress());
    generate::Pipeline pipeline(*model, context + steps + 8, 512);
    ops::Operations& operations = pipeline.operations();
    const std::int64_t vocabulary = model->hyperparameters().vocabulary;
    const auto floats = static_cast<std::size_t>(vocabulary);
    const ops::Buffer logits = operations.allocate(floats * sizeof(float), "logits");
    const ops::Buffer state = operations.allocate(
        static_cast<std::size_t>(context + steps + 16) * sizeof(std::int32_t), "tokens");
    const ops::Buffer parameters =
        operations.allocate(sizeof(ops::SamplerParameters), "sampler parameters");
    const ops::Buffer results = operations.allocate_shared(16 * sizeof(ops::Choice), "choices");
    auto* first = static_cast<std::int32_t*>(state.get());
    std::int32_t* token = first + 1;
    std::int32_t* history = first + 2;
    std::vector<std::int32_t> prompt(static_cast<std::size_t>(context));
    for (std::size_t i = 0; i < prompt.size(); ++i) {
      prompt[i] = static_cast<std::int32_t>((i * 7919 + 13) % floats);
    }
    const ops::SamplerParameters greedy;
    operations.write(parameters.get(), &greedy, sizeof greedy);
    operations.write(history, prompt.data(), prompt.size() * sizeof prompt[0]);
    for (std::int64_t at = 0; at < context; at += 512) {
      const auto position = static_cast<std::int32_t>(at);
      const std::int64_t tokens = std::min<std::int64_t>(512, context - at);
      operations.write(first, &position, sizeof position);
      pipeline.run(history + at, {.first = first, .count = tokens, .bound = at + tokens}, {});
    }
    const std::int32_t state_now[] = {static_cast<std::int32_t>(context), 1};
    operations.write(first, state_now, sizeof state_now);
    const std::int64_t bound = context + steps + 8;
    const auto step = [&](bool head, bool samples) {
      pipeline.run(token, {.first = first, .count = 1, .bound = bound}, {});
      if (head) pipeline.head(0, 1, static_cast<float*>(logits.get()));
      if (not samples) return;
      operations.sample({.logits = static_cast<const float*>(logits.get()),
                         .vocabulary = vocabulary,
                         .parameters = static_cast<const ops::SamplerParameters*>(parameters.get()),
                         .greedy = true,
                         .top_log_probabilities = -1,
                         .first = first,
                         .count = 0,
                         .history = history,
                         .token = token,
                         .results = static_cast<ops::Choice*>(results.get()),
                         .result_slots = 16});
    };
    const auto measure = [&](std::uint64_t key, const std::function<void()>& calls) {
      for (int i = 0; i < 5; ++i) operations.replay(key, calls);
      operations.synchronize();
      const auto start = Clock::now();
      for (int i = 0; i < steps; ++i) operations.replay(key, calls);
      operations.synchronize();
      return std::chrono::duration<double, std::micro>(Clock::now() - start).count() / steps;
    };
    const double whole = measure(1, [&] { step(true, true); });
    const double without_sampling = measure(2, [&] { step(true, false); });
    const auto start = Clock::now();
    for (int i = 0; i < steps; ++i) operations.replay(1, [&] { step(true, true); });
    const double host =
        std::chrono::duration<double, std::micro>(Clock::now() - start).count() / steps;
    operations.synchronize();

    const cuda::StepProfile profile = cuda::profile_step(operations, [&] { step(true, true); });
    std::printf(
        "%s at %lld tokens: %.1f us a step, of which sampling %.1f; the host gives it in "
        "%.1f\n",
        values[1], static_cast<long long>(context), whole, whole - without_sampling, host);
    if (not profile.obstacle.empty()) {
      std::printf("not in one kernel: %s\n", profile.obstacle.c_str());
      return 0;
    }
    std::printf("limit: memory is read at %.0f GB/s\n", bytes_per_ns);
    print_profile(profile, bytes_per_ns);
    std::printf("\nus a step by stages of later products' weights on their way:");
    for (const int stages : {1, 2, 3, 4, 16}) {
      cuda::set_decode_stages_ahead(operations, stages);
      const std::uint64_t key = 3 + static_cast<std::uint64_t>(stages);
      std::printf("  %d: %.1f", stages, measure(key, [&] { step(true, true); }));
    }
    std::printf("\n");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
