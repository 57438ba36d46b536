// Steps recorded as graphs while another thread waits for the device, which CUDA refuses, and which
// breaks the recording.
#include "cuda/replay.h"

#include <cuda_runtime_api.h>

#include <thread>

#include "check.h"
#include "device/memory.h"
#include "device/runtime.h"

namespace {

using quantloom::cuda::Replay;
using quantloom::device::Device;
using quantloom::device::DeviceType;

constexpr Device gpu{DeviceType::cuda, 0};

bool is_broken(quantloom::device::Stream stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  CHECK(cudaStreamIsCapturing(stream, &status) == cudaSuccess);
  return status == cudaStreamCaptureStatusInvalidated;
}

// A step that zeroes a byte.
struct Step {
  quantloom::device::OwnedStream stream{gpu};
  quantloom::device::Buffer memory = quantloom::device::allocate(gpu, 1, stream.get(), "a byte");
  int calls = 0;

  void run() {
    ++calls;
    quantloom::device::fill_zero(memory.get(), gpu, 1, stream.get());
  }
  bool has_run() {
    unsigned char byte = 1;
    CHECK(cudaMemcpy(&byte, memory.get(), 1, cudaMemcpyDeviceToHost) == cudaSuccess);
    CHECK(cudaMemset(memory.get(), 1, 1) == cudaSuccess);
    return byte == 0;
  }
};

// What another thread does meets the second call, which is recorded.
template <typename Meanwhile>
void break_a_recording(Meanwhile meanwhile) {
  Step step;
  Replay replay(gpu);
  replay.run(1, step.stream.get(), [&] { step.run(); });
  CHECK(step.has_run());
  std::thread other;
  replay.run(1, step.stream.get(), [&] {
    if (!other.joinable()) {
      other = std::thread(meanwhile);
      while (!is_broken(step.stream.get())) std::this_thread::yield();
    }
    step.run();
  });
  other.join();
  CHECK(step.calls == 3);
  CHECK(step.has_run());

  for (int i = 0; i < 2; ++i) {
    replay.run(1, step.stream.get(), [&] { step.run(); });
    CHECK(step.calls == 4);
    CHECK(step.has_run());
  }
}

}  // namespace

TEST(a_wait_for_the_device_meets_a_recording) {
  break_a_recording([] { quantloom::device::synchronize(gpu); });
}

TEST(a_recording_that_others_broke_runs_as_it_is) {
  break_a_recording([] {
    CHECK(cudaDeviceSynchronize() == cudaErrorStreamCaptureUnsupported);
    cudaGetLastError();
  });
}

TEST(pinned_memory_is_for_its_own_device) {
  CHECK(quantloom::device::allocate_pinned(gpu, 8, "x") != nullptr);
  CHECK_THROWS(device, "cuda:1 is not there",
               quantloom::device::allocate_pinned({DeviceType::cuda, 1}, 8, "x"));
}

int main() { return quantloom::check::run_all(); }
