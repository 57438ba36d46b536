#include "runtime/devices.h"

#include <cuda.h>

#include <array>
#include <cstring>
#include <vector>

#include "runtime/context.h"

struct CUctx_st {
  int device = 0;
};

namespace quantloom::emulator {

namespace {

struct All {
  std::array<Device, most_devices> devices;
  std::array<CUctx_st, most_devices> contexts;
  All() {
    for (int i = 0; i < most_devices; ++i) {
      const auto at = static_cast<std::size_t>(i);
      devices[at].index = contexts[at].device = i;
    }
  }
};

All& all() {
  static All* const instance = new All;
  return *instance;
}

CUcontext context_of(int device) { return &all().contexts[static_cast<std::size_t>(device)]; }

thread_local int chosen = 0;
thread_local std::vector<CUcontext> pushed;  // the current one last; null: none

CUcontext current_context() { return pushed.empty() ? nullptr : pushed.back(); }

void make_current(int device) {
  device_at(device).active.store(true);
  if (pushed.empty()) pushed.push_back(nullptr);
  pushed.back() = context_of(device);
}

// The driver's errors have the runtime's numbers.
CUresult driver_status() { return static_cast<CUresult>(enter(Calls::information)); }

bool known(int device) { return device >= 0 && device < settings().devices; }

}  // namespace

Device& device_at(int index) { return all().devices[static_cast<std::size_t>(index)]; }

Device& thread_device() {
  const CUcontext context = current_context();
  return device_at(context != nullptr ? context->device : chosen);
}

Device& current_device() {
  if (current_context() == nullptr) make_current(chosen);
  return thread_device();
}

void choose_device(int index) {
  chosen = index;
  make_current(index);
}

void add_to_all(const void* begin, std::size_t bytes) {
  for (Device& device : all().devices) device.memory.add(begin, bytes);
}

void remove_from_all(const void* begin) {
  for (Device& device : all().devices) device.memory.remove(begin);
}

void* context_function(const char* symbol) {
  struct Function {
    const char* name;
    void* address;
  };
  const Function functions[] = {
      {"cuDeviceGet", reinterpret_cast<void*>(&cuDeviceGet)},
      {"cuDevicePrimaryCtxRetain", reinterpret_cast<void*>(&cuDevicePrimaryCtxRetain)},
      {"cuDevicePrimaryCtxGetState", reinterpret_cast<void*>(&cuDevicePrimaryCtxGetState)},
      {"cuCtxPushCurrent", reinterpret_cast<void*>(&cuCtxPushCurrent)},
      {"cuCtxPopCurrent", reinterpret_cast<void*>(&cuCtxPopCurrent)},
      {"cuCtxGetCurrent", reinterpret_cast<void*>(&cuCtxGetCurrent)},
  };
  for (const Function& function : functions) {
    if (std::strcmp(function.name, symbol) == 0) return function.address;
  }
  return nullptr;
}

}  // namespace quantloom::emulator

using namespace quantloom::emulator;

// Found by name in the extension module too, where a test asks for the state of the contexts.
#pragma GCC visibility push(default)

extern "C" {

CUresult cuDeviceGet(CUdevice* device, int ordinal) {
  if (const CUresult status = driver_status(); status != CUDA_SUCCESS) return status;
  if (!known(ordinal)) return CUDA_ERROR_INVALID_DEVICE;
  *device = ordinal;
  return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
  if (const CUresult status = driver_status(); status != CUDA_SUCCESS) return status;
  if (!known(device)) return CUDA_ERROR_INVALID_DEVICE;
  device_at(device).active.store(true);
  *context = context_of(device);
  return CUDA_SUCCESS;
}

CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned* flags, int* active) {
  if (const CUresult status = driver_status(); status != CUDA_SUCCESS) return status;
  if (!known(device)) return CUDA_ERROR_INVALID_DEVICE;
  *flags = 0;
  *active = device_at(device).active.load() ? 1 : 0;
  return CUDA_SUCCESS;
}

CUresult cuCtxPushCurrent(CUcontext context) {
  if (const CUresult status = driver_status(); status != CUDA_SUCCESS) return status;
  if (context == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  pushed.push_back(context);
  return CUDA_SUCCESS;
}

CUresult cuCtxPopCurrent(CUcontext* context) {
  if (const CUresult status = driver_status(); status != CUDA_SUCCESS) return status;
  if (current_context() == nullptr) return CUDA_ERROR_INVALID_CONTEXT;
  *context = pushed.back();
  pushed.pop_back();
  return CUDA_SUCCESS;
}

CUresult cuCtxGetCurrent(CUcontext* context) {
  if (const CUresult status = driver_status(); status != CUDA_SUCCESS) return status;
  *context = current_context();
  return CUDA_SUCCESS;
}

}  // extern "C"

#pragma GCC visibility pop
