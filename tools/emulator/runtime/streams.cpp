#include "runtime/streams.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "runtime/context.h"

using namespace quantloom::emulator;

namespace {

struct Capture {
  cudaStream_t origin = nullptr;
  std::thread::id thread;
  bool any_thread = false;  // relaxed mode: other threads may end it, and nothing is forbidden
  bool invalid = false;
  std::vector<Operation> operations;
};

}  // namespace

struct CUstream_st {
  const Device* device = nullptr;
  unsigned flags = 0;
  std::shared_ptr<Capture> capture;
};

struct CUevent_st {
  const Device* device = nullptr;
  bool timed = true;
  bool recorded = false;
  std::chrono::steady_clock::time_point time;
  std::weak_ptr<Capture> capture;  // the one it was last recorded in
  bool in_capture = false;
};

struct CUgraph_st {
  const Device* device = nullptr;  // of the stream whose capture it is
  std::vector<Operation> operations;
};

struct CUgraphExec_st {
  const Device* device = nullptr;
  std::vector<Operation> operations;
};

namespace {

// What there is, so that a handle used after its end is an error and not a crash.
struct Handles {
  std::mutex mutex;
  std::set<cudaStream_t> streams;
  std::set<cudaEvent_t> events;
  std::set<cudaGraph_t> graphs;
  std::set<cudaGraphExec_t> executables;
  std::vector<std::weak_ptr<Capture>> captures;
};

Handles& handles() {
  static Handles* const instance = new Handles;
  return *instance;
}

bool is_default(cudaStream_t stream) {
  return stream == nullptr || stream == cudaStreamLegacy || stream == cudaStreamPerThread;
}

bool known(cudaStream_t stream) {
  return is_default(stream) || handles().streams.count(stream) > 0;
}

std::shared_ptr<Capture> capture_of(cudaStream_t stream) {
  return is_default(stream) ? nullptr : stream->capture;
}

// A default stream is the current device's.
const Device* device_of(cudaStream_t stream) {
  return is_default(stream) ? &current_device() : stream->device;
}

template <typename Handle>
cudaError_t drop(std::set<Handle>& of, Handle handle) {
  if (of.erase(handle) == 0) return cudaErrorInvalidResourceHandle;
  delete handle;
  return cudaSuccess;
}

cudaError_t run_all(const std::vector<Operation>& operations) {
  for (const Operation& operation : operations) {
    if (const cudaError_t status = operation(); status != cudaSuccess) return status;
  }
  return cudaSuccess;
}

}  // namespace

namespace quantloom::emulator {

cudaError_t submit(cudaStream_t stream, On on, Operation operation) {
  {
    const std::lock_guard lock(handles().mutex);
    if (!known(stream)) return cudaErrorInvalidResourceHandle;
    if (on == On::current_device && device_of(stream) != &current_device()) {
      return cudaErrorInvalidResourceHandle;
    }
    if (const auto capture = capture_of(stream)) {
      if (capture->invalid) return cudaErrorStreamCaptureInvalidated;
      capture->operations.push_back(std::move(operation));
      return cudaSuccess;
    }
    if (is_default(stream) && stream != cudaStreamPerThread) {
      for (const auto& entry : handles().captures) {
        const auto capture = entry.lock();
        if (capture == nullptr || (capture->origin->flags & cudaStreamNonBlocking) != 0 ||
            capture->origin->device != &current_device()) {
          continue;
        }
        capture->invalid = true;
        return cudaErrorStreamCaptureImplicit;
      }
    }
  }
  return operation();
}

cudaError_t refuse_under_capture() {
  const std::lock_guard lock(handles().mutex);
  for (const auto& entry : handles().captures) {
    const auto capture = entry.lock();
    if (capture == nullptr || capture->any_thread ||
        capture->thread != std::this_thread::get_id()) {
      continue;
    }
    capture->invalid = true;
    return cudaErrorStreamCaptureUnsupported;
  }
  return cudaSuccess;
}

}  // namespace quantloom::emulator

extern "C" {

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return answer(Calls::work, [&] {
    if ((flags & ~static_cast<unsigned>(cudaStreamNonBlocking)) != 0) return cudaErrorInvalidValue;
    const std::lock_guard lock(handles().mutex);
    *stream = new CUstream_st{&current_device(), flags, nullptr};
    handles().streams.insert(*stream);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return cudaStreamCreateWithFlags(stream, cudaStreamDefault);
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  return answer(Calls::work, [&] {
    const std::lock_guard lock(handles().mutex);
    return drop(handles().streams, stream);
  });
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return answer(Calls::work, [&] {
    const std::lock_guard lock(handles().mutex);
    if (!known(stream)) return cudaErrorInvalidResourceHandle;
    const auto capture = capture_of(stream);
    if (capture == nullptr) return cudaSuccess;
    capture->invalid = true;
    return cudaErrorStreamCaptureUnsupported;
  });
}

// Of whatever thread and mode, unlike what else a capture forbids: the device has its stream.
cudaError_t cudaDeviceSynchronize() {
  return answer(Calls::work, [&] {
    const std::lock_guard lock(handles().mutex);
    cudaError_t status = cudaSuccess;
    for (const auto& entry : handles().captures) {
      const auto capture = entry.lock();
      if (capture == nullptr || capture->origin->device != &current_device()) continue;
      capture->invalid = true;
      status = cudaErrorStreamCaptureUnsupported;
    }
    return status;
  });
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  return answer(Calls::work, [&] {
    const std::lock_guard lock(handles().mutex);
    if (!known(stream)) return cudaErrorInvalidResourceHandle;
    if (is_default(stream)) return cudaErrorStreamCaptureUnsupported;
    if (stream->capture != nullptr) return cudaErrorIllegalState;
    auto capture = std::make_shared<Capture>();
    capture->origin = stream;
    capture->thread = std::this_thread::get_id();
    capture->any_thread = mode == cudaStreamCaptureModeRelaxed;
    stream->capture = capture;
    auto& captures = handles().captures;
    std::erase_if(captures, [](const auto& entry) { return entry.expired(); });
    captures.push_back(capture);
    return cudaSuccess;
  });
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = nullptr;
  return answer(Calls::work, [&] {
    const std::lock_guard lock(handles().mutex);
    if (!known(stream)) return cudaErrorInvalidResourceHandle;
    const auto capture = capture_of(stream);
    if (capture == nullptr || capture->origin != stream) return cudaErrorStreamCaptureUnmatched;
    if (!capture->any_thread && capture->thread != std::this_thread::get_id()) {
      return cudaErrorStreamCaptureWrongThread;
    }
    for (cudaStream_t member : handles().streams) {
      if (member->capture == capture) member->capture = nullptr;
    }
    if (capture->invalid) return cudaErrorStreamCaptureInvalidated;
    *graph = new CUgraph_st{stream->device, std::move(capture->operations)};
    handles().graphs.insert(*graph);
    return cudaSuccess;
  });
}

// The host's own bookkeeping: as a launch, it does not see what a kernel has done.
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  *status = cudaStreamCaptureStatusNone;
  return answer(Calls::launch, [&] {
    const std::lock_guard lock(handles().mutex);
    if (!known(stream)) return cudaErrorInvalidResourceHandle;
    const auto capture = capture_of(stream);
    *status = capture == nullptr ? cudaStreamCaptureStatusNone
              : capture->invalid ? cudaStreamCaptureStatusInvalidated
                                 : cudaStreamCaptureStatusActive;
    return cudaSuccess;
  });
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph,
                                 unsigned long long /*flags*/) {
  return answer(Calls::work, [&] {
    const std::lock_guard lock(handles().mutex);
    if (handles().graphs.count(graph) == 0) return cudaErrorInvalidValue;
    *executable = new CUgraphExec_st{graph->device, graph->operations};
    handles().executables.insert(*executable);
    return cudaSuccess;
  });
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  return answer(Calls::launch, [&] {
    std::vector<Operation> operations;
    {
      const std::lock_guard lock(handles().mutex);
      if (handles().executables.count(executable) == 0) return cudaErrorInvalidValue;
      if (executable->device != &current_device()) return cudaErrorInvalidResourceHandle;
      operations = executable->operations;
    }
    return submit(stream, On::current_device,
                  [operations = std::move(operations)] { return run_all(operations); });
  });
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  return answer(Calls::work, [&] {
    const std::lock_guard lock(handles().mutex);
    return drop(handles().graphs, graph);
  });
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  return answer(Calls::work, [&] {
    const std::lock_guard lock(handles().mutex);
    return drop(handles().executables, executable);
  });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  return answer(Calls::work, [&] {
    const std::lock_guard lock(handles().mutex);
    *event = new CUevent_st;
    (*event)->device = &current_device();
    (*event)->timed = (flags & cudaEventDisableTiming) == 0;
    handles().events.insert(*event);
    return cudaSuccess;
  });
}

cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return cudaEventCreateWithFlags(event, cudaEventDefault);
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return answer(Calls::work, [&] {
    const std::lock_guard lock(handles().mutex);
    return drop(handles().events, event);
  });
}

// Under capture an event marks its place in the graph; it neither completes nor keeps a time.
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return answer(Calls::work, [&] {
    const std::lock_guard lock(handles().mutex);
    if (!known(stream) || handles().events.count(event) == 0 ||
        event->device != device_of(stream)) {
      return cudaErrorInvalidResourceHandle;
    }
    const auto capture = capture_of(stream);
    if (capture != nullptr && capture->invalid) return cudaErrorStreamCaptureInvalidated;
    event->capture = capture;
    event->in_capture = capture != nullptr;
    event->recorded = true;
    event->time = std::chrono::steady_clock::now();
    return cudaSuccess;
  });
}

// A stream that waits for an event of a capturing stream joins its capture.
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned /*flags*/) {
  return answer(Calls::work, [&] {
    const std::lock_guard lock(handles().mutex);
    if (!known(stream) || handles().events.count(event) == 0) return cudaErrorInvalidResourceHandle;
    const auto into = capture_of(stream);
    if (!event->in_capture) {
      if (into == nullptr || !event->recorded) return cudaSuccess;
      into->invalid = true;
      return cudaErrorStreamCaptureIsolation;
    }
    const auto from = event->capture.lock();
    if (from == nullptr || into == from) return cudaSuccess;
    if (into != nullptr) {
      from->invalid = into->invalid = true;
      return cudaErrorStreamCaptureMerge;
    }
    if (is_default(stream)) {
      from->invalid = true;
      return cudaErrorStreamCaptureImplicit;
    }
    stream->capture = from;
    return cudaSuccess;
  });
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  return answer(Calls::work, [&] {
    const std::lock_guard lock(handles().mutex);
    if (handles().events.count(event) == 0) return cudaErrorInvalidResourceHandle;
    const auto capture = event->capture.lock();
    if (capture == nullptr) return cudaSuccess;
    capture->invalid = true;
    return cudaErrorCapturedEvent;
  });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) { return cudaEventQuery(event); }

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  return answer(Calls::work, [&] {
    const std::lock_guard lock(handles().mutex);
    auto& events = handles().events;
    if (events.count(start) == 0 || events.count(end) == 0 || !start->timed || !end->timed ||
        start->device != end->device || !start->recorded || !end->recorded || start->in_capture ||
        end->in_capture) {
      return cudaErrorInvalidResourceHandle;
    }
    *milliseconds = std::chrono::duration<float, std::milli>(end->time - start->time).count();
    return cudaSuccess;
  });
}

}  // extern "C"
