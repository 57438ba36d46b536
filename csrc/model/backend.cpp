#include "model/backend.h"

#include "base/error.h"
#include "base/thread_pool.h"
#include "cpu/operations.h"
#include "device/runtime.h"
#if defined(QUANTLOOM_WITH_CUDA)
#include "cuda/operations.h"
#endif

namespace quantloom::model {

std::unique_ptr<ops::Operations> make_operations(const device::Device& device,
                                                 ops::Precision precision) {
  device::require_usable(device);
  if (device.type == device::DeviceType::cpu) return cpu::make_operations(precision);
#if defined(QUANTLOOM_WITH_CUDA)
  return cuda::make_operations(device, precision);
#else
  throw Error(ErrorKind::device,
              "device '" + device::to_string(device) + "' is not there: built without CUDA",
              "device");
#endif
}

DefaultDevice default_device() {
  const device::CudaStatus& status = device::cuda_status();
  std::string passed_over = status.reason;
  const auto pass_over = [&](const std::string& why) {
    passed_over += (passed_over.empty() ? "" : ", ") + why;
  };
  for (int index = 0; index < status.devices; ++index) {
    const device::Device candidate{device::DeviceType::cuda, index};
    try {
      const device::DeviceInfo gpu = device::cuda_device(index);
      if (device::has_kernels_for(candidate)) {
        return {candidate, gpu.name + (passed_over.empty() ? "" : "; " + passed_over)};
      }
      pass_over("this build has no kernels for " + gpu.name + " of compute capability " +
                std::to_string(gpu.capability_major) + "." + std::to_string(gpu.capability_minor));
    } catch (const Error& error) {  // as where another process has all of its memory
      pass_over(error.what());
    }
  }
  return {{device::DeviceType::cpu, 0},
          std::to_string(thread_count()) + " threads; no GPU: " + passed_over};
}

}  // namespace quantloom::model
