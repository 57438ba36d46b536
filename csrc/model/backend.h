// The one place where a device becomes an implementation of the operations.
#pragma once

#include <memory>
#include <string>

#include "device/device.h"
#include "ops/operations.h"

namespace quantloom::model {

// Errors: device when it is not there or this build has no kernels for it, saying which.
std::unique_ptr<ops::Operations> make_operations(const device::Device& device,
                                                 ops::Precision precision);

// What "auto" stands for: the first GPU that this build and this machine can use, the CPU where
// there is none; `reason` says in a few words what was found, and why GPUs were passed over.
struct DefaultDevice {
  device::Device device;
  std::string reason;
};
DefaultDevice default_device();

}  // namespace quantloom::model
