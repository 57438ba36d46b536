// A GPU that the build's kernels were not compiled for.
#include "check.h"
#include "device/query.h"
#include "device/runtime.h"
#include "model/backend.h"

// In place of the kernels' own.
cudaError_t quantloom::kernels::query_kernel_image() { return cudaErrorNoKernelImageForDevice; }

namespace {

using quantloom::device::Device;
using quantloom::device::DeviceType;

constexpr Device gpu{DeviceType::cuda, 0};

}  // namespace

TEST(its_use_is_an_error_that_says_what_to_do) {
  CHECK(!quantloom::device::has_kernels_for(gpu));
  CHECK_THROWS(device,
               "of compute capability 9.0, which this build's kernels were not compiled for",
               quantloom::device::require_usable(gpu));
}

TEST(auto_stands_for_the_cpu_and_says_why) {
  const auto chosen = quantloom::model::default_device();
  CHECK(chosen.device.type == DeviceType::cpu);
  CHECK(chosen.reason.find("this build has no kernels for emulated GPU") != std::string::npos);
}

int main() { return quantloom::check::run_all(); }
