// The one place where a device becomes an implementation of the operations.
#pragma once

#include <memory>
#include <optional>

#include "device/device.h"
#include "ops/operations.h"

namespace quantloom::model {

// `threads`: CPU threads of the work; none: all cores. Errors: device when it is not there or this
// build has no kernels for it, saying which.
std::unique_ptr<ops::Operations> make_operations(const device::Device& device,
                                                 ops::Precision precision,
                                                 std::optional<int> threads);

}  // namespace quantloom::model
