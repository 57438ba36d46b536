#include "cuda/products.h"

#include <algorithm>
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

kernels::MatmulActivation matmul_activation(ops::Activation activation) {
  switch (activation) {
    case ops::Activation::silu:
      return kernels::MatmulActivation::silu;
    case ops::Activation::gelu:
      return kernels::MatmulActivation::gelu;
    case ops::Activation::gelu_tanh:
      return kernels::MatmulActivation::gelu_tanh;
  }
  throw Error(ErrorKind::invalid_argument, "this activation has no kernel", "activation");
}

kernels::MatmulPrecision matmul_precision(ops::Precision precision) {
  return precision == ops::Precision::fast ? kernels::MatmulPrecision::fast
                                           : kernels::MatmulPrecision::exact;
}

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

void check_matmul(kernels::MatmulStatus status, const ops::Weight& weight, std::int64_t tokens,
                  device::Stream stream) {
  if (status != kernels::MatmulStatus::done && status != kernels::MatmulStatus::cuda_error) {
    const formats::TypeInfo* type = formats::type_info(static_cast<std::uint32_t>(weight.format));
    throw Error(ErrorKind::device,
                "the product of " + std::to_string(tokens) + " tokens with tensor '" + weight.name +
                    "' (" + type->name + ", " + std::to_string(weight.rows) + " x " +
                    std::to_string(weight.columns) + ") on the GPU: " + reason(status),
                weight.name);
  }
  device::launch_check(weight.name.c_str(),
                       {{"tokens", tokens}, {"rows", weight.rows}, {"columns", weight.columns}},
                       stream, cudaGetLastError());
}

}  // namespace

std::size_t Products::workspace_bytes(const ops::Limits& limits, ops::Precision precision) {
  // What a call needs depends on its shape alone, and not monotonically: few rows are split along
  // the columns. A call between these that needs more is cut in two.
  constexpr std::int64_t fine = 16384;
  const std::int64_t most_rows = std::max(limits.vocabulary, 2 * limits.width);
  kernels::MatmulArguments a;
  a.format = formats::Format::q8_0;
  a.columns = (limits.width + 255) / 256 * 256;
  a.precision = matmul_precision(precision);
  std::size_t most = 0;
  for (std::int64_t rows = 256; rows < most_rows + 2048; rows += rows < fine ? 256 : 2048) {
    a.weights[0].rows = rows;
    for (std::int64_t tokens = 8; tokens < limits.tokens + 8; tokens += tokens < 16 ? 8 : 16) {
      a.tokens = std::min(tokens, limits.tokens);
      for (const bool invariant : {false, true}) {
        if (invariant && !limits.batch_invariant) continue;
        a.invariant = invariant;
        most = std::max(most, kernels::matmul_workspace_bytes(a));
      }
    }
  }
  return most;
}

std::size_t Products::workspace_bytes(const ops::Weight& weight, std::int64_t tokens,
                                      ops::Precision precision) {
  kernels::MatmulArguments a;
  a.format = weight.format;
  a.columns = weight.columns;
  a.tokens = tokens;
  a.weights[0].rows = weight.rows;
  a.precision = matmul_precision(precision);
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

// More than eight tokens are multiplied in halves, and all where results may not depend on their
// number. Ternary weights are exact in them, so that rounding x is the whole error, and models of
// such weights enlarge it most (2.6e-3 in the logits of a test model): there a second product adds
// what halves miss of x.
bool Products::in_two_parts(const ops::Weight& weight, std::int64_t tokens) const {
  return (tokens > 8 || batch_invariant_) && precision_ == ops::Precision::exact &&
         (weight.format == formats::Format::tq1_0 || weight.format == formats::Format::tq2_0);
}

void Products::run(const float* x, std::int64_t tokens, std::span<const ops::Projection> outputs,
                   bool accumulate) {
  run(x, nullptr, tokens, outputs, accumulate);
}

void Products::run(const float* x, const ops::Norm* norm, std::int64_t tokens,
                   std::span<const ops::Projection> outputs, bool accumulate) {
  while (!outputs.empty()) {
    const ops::Weight& first = *outputs.front().weight;
    std::size_t together = 1;
    if (first.planes == nullptr) {
      from_blocks(x, tokens, outputs.front(), accumulate);
    } else {
      while (together < outputs.size() && together < kernels::matmul_most_weights &&
             outputs[together].weight->planes != nullptr &&
             outputs[together].weight->format == first.format) {
        ++together;
      }
      from_planes(x, norm, tokens, outputs.first(together), accumulate);
    }
    outputs = outputs.subspan(together);
  }
}

kernels::MatmulArguments Products::arguments(const float* x, const ops::Norm* norm,
                                             std::int64_t tokens, const ops::Weight& weight) const {
  kernels::MatmulArguments a;
  a.format = weight.format;
  a.columns = weight.columns;
  a.tokens = tokens;
  a.x = x;
  if (norm != nullptr) a.norm = norm->weight, a.epsilon = norm->epsilon;
  a.precision = matmul_precision(precision_);
  a.invariant = batch_invariant_;
  return a;
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

void Products::from_planes(const float* x, const ops::Norm* norm, std::int64_t tokens,
                           std::span<const ops::Projection> outputs, bool accumulate) {
  const ops::Weight& first = *outputs.front().weight;
  kernels::MatmulArguments a = arguments(x, norm, tokens, first);
  a.weight_count = static_cast<int>(outputs.size());
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    a.weights[i] = {outputs[i].weight->planes, outputs[i].weight->rows, outputs[i].bias,
                    outputs[i].out};
  }
  a.epilogue = accumulate ? kernels::MatmulEpilogue::add : kernels::MatmulEpilogue::store;
  if (not in_two_parts(first, tokens)) {
    launch(a, first);
    return;
  }
  auto* high = static_cast<float*>(high_.get());
  auto* rest = static_cast<float*>(rest_.get());
  {
    const device::CurrentDevice current(device_);
    device::launch_check("split_bits", {{"tokens", tokens}, {"columns", first.columns}}, stream_,
                         kernels::split_bits(x, tokens * first.columns, high, rest, stream_));
  }
  a.x = high;
  launch(a, first);
  a.x = rest;
  a.epilogue = kernels::MatmulEpilogue::add;
  for (kernels::MatmulWeight& weight : a.weights) weight.bias = nullptr;
  launch(a, first);
}

bool Products::gates(const ops::Weight& gate, const ops::Weight& up, std::int64_t tokens,
                     ops::Activation activation) const {
  if (gate.planes == nullptr || up.planes == nullptr || gate.format != up.format ||
      in_two_parts(gate, tokens)) {
    return false;
  }
  kernels::MatmulArguments a = arguments(nullptr, nullptr, tokens, gate);
  a.activation = matmul_activation(activation);
  const device::CurrentDevice current(device_);
  return kernels::matmul_gates(a);
}

void Products::run_gated(const float* x, const ops::Norm* norm, std::int64_t tokens,
                         const ops::Weight& gate, const ops::Weight& up, ops::Activation activation,
                         float* out) {
  kernels::MatmulArguments a = arguments(x, norm, tokens, gate);
  a.weight_count = 2;
  a.weights[0] = {gate.planes, gate.rows, nullptr, out};
  a.weights[1] = {up.planes, up.rows, nullptr, nullptr};
  a.epilogue = kernels::MatmulEpilogue::gate_up;
  a.activation = matmul_activation(activation);
  launch(a, gate);
}

void Products::launch(kernels::MatmulArguments a, const ops::Weight& named) {
  a.workspace = workspace_.get();
  a.workspace_bytes = workspace_bytes_;
  a.overlap = launch_ == Launch::early;
  const device::CurrentDevice current(device_);
  const kernels::MatmulStatus status = kernels::matmul(a, stream_);
  if (status == kernels::MatmulStatus::small_workspace && a.tokens > 1) {
    const std::int64_t all = a.tokens;
    a.tokens = all / 2;
    launch(a, named);
    a.x += a.tokens * a.columns;
    for (int i = 0; i < a.weight_count; ++i) {
      if (a.weights[i].out != nullptr) a.weights[i].out += a.tokens * a.weights[i].rows;
    }
    a.tokens = all - a.tokens;
    launch(a, named);
    return;
  }
  check_matmul(status, named, a.tokens, stream_);
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
    device::launch_check(weight.name.c_str(),
                         {{"tokens", count}, {"rows", weight.rows}, {"columns", weight.columns}},
                         stream_, status);
  }
}

}  // namespace quantloom::cuda
