// Matrix products on one GPU: from planes where a weight has them, from its raw blocks elsewhere.
#pragma once

#include <cstddef>
#include <span>

#include "device/runtime.h"
#include "matmul/matmul.h"
#include "ops/operations.h"

namespace quantloom::cuda {

// Errors: invalid_argument where no kernel has it.
kernels::Activation kernel_activation(ops::Activation activation);

class Products {
 public:
  // early: weights are fetched before the previous kernel has ended, so none of it may write them.
  enum class Launch { early, in_order };
  using Weights = std::span<const ops::Weight* const>;  // of one product

  Products(const device::Device& device, ops::Precision precision, device::Stream stream,
           Launch launch = Launch::early)
      : device_(device), precision_(precision), stream_(stream), launch_(launch) {}

  // Bytes of workspace with which calls within the limits run, nearly all of them whole.
  static std::size_t workspace_bytes(const ops::Limits& limits);
  // The same for products with one weight.
  static std::size_t workspace_bytes(const ops::Weight& weight, std::int64_t tokens);
  // While on, calls of few tokens take the kernels of many.
  void set_batch_invariant(bool on) { batch_invariant_ = on; }

  void set_workspace(ops::Buffer workspace, std::size_t bytes);
  // Two buffers of [tokens, width] floats: x in two parts, for calls that in_two_parts() says.
  void set_parts(ops::Buffer high, ops::Buffer rest);
  bool in_two_parts(const ops::Weight& weight, std::int64_t tokens) const;

  // x [tokens, columns], the same columns for all outputs; `accumulate` adds to what they hold.
  void run(const float* x, std::int64_t tokens, std::span<const ops::Projection> outputs,
           bool accumulate);

  // What x and out of multiply() are made of: f32, f16 or bf16.
  struct Types {
    formats::Format x = formats::Format::f32;
    formats::Format out = formats::Format::f32;
  };
  // Whether multiply() reads and writes these types.
  bool takes(const Types& types, const ops::Weight& weight, std::int64_t tokens) const;
  // out [tokens, rows] = x [tokens, columns] times the transpose of a weight, where takes().
  void multiply(const void* x, const Types& types, std::int64_t tokens, const ops::Weight& weight,
                void* out);

  // Whether a product of so many tokens norms x itself, and whether it applies the activation to
  // gate and up.
  bool norms(const ops::Weight& weight, std::int64_t tokens) const;
  bool gates(const ops::Weight& gate, const ops::Weight& up, std::int64_t tokens,
             ops::Activation activation) const;

  // run() of x normed; false, and nothing done, where not all products norm x themselves.
  bool run_normed(const float* x, std::int64_t tokens, const ops::Norm& norm,
                  std::span<const ops::Projection> outputs);
  // out = activation(x gate^T) * (x up^T), of x normed where there is a norm; where gates(), and
  // norms() if there is one.
  void run_gated(const float* x, const ops::Norm* norm, std::int64_t tokens,
                 const ops::Weight& gate, const ops::Weight& up, ops::Activation activation,
                 float* out);

  // Bytes that feed_forward() wants between its products within the limits.
  static std::size_t between_bytes(const ops::Limits& limits);
  // Without float32 between the products; false, and nothing done, where there is no such way.
  bool feed_forward(const ops::FeedForward& a, std::int64_t tokens, void* between,
                    std::size_t between_bytes);

 private:
  kernels::MatmulArguments gated(const float* x, const ops::Norm* norm, std::int64_t tokens,
                                 const ops::Weight& gate, const ops::Weight& up,
                                 ops::Activation activation, void* out) const;
  kernels::MatmulArguments arguments(const void* x, const ops::Norm* norm, std::int64_t tokens,
                                     const ops::Weight& weight) const;
  void run(const float* x, const ops::Norm* norm, std::int64_t tokens,
           std::span<const ops::Projection> outputs, bool accumulate);
  // prepared: x as the call before left it, or null. Returns what this one leaves.
  const void* from_planes(const float* x, const ops::Norm* norm, std::int64_t tokens,
                          std::span<const ops::Projection> outputs, bool accumulate,
                          const void* prepared);
  bool fits(const kernels::MatmulArguments& arguments) const;
  // False where the workspace did not do for all tokens at once.
  bool launch(kernels::MatmulArguments arguments, Weights weights);
  void from_blocks(const float* x, std::int64_t tokens, const ops::Projection& output,
                   bool accumulate);

  device::Device device_;
  ops::Precision precision_;
  device::Stream stream_;
  Launch launch_;
  bool batch_invariant_ = false;
  ops::Buffer workspace_;
  ops::Buffer high_;
  ops::Buffer rest_;
  std::size_t workspace_bytes_ = 0;
};

}  // namespace quantloom::cuda
