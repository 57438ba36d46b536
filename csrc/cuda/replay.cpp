#include "cuda/replay.h"

#include "base/error.h"
#include "device/cuda_call.h"

namespace quantloom::cuda {
namespace {

// Ends a capture that an exception left open. Another thread that waits for the whole device breaks
// it, whatever its mode: then it has no graph.
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
    static_cast<void>(cudaGetLastError());
  }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;

  bool is_broken() const {
    cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
    return cudaStreamIsCapturing(stream_, &status) == cudaSuccess &&
           status == cudaStreamCaptureStatusInvalidated;
  }

  cudaGraph_t end() {
    if (faults::fails(faults::Point::cuda_call)) {
      device::check(cudaErrorOperatingSystem, "cudaStreamEndCapture");
    }
    open_ = false;
    cudaGraph_t graph = nullptr;
    const cudaError_t status = cudaStreamEndCapture(stream_, &graph);
    if (status == cudaErrorStreamCaptureInvalidated) {
      static_cast<void>(cudaGetLastError());
      return nullptr;
    }
    device::check(status, "cudaStreamEndCapture");
    return graph;
  }

 private:
  device::Stream stream_;
  bool open_ = true;
};

// What the calls launch, as a graph; null where the capture was broken meanwhile.
cudaGraph_t record(device::Stream stream, const std::function<void()>& calls) {
  Capture capture(stream);
  try {
    calls();
  } catch (const Error&) {
    if (not capture.is_broken()) throw;
    return nullptr;
  }
  return capture.end();
}

}  // namespace

void Replay::Destroy::operator()(cudaGraphExec_t graph) const {
  const device::CurrentDevice current(device, std::nothrow);
  if (current) static_cast<void>(cudaGraphExecDestroy(graph));
}

void Replay::run(std::uint64_t key, device::Stream stream, const std::function<void()>& calls) {
  const device::CurrentDevice current(device_);
  const auto found = graphs_.find(key);
  // A debugging run waits after each launch, which a recording cannot.
  if (found == graphs_.end() || device::debug_launches()) {
    calls();
    graphs_.try_emplace(key, nullptr, Destroy{device_});
    return;
  }
  if (found->second == nullptr) {
    cudaGraph_t graph = record(stream, calls);
    if (graph == nullptr) return calls();  // nothing of them has run; the next call records anew
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
