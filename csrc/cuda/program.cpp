#include "cuda/program.h"

#include <algorithm>

#include "cuda/products.h"
#include "device/cuda_call.h"
#include "device/memory.h"
#include "formats/types.h"

namespace quantloom::cuda {
bool program_serves(const ops::Weight& weight) { return weight.planes != nullptr; }

std::string step_name(const kernels::DecodeStep& step) {
  if (step.kind == kernels::DecodeStepKind::attention) return "attention";
  const kernels::DecodeProduct& product = step.product;
  std::int64_t rows = 0;
  for (int i = 0; i < product.weight_count; ++i) rows += product.weights[i].rows;
  return std::to_string(rows) + " x " + std::to_string(product.columns) + " " +
         formats::type_info(static_cast<std::uint32_t>(product.format))->name;
}

std::uint64_t step_bytes(const kernels::DecodeStep& step) {
  if (step.kind == kernels::DecodeStepKind::attention) return 0;
  std::uint64_t bytes = 0;
  for (int i = 0; i < step.product.weight_count; ++i) {
    bytes += kernels::planes_bytes(step.product.format, step.product.weights[i].rows,
                                   step.product.columns);
  }
  return bytes;
}

void Program::clear() { *this = Program(); }

void Program::refuse(const std::string& why) {
  if (obstacle_.empty()) obstacle_ = why;
}

void Program::other(const char* name) {
  if (not steps_.empty() and after_ == nullptr) after_ = name;
}

kernels::DecodeProduct* Program::add_product(const float* x, const ops::Norm* norm,
                                             std::span<const ops::Projection> outputs) {
  if (after_ != nullptr) refuse(std::string(after_) + " stands between the layers' operations");
  if (rope_open_) refuse("rope_store without its attention");
  for (const ops::Projection& output : outputs) {
    if (not program_serves(*output.weight)) {
      const formats::TypeInfo* type =
          formats::type_info(static_cast<std::uint32_t>(output.weight->format));
      refuse("tensor '" + output.weight->name + "' is " + type->name);
    }
  }
  kernels::DecodeStep& step = steps_.emplace_back();
  step.kind = kernels::DecodeStepKind::product;
  kernels::DecodeProduct& product = step.product;
  product.format = outputs.front().weight->format;
  product.columns = static_cast<int>(outputs.front().weight->columns);
  product.x = x;
  if (norm != nullptr) {
    product.norm = norm->weight;
    product.epsilon = norm->epsilon;
  }
  product.weight_count = static_cast<int>(outputs.size());
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    product.weights[i] = {outputs[i].weight->planes, outputs[i].weight->rows, outputs[i].bias,
                          outputs[i].out};
  }
  return &product;
}

void Program::norm_project(const float* x, const ops::Norm& norm,
                           std::span<const ops::Projection> outputs) {
  // One product for the weights of each format.
  std::vector<bool> taken(outputs.size());
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    if (taken[i]) continue;
    std::vector<ops::Projection> alike;
    for (std::size_t k = i; k < outputs.size(); ++k) {
      if (taken[k] or outputs[k].weight->format != outputs[i].weight->format or
          alike.size() == kernels::matmul_most_weights) {
        continue;
      }
      alike.push_back(outputs[k]);
      taken[k] = true;
    }
    add_product(x, &norm, alike);
  }
}

void Program::rope_store(const kernels::RopeStore& arguments) {
  if (rope_open_) refuse("rope_store without its attention");
  kernels::DecodeStep& step = steps_.emplace_back();
  step.kind = kernels::DecodeStepKind::attention;
  step.attention.rope = arguments;
  rope_open_ = true;
}

void Program::attention(const kernels::Attention& arguments) {
  if (not rope_open_) {
    refuse("attention without its rope_store");
    return;
  }
  rope_open_ = false;
  // With fewer registers a warp, the program's attention reads a long cache more slowly than the
  // kernel's own; beyond this, that costs more than the launches between the kernels. An 8B Q8_0 on
  // an H200 with an F16 cache took 2,277 us a step in place of 2,566 at 4,096 positions, and 3,372
  // in place of 3,402 at 32,768; with a Q8_0 cache 2,876 in place of 3,190.
  constexpr std::int64_t most_positions = 33792;
  const std::int64_t seen =
      arguments.window > 0 ? std::min(arguments.window, arguments.bound) : arguments.bound;
  if (seen > most_positions) {
    refuse("the context is longer than " + std::to_string(most_positions) + " tokens");
  }
  kernels::DecodeAttention& step = steps_.back().attention;
  step.attention = arguments;
  step.attention.bound = 0;  // the kernel goes by the position
  if (not kernels::decode_serves(step)) {
    const kernels::Cache& cache = arguments.cache;
    refuse("the decode program has no attention with heads of " + std::to_string(cache.head_size) +
           " values and " +
           (cache.type == kernels::CacheType::f32   ? "an F32"
            : cache.type == kernels::CacheType::f16 ? "an F16"
                                                    : "a Q8_0") +
           " cache");
  }
  if (program_.position != nullptr and program_.position != arguments.first) {
    refuse("positions in several places");
  }
  program_.position = arguments.first;
}

void Program::project_add(const float* x, const ops::Weight& weight, const float* bias,
                          float* residual) {
  const ops::Projection output{.weight = &weight, .bias = bias, .out = residual};
  add_product(x, nullptr, {&output, 1})->epilogue = kernels::MatmulEpilogue::add;
}

void Program::norm_gate_up(const float* x, const ops::Norm& norm, const ops::Weight& gate,
                           const ops::Weight& up, ops::Activation activation, float* out) {
  kernels::DecodeProduct* product = nullptr;
  if (gate.format == up.format) {
    const ops::Projection outputs[] = {{.weight = &gate, .bias = nullptr, .out = out},
                                       {.weight = &up, .bias = nullptr, .out = nullptr}};
    product = add_product(x, &norm, outputs);
    product->epilogue = kernels::MatmulEpilogue::gate_up;
  } else {
    for (const ops::Weight* weight : {&gate, &up}) {
      const ops::Projection output{.weight = weight, .bias = nullptr, .out = out};
      product = add_product(x, &norm, {&output, 1});
    }
    product->gated = true;
  }
  product->activation = kernel_activation(activation);
}

bool Program::can_run(const device::Device& device) {
  const device::CurrentDevice current(device);
  const auto blocks = static_cast<std::size_t>(kernels::decode_blocks());
  if (blocks == 0) refuse("the decode program needs compute capability 9.0");
  if (steps_.empty()) refuse("no operation of a layer");
  if (not obstacle_.empty()) return false;
  std::vector<kernels::DecodeStep> planned = steps_;
  std::vector<kernels::DecodeShare> shares(planned.size() * blocks);
  kernels::DecodeProgram program;
  if (not kernels::decode_plan(planned.data(), static_cast<int>(planned.size()), nullptr,
                               shares.data(), program)) {
    refuse("the model's shapes do not fit the decode program");
  }
  return obstacle_.empty();
}

bool Program::finish(const device::Device& device, device::Stream stream) {
  if (not can_run(device)) return false;
  const device::CurrentDevice current(device);
  const auto blocks = static_cast<std::size_t>(kernels::decode_blocks());
  std::vector<kernels::DecodeStep> planned = steps_;
  std::vector<kernels::DecodeShare> shares(planned.size() * blocks);
  const int count = static_cast<int>(planned.size());
  const std::size_t step_bytes = (planned.size() * sizeof planned[0] + 255) / 256 * 256;
  const std::size_t share_bytes = (shares.size() * sizeof shares[0] + 255) / 256 * 256;
  constexpr std::size_t count_bytes = 256;
  const std::size_t exchange_bytes = kernels::decode_exchange_bytes(planned.data(), count);
  memory_ = device::allocate(device, step_bytes + share_bytes + count_bytes + exchange_bytes,
                             stream, "the list of a token's operations and their values");
  auto* base = static_cast<std::byte*>(memory_.get());
  std::byte* counts = base + step_bytes + share_bytes;
  if (not kernels::decode_plan(planned.data(), count, counts + count_bytes, shares.data(),
                               program_)) {
    memory_ = {};
    refuse("the model's shapes do not fit the decode program");
    return false;
  }
  device::copy(base, device, planned.data(), {}, planned.size() * sizeof planned[0], stream);
  device::copy(base + step_bytes, device, shares.data(), {}, shares.size() * sizeof shares[0],
               stream);
  device::fill_zero(counts, device, count_bytes + exchange_bytes, stream);
  program_.steps = reinterpret_cast<const kernels::DecodeStep*>(base);
  program_.shares = reinterpret_cast<const kernels::DecodeShare*>(base + step_bytes);
  program_.launches = reinterpret_cast<int*>(counts);
  return true;
}

bool Program::same_steps(const Program& other) const { return steps_ == other.steps_; }

cudaError_t Program::launch(device::Stream stream, std::uint64_t* stamps, int stages_ahead) const {
  kernels::DecodeProgram program = program_;
  program.stamps = stamps;
  if (stages_ahead > 0) program.stages_ahead = stages_ahead;
  return kernels::decode(program, stream);
}

std::size_t Program::stamp_count() const {
  return steps_.size() * static_cast<std::size_t>(program_.blocks) * kernels::decode_stamps;
}

}  // namespace quantloom::cuda
