// The one place where a device becomes an implementation of the operations.
#pragma once

#include <memory>

#include "device/device.h"
#include "ops/operations.h"

namespace quantloom::model {

// Errors: device when it is not there or this build has no kernels for it, saying which.
std::unique_ptr<ops::Operations> make_operations(const device::Device& device,
                                                 ops::Precision precision);

}  // namespace quantloom::model
