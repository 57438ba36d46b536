// The operations of one token, called in their order, as a program for the decode kernel.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "decode/decode.h"
#include "device/runtime.h"
#include "ops/operations.h"

namespace quantloom::cuda {

class Program {
 public:
  // Collecting: an empty program, then the operations between embed() and sample(). One that the
  // kernel does not know is named by obstacle(), and the program will not run.
  void clear();
  void norm_project(const float* x, const ops::Norm& norm,
                    std::span<const ops::Projection> outputs);
  void rope_store(const kernels::RopeStore& arguments);
  void attention(const kernels::Attention& arguments);
  void project_add(const float* x, const ops::Weight& weight, const float* bias, float* residual);
  void norm_gate_up(const float* x, const ops::Norm& norm, const ops::Weight& gate,
                    const ops::Weight& up, ops::Activation activation, float* out);
  // An operation that runs as a kernel of its own, which it may before the program and after it.
  void other(const char* name);
  void refuse(const std::string& why);
  const std::string& obstacle() const { return obstacle_; }

  // Whether what was collected can run on the device, whatever the values' addresses; obstacle()
  // says why not.
  bool can_run(const device::Device& device);
  // Plans and uploads it. Returns false where it cannot run.
  bool finish(const device::Device& device, device::Stream stream);
  // Whether both run the same steps.
  bool same_steps(const Program& other) const;
  // With `stamps`, memory of stamp_count() times, the blocks write when they were where.
  cudaError_t launch(device::Stream stream, std::uint64_t* stamps, int stages_ahead) const;
  std::size_t stamp_count() const;
  const std::vector<kernels::DecodeStep>& steps() const { return steps_; }

 private:
  kernels::DecodeProduct* add_product(const float* x, const ops::Norm* norm,
                                      std::span<const ops::Projection> outputs);

  std::vector<kernels::DecodeStep> steps_;
  std::string obstacle_;
  const char* after_ = nullptr;  // the first other operation behind the steps
  bool rope_open_ = false;       // the last step waits for its attention
  ops::Buffer memory_;
  kernels::DecodeProgram program_;
};

std::string step_name(const kernels::DecodeStep& step);
std::uint64_t step_bytes(const kernels::DecodeStep& step);  // of weights

// What decides whether a weight's products are steps of a program.
bool program_serves(const ops::Weight& weight);

}  // namespace quantloom::cuda
