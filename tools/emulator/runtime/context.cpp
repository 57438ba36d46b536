#include "runtime/context.h"

#include <pthread.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace quantloom::emulator {

namespace {

struct State {
  Memory memory;
  std::atomic<bool> started{false}, forked{false};
  std::atomic<cudaError_t> fault{cudaSuccess};  // of a kernel that ended early
  std::atomic<bool> seen{false};                // some call has answered it
};

State& state() {
  static State* const instance = new State;
  return *instance;
}

thread_local cudaError_t last_error = cudaSuccess;

std::size_t number_of(const char* name, std::size_t otherwise) {
  const char* text = std::getenv(name);
  if (text == nullptr || *text == '\0') return otherwise;
  char* end = nullptr;
  const unsigned long long value = std::strtoull(text, &end, 10);
  if (*end != '\0' || value == 0) {
    say(std::string(name) + " is '" + text + "'; it takes a number above 0");
    std::abort();
  }
  return value;
}

// Of the capabilities that the kernels serve; 0 of another.
std::size_t shared_bytes_of(int capability) {
  switch (capability) {
    case 80:
      return 164 << 10;
    case 86:
    case 89:
    case 120:
      return 100 << 10;
    case 90:
    case 100:
      return 228 << 10;
    default:
      return 0;
  }
}

cudaError_t error_of(Fault::Kind kind) {
  switch (kind) {
    case Fault::Kind::illegal_address:
      return cudaErrorIllegalAddress;
    case Fault::Kind::misaligned_address:
      return cudaErrorMisalignedAddress;
    case Fault::Kind::trap:
      return cudaErrorLaunchFailure;
    case Fault::Kind::illegal_instruction:
      return cudaErrorIllegalInstruction;
    case Fault::Kind::hang:
      return cudaErrorLaunchTimeout;
  }
  return cudaErrorUnknown;
}

}  // namespace

const Settings& settings() {
  static const Settings instance = [] {
    Settings read;
    read.processors = static_cast<int>(number_of("QUANTLOOM_EMULATOR_PROCESSORS", 4));
    read.capability = static_cast<int>(number_of("QUANTLOOM_EMULATOR_CAPABILITY", 90));
    read.shared_processor_bytes = shared_bytes_of(read.capability);
    if (read.shared_processor_bytes == 0) {
      say("QUANTLOOM_EMULATOR_CAPABILITY takes 80, 86, 89, 90, 100 and 120");
      std::abort();
    }
    read.memory = number_of("QUANTLOOM_EMULATOR_MEMORY", read.memory);
    const char* trace = std::getenv("QUANTLOOM_EMULATOR_TRACE");
    read.trace = trace != nullptr && *trace != '\0' && std::strcmp(trace, "0") != 0;
    const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
    read.device = visible == nullptr || *visible == '0';
    return read;
  }();
  return instance;
}

Memory& device_memory() { return state().memory; }

void keep_fault(const Fault& fault) {
  cudaError_t none = cudaSuccess;
  if (state().fault.compare_exchange_strong(none, error_of(fault.kind))) say(fault.text);
}

bool faulted() { return state().fault.load() != cudaSuccess; }

cudaError_t set_last_error(cudaError_t error) {
  if (error != cudaSuccess && error != cudaErrorNotReady) last_error = error;
  return error;
}

cudaError_t enter(Calls calls) {
  State& now = state();
  if (now.forked.load()) return cudaErrorInitializationError;
  if (!settings().device) return cudaErrorNoDevice;
  if (!now.started.exchange(true)) {
    pthread_atfork(nullptr, nullptr, [] { state().forked.store(true); });
  }
  if (calls == Calls::information || !faulted()) return cudaSuccess;
  if (calls == Calls::launch && !now.seen.load()) return cudaSuccess;
  now.seen.store(true);
  return now.fault.load();
}

void say(const std::string& text) {
  std::fprintf(stderr, "quantloom emulator: %s\n", text.c_str());
}

}  // namespace quantloom::emulator

using namespace quantloom::emulator;

extern "C" {

cudaError_t cudaGetLastError() {
  const cudaError_t error = cudaPeekAtLastError();
  last_error = cudaSuccess;
  return error;
}

cudaError_t cudaPeekAtLastError() {
  if (state().seen.load()) return state().fault.load();
  return last_error;
}

}  // extern "C"
