#include "cuda/operations.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <utility>

#include "base/checked.h"
#include "base/error.h"
#include "cuda/pace.h"
#include "cuda/place.h"
#include "cuda/products.h"
#include "cuda/program.h"
#include "cuda/replay.h"
#include "dequantize/dequantize.h"
#include "device/cuda_call.h"
#include "device/memory.h"
#include "device/runtime.h"
#include "embed_planes/embed_planes.h"
#include "matmul/matmul.h"
#include "sample/sample.h"
#include "transformer/transformer.h"

namespace quantloom::cuda {
namespace {

using device::Buffer;
using ops::Weight;

constexpr std::size_t mark_slots = 64;

kernels::Cache kernel_cache(const ops::CacheLayer& cache) {
  const auto type = [&] {
    switch (cache.type) {
      case ops::CacheType::f16:
        return kernels::CacheType::f16;
      case ops::CacheType::f32:
        return kernels::CacheType::f32;
      case ops::CacheType::q8_0:
        return kernels::CacheType::q8_0;
    }
    throw Error(ErrorKind::invalid_argument, "this cache type has no kernel", "cache_type");
  }();
  return {.type = type,
          .capacity = cache.capacity,
          .kv_heads = cache.kv_heads,
          .head_size = cache.head_size,
          .keys = cache.keys,
          .values = cache.values,
          .key_scales = cache.key_scales,
          .value_scales = cache.value_scales};
}

kernels::RopeStore kernel_rope_store(const ops::RopeStore& a) {
  return {.q = a.q,
          .k = a.k,
          .v = a.v,
          .tokens = narrow_to_int32(a.positions.count, "tokens"),
          .heads = a.heads,
          .q_norm = a.q_norm.weight,
          .k_norm = a.k_norm.weight,
          .q_epsilon = a.q_norm.epsilon,
          .k_epsilon = a.k_norm.epsilon,
          .table = a.rope.table,
          .dimensions = a.rope.dimensions,
          .interleaved = a.rope.interleaved,
          .first = a.positions.first,
          .cache = kernel_cache(a.cache)};
}

kernels::Attention kernel_attention(const ops::Attention& a, void* workspace) {
  return {.q = a.q,
          .out = a.out,
          .tokens = narrow_to_int32(a.positions.count, "tokens"),
          .heads = a.heads,
          .scale = a.scale,
          .soft_cap = a.soft_cap,
          .window = a.window,
          .first = a.positions.first,
          .bound = a.positions.bound,
          .cache = kernel_cache(a.cache),
          .workspace = workspace};
}

class CudaOperations final : public ops::Operations {
 public:
  CudaOperations(const device::Device& device, ops::Precision precision)
      : device_(device),
        precision_(precision),
        stream_(device),
        products_(device, precision, stream_.get()),
        replay_(device) {
    marks_.reserve(mark_slots);
    for (std::size_t i = 0; i < mark_slots; ++i) {
      marks_.push_back(std::make_unique<device::Event>(device, device::Event::Waits::sleeping));
    }
  }

  device::Device device() const override { return device_; }
  ops::Precision precision() const override { return precision_; }

  ops::Buffer allocate(std::size_t bytes, const char* what) override {
    return device::allocate(device_, bytes, stream_.get(), what);
  }
  ops::Buffer allocate_cache(std::size_t bytes, const char* what) override {
    return allocate_zeroed(bytes, what);
  }
  void write(void* to, const void* host, std::size_t bytes) override {
    device::copy(to, device_, host, {}, bytes, stream_.get());
  }
  void read(void* host, const void* from, std::size_t bytes) override {
    device::copy(host, {}, from, device_, bytes, stream_.get());
    synchronize();
  }
  void copy(void* to, const void* from, std::size_t bytes) override {
    device::copy(to, device_, from, device_, bytes, stream_.get());
  }
  void synchronize() override { device::synchronize(device_, stream_.get()); }
  void set_batch_invariant(bool on) override {
    products_.set_batch_invariant(on);
    batch_invariant_ = on;
  }

  void reserve(const ops::Limits& limits) override {
    const Reserved bytes = reserved(limits);
    normed_ = allocate(bytes.activations, "normed activations");
    scratch_ = allocate(bytes.between, "activations between two kernels");
    between_bytes_ = bytes.between;
    attention_ = allocate_zeroed(bytes.attention, "attention workspace");
    sample_ = allocate_zeroed(bytes.sample, "sampler workspace");
    products_.set_workspace(allocate_zeroed(bytes.products, "matrix product workspace"),
                            bytes.products);
    if (limits.ternary) {
      products_.set_parts(allocate(bytes.activations, "activations in two parts"),
                          allocate(bytes.activations, "activations in two parts"));
    }
    replay_.clear();
    programs_.clear();
  }
  std::uint64_t reserved_bytes(const ops::Limits& limits) const override {
    const Reserved bytes = reserved(limits);
    const std::size_t activations = limits.ternary ? 3 : 1;
    return activations * bytes.activations + bytes.between + bytes.attention + bytes.sample +
           bytes.products;
  }
  std::uint64_t available_bytes() const override {
    const device::MemoryStatistics memory = device::memory_statistics(device_);
    const std::uint64_t free = memory.free + memory.cached;
    if (memory.cap == 0) return free;
    return std::min<std::uint64_t>(free, memory.cap - std::min(memory.cap, memory.in_use));
  }

  ops::Buffer allocate_shared(std::size_t bytes, const char* what) override {
    Buffer buffer = device::allocate_pinned(device_, bytes, what);
    std::memset(buffer.get(), 0, bytes);
    return buffer;
  }

  std::uint64_t mark() override {
    marks_[++ticket_ % mark_slots]->record(stream_.get());
    return ticket_;
  }
  void wait(std::uint64_t ticket) override {
    if (ticket == 0 || ticket > ticket_) return;
    // A slot used again holds a later mark, and what is before that one is before this one too.
    pace_.wait(*marks_[ticket % mark_slots]);
  }
  void replay(std::uint64_t key, const std::function<void()>& calls) override {
    replay_.run(key, stream_.get(), [&] { run_step(calls); });
  }

  std::vector<ops::Buffer> place(std::span<Weight* const> weights,
                                 const ops::Progress& progress) override {
    return {cuda::place(device_, stream_.get(), weights, progress)};
  }
  std::uint64_t placed_bytes(const Weight& weight) const override {
    return cuda::placed_bytes(weight);
  }
  std::string obstacle(const ops::Limits& limits,
                       std::span<const Weight* const> weights) const override {
    if (limits.vocabulary > kernels::largest_vocabulary) {
      return "its vocabulary has " + std::to_string(limits.vocabulary) +
             " tokens, and a GPU's sampler takes " + std::to_string(kernels::largest_vocabulary);
    }
    if (limits.head_size > kernels::largest_head) {
      return "its heads have " + std::to_string(limits.head_size) +
             " values, and a GPU's attention takes " + std::to_string(kernels::largest_head);
    }
    for (const Weight* weight : weights) {
      if (not weight->multiplied || weight->columns % 4 == 0) continue;
      return "tensor '" + weight->name + "' has " + std::to_string(weight->columns) +
             " columns, and float matrices on a GPU are multiplied in fours";
    }
    return {};
  }
  std::int64_t most_tokens() const override { return kernels::most_pass_tokens; }
  std::string step_obstacle(const std::function<void()>& calls) override {
    list(calls);
    program_.can_run(device_);
    return program_.obstacle();
  }
  std::string kernel_name(const Weight& weight, bool fused) const override {
    if (not weight.multiplied) return "embed";
    if (weight.planes == nullptr) return "raw blocks";
    if (fused) return "decode program";
    kernels::MatmulArguments a;
    a.format = weight.format;
    a.columns = weight.columns;
    a.tokens = 1;
    a.weights[0].rows = weight.rows;
    const device::CurrentDevice current(device_);
    return kernels::matmul_kernel_name(a);
  }

  void embed(const Weight& table, const std::int32_t* tokens, std::int64_t count, float scale,
             float* out) override {
    launch("embed", {{"tokens", count}, {"columns", table.columns}}, [&] {
      if (table.blocks == nullptr) {
        return kernels::embed_planes(table.format, table.planes, table.rows, table.columns, tokens,
                                     count, scale, out, stream_.get());
      }
      return kernels::embed(table.format, table.blocks, table.rows, table.columns, tokens, count,
                            scale, out, stream_.get());
    });
  }

  void norm_project(const float* x, std::int64_t tokens, const ops::Norm& norm,
                    std::span<const ops::Projection> outputs) override {
    if (stepped(tokens, [&] { program_.norm_project(x, norm, outputs); })) return;
    if (products_.run_normed(x, tokens, norm, outputs)) return;
    this->norm(x, tokens, outputs.front().weight->columns, norm, scratch(normed_));
    products_.run(scratch(normed_), tokens, outputs, false);
  }

  void rope_store(const ops::RopeStore& a) override {
    const std::int64_t tokens = a.positions.count;
    if (stepped(tokens, [&] { program_.rope_store(kernel_rope_store(a)); })) return;
    launch("rope_store", {{"tokens", tokens}, {"heads", a.heads}, {"head_size", a.cache.head_size}},
           [&] { return kernels::rope_store(kernel_rope_store(a), stream_.get()); });
  }

  void attention(const ops::Attention& a) override {
    const std::int64_t tokens = a.positions.count;
    if (stepped(tokens, [&] { program_.attention(kernel_attention(a, attention_.get())); })) return;
    launch("attention", {{"tokens", tokens}, {"heads", a.heads}, {"bound", a.positions.bound}},
           [&] {
             kernels::Attention arguments = kernel_attention(a, attention_.get());
             arguments.invariant = batch_invariant_;
             return kernels::attention(arguments, stream_.get());
           });
  }

  void project_add(const float* x, std::int64_t tokens, const Weight& weight, const float* bias,
                   float* residual) override {
    if (stepped(tokens, [&] { program_.project_add(x, weight, bias, residual); })) return;
    const ops::Projection output{.weight = &weight, .bias = bias, .out = residual};
    products_.run(x, tokens, {&output, 1}, true);
  }

  void norm_gate_up(const float* x, std::int64_t tokens, const ops::Norm& norm, const Weight& gate,
                    const Weight& up, ops::Activation activation, float* out) override {
    if (stepped(tokens, [&] { program_.norm_gate_up(x, norm, gate, up, activation, out); })) return;
    const bool gates = products_.gates(gate, up, tokens, activation);
    if (gates && products_.norms(gate, tokens)) {
      return products_.run_gated(x, &norm, tokens, gate, up, activation, out);
    }
    this->norm(x, tokens, gate.columns, norm, scratch(normed_));
    if (gates) {
      return products_.run_gated(scratch(normed_), nullptr, tokens, gate, up, activation, out);
    }
    const std::array outputs{
        ops::Projection{.weight = &gate, .bias = nullptr, .out = out},
        ops::Projection{.weight = &up, .bias = nullptr, .out = scratch(scratch_)}};
    products_.run(scratch(normed_), tokens, outputs, false);
    activate(out, scratch(scratch_), tokens * gate.rows, activation, out);
  }

  void feed_forward(const ops::FeedForward& a, std::int64_t tokens) override {
    if (mode_ == Mode::running &&
        products_.feed_forward(a, tokens, scratch_.get(), between_bytes_)) {
      return;
    }
    Operations::feed_forward(a, tokens);
  }

  void norm(const float* x, std::int64_t rows, std::int64_t width, const ops::Norm& norm,
            float* out) override {
    launch("rms_norm", {{"rows", rows}, {"width", width}}, [&] {
      return kernels::rms_norm({.x = x,
                                .weight = norm.weight,
                                .epsilon = norm.epsilon,
                                .rows = narrow_to_int32(rows, "rows"),
                                .width = narrow_to_int32(width, "width"),
                                .out = out},
                               stream_.get());
    });
  }

  void project(const float* x, std::int64_t tokens, const ops::Projection& output) override {
    if (mode_ == Mode::listing) return program_.other("project");
    products_.run(x, tokens, {&output, 1}, false);
  }
  void add(const float* a, const float* b, std::int64_t count, float* out) override {
    launch("add", {{"count", count}},
           [&] { return kernels::add(a, b, count, out, stream_.get()); });
  }
  void activate(const float* gate, const float* up, std::int64_t count, ops::Activation activation,
                float* out) override {
    launch("activate", {{"count", count}}, [&] {
      return kernels::activate(gate, up, count, kernel_activation(activation), out, stream_.get());
    });
  }
  void soft_cap(float* x, std::int64_t count, float cap) override {
    launch("soft_cap", {{"count", count}},
           [&] { return kernels::soft_cap(x, count, cap, stream_.get()); });
  }
  void sample(const ops::Sample& arguments) override {
    launch("sample", {{"vocabulary", arguments.vocabulary}},
           [&] { return kernels::sample(arguments, sample_.get(), stream_.get()); });
  }

  void set_decode_stages_ahead(int stages) { decode_stages_ahead_ = stages; }

  StepProfile profile(const std::function<void()>& calls) {
    run_step(calls);
    StepProfile profile{.obstacle = program_.obstacle(), .operations = {}};
    if (not profile.obstacle.empty()) return profile;
    std::vector<std::uint64_t> times(program_.stamp_count());
    stamps_ = allocate(times.size() * sizeof times[0], "times of a profile");
    run_step(calls);
    read(times.data(), stamps_.get(), times.size() * sizeof times[0]);
    stamps_.reset();
    const std::vector<kernels::DecodeStep>& steps = program_.steps();
    const auto per_step = static_cast<std::ptrdiff_t>(times.size() / steps.size());
    auto from = times.cbegin();
    for (const kernels::DecodeStep& step : steps) {
      profile.operations.push_back({.name = step_name(step),
                                    .weight_bytes = step_bytes(step),
                                    .times = {from, from + per_step}});
      from += per_step;
    }
    return profile;
  }

 private:
  static float* scratch(const ops::Buffer& buffer) { return static_cast<float*>(buffer.get()); }

  struct Reserved {
    std::size_t activations = 0;
    std::size_t between = 0;
    std::size_t attention = 0;
    std::size_t sample = 0;
    std::size_t products = 0;
  };
  Reserved reserved(const ops::Limits& limits) const {
    // Plans of products ask thousands of times which GPU is current: 1.2 us each where none is.
    const device::CurrentDevice current(device_);
    const std::size_t activations = static_cast<std::size_t>(limits.tokens) *
                                    static_cast<std::size_t>(limits.width) * sizeof(float);
    return {
        .activations = activations,
        .between = std::max(activations, Products::between_bytes(limits)),
        .attention = static_cast<std::size_t>(kernels::attention_workspace_bytes(limits.head_size)),
        .sample = static_cast<std::size_t>(kernels::sample_workspace_bytes(limits.vocabulary)),
        .products = Products::workspace_bytes(limits)};
  }
  ops::Buffer allocate_zeroed(std::size_t bytes, const char* what) {
    ops::Buffer buffer = allocate(bytes, what);
    device::fill_zero(buffer.get(), device_, bytes, stream_.get());
    return buffer;
  }

  template <class Function>
  void launch(const char* name, std::initializer_list<device::Shape> shapes, Function function) {
    if (mode_ == Mode::listing) return program_.other(name);
    const device::CurrentDevice current(device_);
    device::launch_check(name, shapes, stream_.get(), function());
  }

  // Takes one token's calls down in program_. Nothing runs.
  void list(const std::function<void()>& calls) {
    const Restore restore{mode_};
    program_.clear();
    if (batch_invariant_) program_.refuse("the sums are those of many tokens");
    mode_ = Mode::listing;
    calls();
  }

  // One token's calls: collected first, so that the decode kernel runs them where it can, and by
  // their own kernels elsewhere.
  void run_step(const std::function<void()>& calls) {
    const Restore restore{mode_};
    list(calls);
    if (not program_.obstacle().empty() or not choose_program()) return calls();
    mode_ = Mode::in_program;
    program_launched_ = false;
    calls();
  }

  // The steps as they were uploaded before, or now.
  bool choose_program() {
    for (const Program& known : programs_) {
      if (known.same_steps(program_)) {
        program_ = known;
        return true;
      }
    }
    if (not program_.finish(device_, stream_.get())) return false;
    programs_.push_back(program_);
    return true;
  }

  // Whether a step's operation was taken down, or runs in the program.
  template <class Function>
  bool stepped(std::int64_t tokens, Function take_down) {
    if (mode_ == Mode::running) return false;
    if (tokens != 1) program_.refuse("a pass of several tokens");
    if (mode_ == Mode::listing) {
      take_down();
    } else if (not program_launched_) {
      const auto steps = static_cast<std::int64_t>(program_.steps().size());
      launch("decode", {{"steps", steps}}, [&] {
        return program_.launch(stream_.get(), static_cast<std::uint64_t*>(stamps_.get()),
                               decode_stages_ahead_);
      });
      program_launched_ = true;
    }
    return true;
  }

  enum class Mode { running, listing, in_program };
  struct Restore {
    Mode& mode;
    ~Restore() { mode = Mode::running; }
  };

  device::Device device_;
  ops::Precision precision_;
  device::OwnedStream stream_;
  Products products_;
  ops::Buffer normed_;
  ops::Buffer scratch_;
  ops::Buffer attention_;
  ops::Buffer sample_;
  Replay replay_;
  Mode mode_ = Mode::running;
  Program program_;                // of the step at hand
  std::vector<Program> programs_;  // that were uploaded
  bool program_launched_ = false;
  bool batch_invariant_ = false;
  std::size_t between_bytes_ = 0;
  int decode_stages_ahead_ = 0;  // 0: the program's own
  ops::Buffer stamps_;           // of profile()
  std::vector<std::unique_ptr<device::Event>> marks_;
  std::uint64_t ticket_ = 0;
  Pace<> pace_;
};

}  // namespace

namespace {

CudaOperations& on_gpu(ops::Operations& operations) {
  auto* here = dynamic_cast<CudaOperations*>(&operations);
  if (here == nullptr) throw Error(ErrorKind::device, "a step's profile needs a GPU", "profile");
  return *here;
}

}  // namespace

StepProfile profile_step(ops::Operations& operations, const std::function<void()>& calls) {
  return on_gpu(operations).profile(calls);
}

void set_decode_stages_ahead(ops::Operations& operations, int stages) {
  on_gpu(operations).set_decode_stages_ahead(stages);
}

std::unique_ptr<ops::Operations> make_operations(const device::Device& device,
                                                 ops::Precision precision) {
  device::require_usable(device);
  return std::make_unique<CudaOperations>(device, precision);
}

}  // namespace quantloom::cuda
