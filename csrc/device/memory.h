// Memory of any device: pooled on a GPU, plain or pinned on the host.
#pragma once

#include <cstddef>
#include <memory>

#include "device/device.h"
#include "device/pool.h"
#include "device/runtime.h"

namespace quantloom::device {

// Freed with its last owner, on a GPU in the order of the stream it was allocated for.
using Buffer = std::shared_ptr<void>;

// On a GPU from the device's pool (256-byte aligned), for work on `stream`; on the CPU 64-byte
// aligned. Errors: out_of_memory naming `what`, the bytes asked and the bytes free; device as
// require_usable.
Buffer allocate(const Device& device, std::size_t bytes, Stream stream, const char* what);

// The same on the device's compute stream.
Buffer allocate(const Device& device, std::size_t bytes, const char* what);

// Host memory that the GPUs copy from and to without staging and may address directly, for work on
// `device`, a GPU. Errors: out_of_memory; device as require_usable.
Buffer allocate_pinned(const Device& device, std::size_t bytes, const char* what);

// Streams that this process did not make use this GPU memory too (DLPack, CUDA array interface).
void mark_shared(const Device& device, void* memory);

// Before a stream is destroyed: blocks allocated for it may outlive it.
void forget_stream(const Device& device, Stream stream);

// Errors: device as require_usable; invalid_argument for the CPU, which has no pool.
MemoryStatistics memory_statistics(const Device& device);
void set_memory_cap(const Device& device, std::size_t bytes);
void trim_memory(const Device& device, std::size_t keep = 0);
void reset_peak_memory(const Device& device);

}  // namespace quantloom::device
