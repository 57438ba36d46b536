// What all calls share: the settings, the errors, and the context that a call works in.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <string>

#include "machine.h"
#include "runtime/devices.h"

namespace quantloom::emulator {

inline constexpr std::size_t shared_default_bytes = 48 << 10;
inline constexpr std::size_t shared_reserved_bytes = 1 << 10;
inline constexpr int processor_threads = 2048;
inline constexpr int processor_blocks = 32;

struct Settings {
  int processors = 4;                              // QUANTLOOM_EMULATOR_PROCESSORS
  int capability = 90;                             // QUANTLOOM_EMULATOR_CAPABILITY
  std::size_t shared_processor_bytes = 228 << 10;  // of that capability
  std::size_t memory = 8ull << 30;                 // QUANTLOOM_EMULATOR_MEMORY, bytes
  bool trace = false;                              // QUANTLOOM_EMULATOR_TRACE
  int devices = 1;                                 // QUANTLOOM_EMULATOR_DEVICES that are visible
};
const Settings& settings();

// What a block may ask for of its processor's shared memory.
inline std::size_t shared_optin_bytes() {
  return settings().shared_processor_bytes - shared_reserved_bytes;
}

// What ended a kernel early. The launch itself answers success, as on a GPU, where the kernel runs
// later; the device's next call that is no launch, and each one after it, answers the error.
void keep_fault(Device& device, const Fault& fault);

cudaError_t set_last_error(cudaError_t error);  // returns it

enum class Calls {
  information,  // needs no context, answers also after a fault
  launch,       // answers success after a fault of a launch before it, and does nothing
  work,
};
cudaError_t enter(Calls calls);

// The shape of each call: what forbids it, its body, the last error.
template <typename Body>
cudaError_t answer(Calls calls, Body body) {
  const cudaError_t status = enter(calls);
  if (status != cudaSuccess) return set_last_error(status);
  if (calls == Calls::launch && current_device().faulted()) return cudaSuccess;
  return set_last_error(body());
}

// One line on stderr, for errors whose code alone says too little.
void say(const std::string& text);

}  // namespace quantloom::emulator
