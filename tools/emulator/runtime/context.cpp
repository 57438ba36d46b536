#include "runtime/context.h"

#include <pthread.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace quantloom::emulator {

namespace {

struct State {
  std::atomic<bool> started{false}, forked{false};
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

// How many of the devices CUDA_VISIBLE_DEVICES leaves: what follows an unknown one is hidden.
int visible_of(int devices) {
  const char* text = std::getenv("CUDA_VISIBLE_DEVICES");
  if (text == nullptr) return devices;
  int visible = 0;
  for (char* end = nullptr; *text != '\0'; text = *end == ',' ? end + 1 : end) {
    const long index = std::strtol(text, &end, 10);
    if (end == text || index < 0 || index >= devices) break;
    ++visible;
  }
  return visible;
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
    const std::size_t devices = number_of("QUANTLOOM_EMULATOR_DEVICES", 1);
    if (devices > most_devices) {
      say("QUANTLOOM_EMULATOR_DEVICES takes 1 to " + std::to_string(most_devices));
      std::abort();
    }
    read.devices = visible_of(static_cast<int>(devices));
    return read;
  }();
  return instance;
}

void keep_fault(Device& device, const Fault& fault) {
  cudaError_t none = cudaSuccess;
  if (device.fault.compare_exchange_strong(none, error_of(fault.kind))) say(fault.text);
}

cudaError_t set_last_error(cudaError_t error) {
  if (error != cudaSuccess && error != cudaErrorNotReady) last_error = error;
  return error;
}

cudaError_t enter(Calls calls) {
  State& now = state();
  if (now.forked.load()) return cudaErrorInitializationError;
  if (settings().devices == 0) return cudaErrorNoDevice;
  if (!now.started.exchange(true)) {
    pthread_atfork(nullptr, nullptr, [] { state().forked.store(true); });
  }
  if (calls == Calls::information) return cudaSuccess;
  Device& device = current_device();
  if (!device.faulted()) return cudaSuccess;
  if (calls == Calls::launch && !device.seen.load()) return cudaSuccess;
  device.seen.store(true);
  return device.fault.load();
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
  const Device& device = thread_device();
  return device.seen.load() ? device.fault.load() : last_error;
}

}  // extern "C"
