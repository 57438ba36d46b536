// Names and texts of the errors that the emulator or the library's own checks may answer.
#include <cuda_runtime_api.h>

namespace {

struct Entry {
  cudaError_t error;
  const char* name;
  const char* text;
};

#define QL_ERROR(error, text) {error, #error, text}
constexpr Entry entries[] = {
    QL_ERROR(cudaSuccess, "no error"),
    QL_ERROR(cudaErrorInvalidValue, "invalid argument"),
    QL_ERROR(cudaErrorMemoryAllocation, "out of memory"),
    QL_ERROR(cudaErrorInitializationError, "initialization error"),
    QL_ERROR(cudaErrorInvalidConfiguration, "invalid configuration argument"),
    QL_ERROR(cudaErrorInvalidSymbol, "invalid device symbol"),
    QL_ERROR(cudaErrorInsufficientDriver,
             "CUDA driver version is insufficient for CUDA runtime version"),
    QL_ERROR(cudaErrorMissingConfiguration, "__global__ function call is not configured"),
    QL_ERROR(cudaErrorInvalidDeviceFunction, "invalid device function"),
    QL_ERROR(cudaErrorNoDevice, "no CUDA-capable device is detected"),
    QL_ERROR(cudaErrorInvalidDevice, "invalid device ordinal"),
    QL_ERROR(cudaErrorInvalidKernelImage, "device kernel image is invalid"),
    QL_ERROR(cudaErrorNoKernelImageForDevice,
             "no kernel image is available for execution on the device"),
    QL_ERROR(cudaErrorECCUncorrectable, "uncorrectable ECC error encountered"),
    QL_ERROR(cudaErrorInvalidPtx, "a PTX JIT compilation failed"),
    QL_ERROR(cudaErrorNvlinkUncorrectable,
             "uncorrectable NVLink error detected during the execution"),
    QL_ERROR(cudaErrorOperatingSystem, "OS call failed or operation not supported on this OS"),
    QL_ERROR(cudaErrorInvalidResourceHandle, "invalid resource handle"),
    QL_ERROR(cudaErrorSymbolNotFound, "named symbol not found"),
    QL_ERROR(cudaErrorNotReady, "device not ready"),
    QL_ERROR(cudaErrorIllegalAddress, "an illegal memory access was encountered"),
    QL_ERROR(cudaErrorLaunchOutOfResources, "too many resources requested for launch"),
    QL_ERROR(cudaErrorLaunchTimeout, "the launch timed out and was terminated"),
    QL_ERROR(cudaErrorAssert, "device-side assert triggered"),
    QL_ERROR(cudaErrorHardwareStackError, "hardware stack error"),
    QL_ERROR(cudaErrorIllegalInstruction, "an illegal instruction was encountered"),
    QL_ERROR(cudaErrorMisalignedAddress, "misaligned address"),
    QL_ERROR(cudaErrorInvalidAddressSpace,
             "operation not supported on global/shared address space"),
    QL_ERROR(cudaErrorInvalidPc, "invalid program counter"),
    QL_ERROR(cudaErrorLaunchFailure, "unspecified launch failure"),
    QL_ERROR(cudaErrorCooperativeLaunchTooLarge, "too many blocks in cooperative launch"),
    QL_ERROR(cudaErrorNotSupported, "operation not supported"),
    QL_ERROR(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing"),
    QL_ERROR(cudaErrorStreamCaptureInvalidated,
             "operation failed due to a previous error during capture"),
    QL_ERROR(cudaErrorStreamCaptureUnmatched,
             "capture was not ended in the same stream as it began"),
    QL_ERROR(cudaErrorStreamCaptureUnjoined, "capturing stream has unjoined work"),
    QL_ERROR(cudaErrorStreamCaptureImplicit,
             "operation would make the legacy stream depend on a capturing blocking stream"),
    QL_ERROR(cudaErrorCapturedEvent,
             "operation not permitted on an event last recorded in a capturing stream"),
    QL_ERROR(cudaErrorStreamCaptureWrongThread,
             "attempt to terminate a thread-local capture sequence from another thread"),
    QL_ERROR(cudaErrorInvalidClusterSize, "invalid cluster size"),
    QL_ERROR(cudaErrorUnknown, "unknown error"),
};
#undef QL_ERROR

const Entry* find(cudaError_t error) {
  for (const Entry& entry : entries) {
    if (entry.error == error) return &entry;
  }
  return nullptr;
}

}  // namespace

extern "C" {

const char* cudaGetErrorName(cudaError_t error) {
  const Entry* entry = find(error);
  return entry != nullptr ? entry->name : "unrecognized error code";
}

const char* cudaGetErrorString(cudaError_t error) {
  const Entry* entry = find(error);
  return entry != nullptr ? entry->text : "unrecognized error code";
}

}  // extern "C"
