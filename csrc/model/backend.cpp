#include "model/backend.h"

#include "base/error.h"
#include "cpu/operations.h"

namespace quantloom::model {

std::unique_ptr<ops::Operations> make_operations(const device::Device& device,
                                                 ops::Precision precision) {
  if (device.type == device::DeviceType::cpu) return cpu::make_operations(precision);
  throw Error(ErrorKind::device,
              "device '" + device::to_string(device) +
                  "' is not there: this build of quantloom has no CUDA part",
              "device");
}

}  // namespace quantloom::model
