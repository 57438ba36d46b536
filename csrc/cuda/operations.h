// The transformer's operations on one GPU, over the kernels of kernels/.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "device/device.h"
#include "ops/operations.h"

namespace quantloom::cuda {

// One stream of work on `device`. Errors: device when it cannot be used, saying why.
std::unique_ptr<ops::Operations> make_operations(const device::Device& device,
                                                 ops::Precision precision);

// A run of one step's calls as replay() runs them, with the times inside the decode kernel.
struct StepProfile {
  struct Operation {
    std::string name;                  // "4096 x 14336 Q6_K", "attention"
    std::uint64_t weight_bytes = 0;    // that it reads
    std::vector<std::uint64_t> times;  // [blocks][4] nanoseconds: start, inputs there and
                                       // converted, sums done, outputs written
  };
  std::string obstacle;  // why the decode kernel cannot run the calls, and there are no operations
  std::vector<Operation> operations;
};

// `operations` is what make_operations() of this room gave. Errors: device.
StepProfile profile_step(ops::Operations& operations, const std::function<void()>& calls);

// kernels::DecodeProgram::stages_ahead of the calls that follow; a step recorded before by replay()
// keeps its own.
void set_decode_stages_ahead(ops::Operations& operations, int stages);

}  // namespace quantloom::cuda
