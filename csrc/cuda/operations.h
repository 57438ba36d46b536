// The transformer's operations on one GPU, over the kernels of kernels/.
#pragma once

#include <memory>

#include "device/device.h"
#include "ops/operations.h"

namespace quantloom::cuda {

// One stream of work on `device`. Errors: device when it cannot be used, saying why.
std::unique_ptr<ops::Operations> make_operations(const device::Device& device,
                                                 ops::Precision precision);

}  // namespace quantloom::cuda
