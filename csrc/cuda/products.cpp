#include "cuda/products.h"

#include <algorithm>
#include <array>
#include <string>
#include <utility>

#include "base/error.h"
#include "device/cuda_call.h"
#include "formats/types.h"
#include "matmul/matmul.h"
#include "raw_matmul/raw_matmul.h"
#include "transformer/transformer.h"

namespace quantloom::cuda {
namespace {

// Eight tokens a block, and a grid has at most 65,535 along them.
constexpr std::int64_t most_raw_tokens = 8 * 65535;

const char* reason(kernels::MatmulStatus status) {
  switch (status) {
    case kernels::MatmulStatus::unsupported_format:
      return "no kernel serves this type";
    case kernels::MatmulStatus::bad_shape:
      return "no kernel serves this shape";
    case kernels::MatmulStatus::bad_operation:
      return "its kernel has no such norm or activation";
    case kernels::MatmulStatus::small_workspace:
      return "the call is larger than what was reserved";
    case kernels::MatmulStatus::unsupported_device:
      return "the kernels for repacked weights need compute capability 8.0 or later";
    default:
      return "the launch failed";
  }
}

void check_launch(const char* kernel, Products::Weights weights, std::int64_t tokens,
                  device::Stream stream, cudaError_t status) {
  std::array<const char*, kernels::matmul_most_weights> names{};
  std::int64_t rows = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    names[i] = weights[i]->name.c_str();
    rows += weights[i]->rows;
  }
  device::launch_check(kernel,
                       {{"tokens", tokens}, {"rows", rows}, {"columns", weights.front()->columns}},
                       stream, status, std::span(names).first(weights.size()));
}

// kernel: its name, or null for that of the product.
void check_matmul(kernels::MatmulStatus status, const kernels::MatmulArguments& a,
                  Products::Weights weights, device::Stream stream, const char* kernel = nullptr) {
  if (status != kernels::MatmulStatus::done && status != kernels::MatmulStatus::cuda_error) {
    const ops::Weight& weight = *weights.front();
    const formats::TypeInfo* type = formats::type_info(static_cast<std::uint32_t>(weight.format));
    throw Error(ErrorKind::device,
                "the product of " + std::to_string(a.tokens) + " tokens with tensor '" +
                    weight.name + "' (" + type->name + ", " + std::to_string(weight.rows) + " x " +
                    std::to_string(weight.columns) + ") on the GPU: " + reason(status),
                weight.name);
  }
  const cudaError_t launched = cudaGetLastError();
  if (kernel == nullptr) {
    const bool is_read = launched != cudaSuccess || device::debug_launches();
    kernel = is_read ? kernels::matmul_kernel_name(a) : "matmul";
  }
  check_launch(kernel, weights, a.tokens, stream, launched);
}

}  // namespace

kernels::Activation kernel_activation(ops::Activation activation) {
  switch (activation) {
    case ops::Activation::silu:
      return kernels::Activation::silu;
    case ops::Activation::gelu:
      return kernels::Activation::gelu;
    case ops::Activation::gelu_tanh:
      return kernels::Activation::gelu_tanh;
  }
  throw Error(ErrorKind::invalid_argument, "this activation has no kernel", "activation");
}

std::size_t Products::workspace_bytes(const ops::Limits& limits) {
  // What a call needs depends on its shape alone, and not monotonically: few rows are split along
  // the columns. A call between these that needs more is cut in two.
  constexpr std::int64_t fine = 16384;
  const std::int64_t most_rows = std::max(limits.vocabulary, 2 * limits.width);
  // One token of a format with a large table may take the kernel for a few.
  const std::int64_t most_tokens = std::max<std::int64_t>(limits.tokens, 2);
  kernels::MatmulArguments a;
  a.format = formats::Format::q8_0;
  a.columns = (limits.width + 255) / 256 * 256;
  std::size_t most = 0;
  for (std::int64_t rows = 256; rows < most_rows + 2048; rows += rows < fine ? 256 : 2048) {
    a.weights[0].rows = rows;
    for (std::int64_t tokens = 8; tokens < most_tokens + 8; tokens += tokens < 16 ? 8 : 16) {
      a.tokens = std::min(tokens, most_tokens);
      for (const bool invariant : {false, true}) {
        if (invariant && !limits.batch_invariant) continue;
        a.invariant = invariant;
        most = std::max(most, kernels::matmul_workspace_bytes(a));
      }
    }
  }
  return most;
}

std::size_t Products::workspace_bytes(const ops::Weight& weight, std::int64_t tokens) {
  kernels::MatmulArguments a;
  a.format = weight.format;
  a.columns = weight.columns;
  a.tokens = tokens;
  a.weights[0].rows = weight.rows;
  return kernels::matmul_workspace_bytes(a);
}

void Products::set_workspace(ops::Buffer workspace, std::size_t bytes) {
  workspace_ = std::move(workspace);
  workspace_bytes_ = bytes;
}

void Products::set_parts(ops::Buffer high, ops::Buffer rest) {
  high_ = std::move(high);
  rest_ = std::move(rest);
}

// Ternary weights are exact in halves, so that where x is rounded to them that is the whole error,
// and models of such weights enlarge it most (2.6e-3 in the logits of a test model): there a second
// product adds what halves miss of x.
bool Products::in_two_parts(const ops::Weight& weight, std::int64_t tokens) const {
  if (precision_ != ops::Precision::exact ||
      (weight.format != formats::Format::tq1_0 && weight.format != formats::Format::tq2_0)) {
    return false;
  }
  const device::CurrentDevice current(device_);
  return kernels::matmul_rounds_x(arguments(nullptr, nullptr, tokens, weight));
}

void Products::run(const float* x, std::int64_t tokens, std::span<const ops::Projection> outputs,
                   bool accumulate) {
  run(x, nullptr, tokens, outputs, accumulate);
}

void Products::run(const float* x, const ops::Norm* norm, std::int64_t tokens,
                   std::span<const ops::Projection> outputs, bool accumulate) {
  const void* prepared = nullptr;
  while (!outputs.empty()) {
    const ops::Weight& first = *outputs.front().weight;
    std::size_t together = 1;
    if (first.planes == nullptr) {
      from_blocks(x, tokens, outputs.front(), accumulate);
      prepared = nullptr;
    } else {
      while (together < outputs.size() && together < kernels::matmul_most_weights &&
             outputs[together].weight->planes != nullptr &&
             outputs[together].weight->format == first.format) {
        ++together;
      }
      prepared = from_planes(x, norm, tokens, outputs.first(together), accumulate, prepared);
    }
    outputs = outputs.subspan(together);
  }
}

kernels::MatmulArguments Products::arguments(const void* x, const ops::Norm* norm,
                                             std::int64_t tokens, const ops::Weight& weight) const {
  kernels::MatmulArguments a;
  a.format = weight.format;
  a.columns = weight.columns;
  a.tokens = tokens;
  a.x = x;
  if (norm != nullptr) a.norm = norm->weight, a.epsilon = norm->epsilon;
  a.invariant = batch_invariant_;
  a.workspace = workspace_.get();
  a.workspace_bytes = workspace_bytes_;
  a.overlap = launch_ == Launch::early;
  return a;
}

bool Products::fits(const kernels::MatmulArguments& a) const {
  return kernels::matmul_workspace_bytes(a) <= workspace_bytes_;
}

bool Products::takes(const Types& types, const ops::Weight& weight, std::int64_t tokens) const {
  if (types.x == formats::Format::f32 && types.out == formats::Format::f32) return true;
  if (weight.planes == nullptr || in_two_parts(weight, tokens)) return false;
  kernels::MatmulArguments a = arguments(nullptr, nullptr, tokens, weight);
  a.weights[0].rows = weight.rows;
  a.x_type = types.x;
  a.out_type = types.out;
  const device::CurrentDevice current(device_);
  return kernels::matmul_reads(a) && kernels::matmul_writes(a);
}

void Products::multiply(const void* x, const Types& types, std::int64_t tokens,
                        const ops::Weight& weight, void* out) {
  if (types.x == formats::Format::f32 && types.out == formats::Format::f32) {
    const ops::Projection output{
        .weight = &weight, .bias = nullptr, .out = static_cast<float*>(out)};
    return run(static_cast<const float*>(x), tokens, {&output, 1}, false);
  }
  kernels::MatmulArguments a = arguments(x, nullptr, tokens, weight);
  a.weights[0] = {weight.planes, weight.rows, nullptr, out};
  a.x_type = types.x;
  a.out_type = types.out;
  const ops::Weight* const weights[] = {&weight};
  launch(a, weights);
}

bool Products::norms(const ops::Weight& weight, std::int64_t tokens) const {
  if (weight.planes == nullptr || in_two_parts(weight, tokens)) return false;
  const device::CurrentDevice current(device_);
  return kernels::matmul_norms(arguments(nullptr, nullptr, tokens, weight));
}

bool Products::run_normed(const float* x, std::int64_t tokens, const ops::Norm& norm,
                          std::span<const ops::Projection> outputs) {
  for (const ops::Projection& output : outputs) {
    if (!norms(*output.weight, tokens)) return false;
  }
  run(x, &norm, tokens, outputs, false);
  return true;
}

const void* Products::from_planes(const float* x, const ops::Norm* norm, std::int64_t tokens,
                                  std::span<const ops::Projection> outputs, bool accumulate,
                                  const void* prepared) {
  const ops::Weight& first = *outputs.front().weight;
  kernels::MatmulArguments a = arguments(x, norm, tokens, first);
  a.weight_count = static_cast<int>(outputs.size());
  std::array<const ops::Weight*, kernels::matmul_most_weights> of{};
  const Weights weights = std::span(of).first(outputs.size());
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    of[i] = outputs[i].weight;
    a.weights[i] = {outputs[i].weight->planes, outputs[i].weight->rows, outputs[i].bias,
                    outputs[i].out};
  }
  a.epilogue = accumulate ? kernels::MatmulEpilogue::add : kernels::MatmulEpilogue::store;
  if (not in_two_parts(first, tokens)) {
    const device::CurrentDevice current(device_);
    if (prepared != nullptr) {
      kernels::MatmulArguments again = a;
      again.norm = nullptr;
      again.x_is = kernels::MatmulX::prepared_earlier;
      again.x = prepared;
      if (kernels::matmul_takes_prepared(again) && fits(again)) a = again;
    }
    return launch(a, weights) ? kernels::matmul_prepared_x(a) : nullptr;
  }
  auto* high = static_cast<float*>(high_.get());
  auto* rest = static_cast<float*>(rest_.get());
  {
    const device::CurrentDevice current(device_);
    device::launch_check("split_bits", {{"tokens", tokens}, {"columns", first.columns}}, stream_,
                         kernels::split_bits(x, tokens * first.columns, high, rest, stream_));
  }
  a.x = high;
  launch(a, weights);
  a.x = rest;
  a.epilogue = kernels::MatmulEpilogue::add;
  for (kernels::MatmulWeight& weight : a.weights) weight.bias = nullptr;
  launch(a, weights);
  return nullptr;
}

bool Products::gates(const ops::Weight& gate, const ops::Weight& up, std::int64_t tokens,
                     ops::Activation activation) const {
  if (gate.planes == nullptr || up.planes == nullptr || gate.format != up.format ||
      in_two_parts(gate, tokens)) {
    return false;
  }
  kernels::MatmulArguments a = arguments(nullptr, nullptr, tokens, gate);
  a.activation = kernel_activation(activation);
  const device::CurrentDevice current(device_);
  return kernels::matmul_gates(a);
}

kernels::MatmulArguments Products::gated(const float* x, const ops::Norm* norm, std::int64_t tokens,
                                         const ops::Weight& gate, const ops::Weight& up,
                                         ops::Activation activation, void* out) const {
  kernels::MatmulArguments a = arguments(x, norm, tokens, gate);
  a.weight_count = 2;
  a.weights[0] = {gate.planes, gate.rows, nullptr, out};
  a.weights[1] = {up.planes, up.rows, nullptr, nullptr};
  a.epilogue = kernels::MatmulEpilogue::gate_up;
  a.activation = kernel_activation(activation);
  return a;
}

void Products::run_gated(const float* x, const ops::Norm* norm, std::int64_t tokens,
                         const ops::Weight& gate, const ops::Weight& up, ops::Activation activation,
                         float* out) {
  const ops::Weight* const weights[] = {&gate, &up};
  launch(gated(x, norm, tokens, gate, up, activation, out), weights);
}

std::size_t Products::between_bytes(const ops::Limits& limits) {
  return kernels::prepared_bytes(limits.tokens, limits.width);
}

bool Products::feed_forward(const ops::FeedForward& f, std::int64_t tokens, void* between,
                            std::size_t between_bytes) {
  const ops::Weight& down = *f.down;
  // An invariant product takes many tokens in parts where it is split, and few whole.
  if (batch_invariant_ || down.planes == nullptr || in_two_parts(down, tokens) ||
      !norms(*f.gate, tokens) || !gates(*f.gate, *f.up, tokens, f.activation) ||
      kernels::prepared_bytes(tokens, down.columns) > between_bytes) {
    return false;
  }
  kernels::MatmulArguments first =
      gated(f.residual, f.norm, tokens, *f.gate, *f.up, f.activation, between);
  first.prepares_out = true;
  kernels::MatmulArguments second = arguments(between, nullptr, tokens, down);
  second.x_is = kernels::MatmulX::prepared;
  second.weights[0] = {down.planes, down.rows, f.bias, f.residual};
  second.epilogue = kernels::MatmulEpilogue::add;
  const device::CurrentDevice current(device_);
  if (!kernels::matmul_prepares_out(first) || !kernels::matmul_takes_prepared(second) ||
      !fits(first) || !fits(second)) {
    return false;
  }
  const ops::Weight* const pair[] = {f.gate, f.up};
  const ops::Weight* const last[] = {&down};
  launch(first, pair);
  check_matmul(kernels::finish_prepared(between, tokens, down.columns, stream_), second, last,
               stream_, "finish_prepared");
  launch(second, last);
  return true;
}

bool Products::launch(kernels::MatmulArguments a, Weights weights) {
  const device::CurrentDevice current(device_);
  const kernels::MatmulStatus status = kernels::matmul(a, stream_);
  if (status == kernels::MatmulStatus::small_workspace && a.tokens > 1 &&
      a.x_is == kernels::MatmulX::values) {
    const std::int64_t all = a.tokens;
    a.tokens = all / 2;
    launch(a, weights);
    kernels::skip_tokens(a, a.tokens);
    a.tokens = all - a.tokens;
    launch(a, weights);
    return false;
  }
  check_matmul(status, a, weights, stream_);
  return true;
}

void Products::from_blocks(const float* x, std::int64_t tokens, const ops::Projection& output,
                           bool accumulate) {
  const ops::Weight& weight = *output.weight;
  const device::CurrentDevice current(device_);
  for (std::int64_t token = 0; token < tokens; token += most_raw_tokens) {
    const std::int64_t count = std::min(tokens - token, most_raw_tokens);
    const cudaError_t status = kernels::raw_matmul({.format = weight.format,
                                                    .blocks = weight.blocks,
                                                    .rows = weight.rows,
                                                    .columns = weight.columns,
                                                    .x = x + token * weight.columns,
                                                    .tokens = count,
                                                    .bias = output.bias,
                                                    .accumulate = accumulate,
                                                    .out = output.out + token * weight.rows,
                                                    .invariant = batch_invariant_},
                                                   stream_);
    const ops::Weight* const weights[] = {&weight};
    check_launch("raw_matmul", weights, count, stream_, status);
  }
}

}  // namespace quantloom::cuda
