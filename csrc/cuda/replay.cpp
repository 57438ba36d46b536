#include "cuda/replay.h"

#include "device/cuda_call.h"

namespace quantloom::cuda {
namespace {

// Ends a capture that an exception left open.
class Capture {
 public:
  explicit Capture(device::Stream stream) : stream_(stream) {
    QUANTLOOM_CUDA_CALL(cudaStreamBeginCapture, stream, cudaStreamCaptureModeThreadLocal);
  }
  ~Capture() {
    if (!open_) return;
    cudaGraph_t graph = nullptr;
    static_cast<void>(cudaStreamEndCapture(stream_, &graph));
    if (graph != nullptr) static_cast<void>(cudaGraphDestroy(graph));
  }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;

  cudaGraph_t end() {
    cudaGraph_t graph = nullptr;
    QUANTLOOM_CUDA_CALL(cudaStreamEndCapture, stream_, &graph);
    open_ = false;
    return graph;
  }

 private:
  device::Stream stream_;
  bool open_ = true;
};

}  // namespace

void Replay::run(std::uint64_t key, device::Stream stream, const std::function<void()>& calls) {
  const auto found = graphs_.find(key);
  // A debugging run waits after each launch, which a recording cannot.
  if (found == graphs_.end() || device::debug_launches()) {
    calls();
    graphs_.try_emplace(key);
    return;
  }
  if (found->second == nullptr) {
    Capture capture(stream);
    calls();
    cudaGraph_t graph = capture.end();
    cudaGraphExec_t executable = nullptr;
    const cudaError_t status = faults::fails(faults::Point::cuda_call)
                                   ? cudaErrorOperatingSystem
                                   : cudaGraphInstantiate(&executable, graph, 0);
    static_cast<void>(cudaGraphDestroy(graph));
    device::check(status, "cudaGraphInstantiate");
    found->second.reset(executable);
  }
  QUANTLOOM_CUDA_CALL(cudaGraphLaunch, found->second.get(), stream);
  device::count(device::Counted::launch);
}

}  // namespace quantloom::cuda
