// Streams: their work runs at once in the thread that submits it, or is recorded where the stream
// captures.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>

namespace quantloom::emulator {

using Operation = std::function<cudaError_t()>;

// A copy may go to a stream of any device, what runs on the device only to one of the current one.
enum class On { any_device, current_device };

// Runs or records one operation.
cudaError_t submit(cudaStream_t stream, On on, Operation operation);

// For calls that a capture of this thread forbids, such as cudaMalloc: an error, which the capture
// does not survive.
cudaError_t refuse_under_capture();

}  // namespace quantloom::emulator
