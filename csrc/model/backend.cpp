#include "model/backend.h"

#include "base/error.h"
#include "base/thread_pool.h"
#include "cpu/operations.h"
#include "device/runtime.h"

namespace quantloom::model {

std::unique_ptr<ops::Operations> make_operations(const device::Device& device,
                                                 ops::Precision precision) {
  device::require_usable(device);
  if (device.type == device::DeviceType::cpu) return cpu::make_operations(precision);
  throw Error(ErrorKind::device,
              "device '" + device::to_string(device) + "': this build cannot run models on a GPU",
              "device");
}

DefaultDevice default_device() {
  const device::CudaStatus& status = device::cuda_status();
  const std::string reason =
      status.available ? "this build cannot run models on a GPU" : status.reason;
  return {{device::DeviceType::cpu, 0},
          std::to_string(thread_count()) + " threads; no GPU: " + reason};
}

}  // namespace quantloom::model
