// The emulated GPUs, each with the primary context that the runtime's calls work in, and which of
// them is current in a thread.
#pragma once

#include <cuda_runtime_api.h>

#include <atomic>
#include <cstddef>

#include "machine.h"

namespace quantloom::emulator {

inline constexpr int most_devices = 8;

struct Device {
  int index = 0;
  Memory memory;                                // what its kernels may read and write
  std::atomic<std::size_t> used{0};             // bytes that cudaMalloc gave
  std::atomic<bool> active{false};              // its context is there
  std::atomic<cudaError_t> fault{cudaSuccess};  // of a kernel that ended early
  std::atomic<bool> seen{false};                // some call has answered it

  bool faulted() const { return fault.load() != cudaSuccess; }
};

// They outlive static destructors: tensors that Python frees at its end still come here.
Device& device_at(int index);

// The device of the thread's current context; where it has none, the one that cudaSetDevice() chose
// last, or 0.
Device& thread_device();

// The same, whose context is made and becomes current where none is: any runtime call that works.
Device& current_device();

// cudaSetDevice(), which makes the context too.
void choose_device(int index);

// For what every device may read: pinned memory.
void add_to_all(const void* begin, std::size_t bytes);
void remove_from_all(const void* begin);

// An entry point of the driver about contexts; null where it is not emulated.
void* context_function(const char* symbol);

}  // namespace quantloom::emulator
