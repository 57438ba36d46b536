// Two emulated GPUs: which context a call makes and works in, and what belongs to one of them.
#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdlib>
#include <thread>

#include "in_a_child.h"

namespace {

__global__ void store(int* out, int value) { *out = value; }
__global__ void loads(const int* from, int* to) { *to = *from; }
__global__ void fills_shared(int* out) {
  extern __shared__ int room[];
  room[threadIdx.x] = 5;
  out[threadIdx.x] = room[threadIdx.x];
}

constexpr int above_default = 49 << 10;

int active(int device) {
  unsigned flags = 0;
  int on = -1;
  CHECK(cuDevicePrimaryCtxGetState(device, &flags, &on) == CUDA_SUCCESS);
  return on;
}

int current() {
  int device = -1;
  CHECK(cudaGetDevice(&device) == cudaSuccess);
  return device;
}

CUcontext context() {
  CUcontext now = nullptr;
  CHECK(cuCtxGetCurrent(&now) == CUDA_SUCCESS);
  return now;
}

// A context of the driver's, current for a scope.
struct Pushed {
  explicit Pushed(int device) {
    CHECK(cuDevicePrimaryCtxRetain(&ours, device) == CUDA_SUCCESS);
    CHECK(cuCtxPushCurrent(ours) == CUDA_SUCCESS);
  }
  ~Pushed() {
    CUcontext popped = nullptr;
    CHECK(cuCtxPopCurrent(&popped) == CUDA_SUCCESS);
    CHECK(popped == ours);
  }
  CUcontext ours = nullptr;
};

int* allocate(int device) {
  const Pushed on(device);
  int* memory = nullptr;
  CHECK(cudaMalloc(&memory, sizeof(int)) == cudaSuccess);
  return memory;
}

cudaStream_t make_stream(int device) {
  const Pushed on(device);
  cudaStream_t stream = nullptr;
  CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
  return stream;
}

TEST(information_makes_no_context) {
  in_a_child([] {
    int count = 0, value = 0;
    cudaDeviceProp properties;
    CHECK(cudaGetDeviceCount(&count) == cudaSuccess && count == 2);
    CHECK(cudaGetDeviceProperties(&properties, 1) == cudaSuccess);
    CHECK(cudaGetDeviceProperties(&properties, 2) == cudaErrorInvalidDevice);
    CHECK(cudaDeviceGetAttribute(&value, cudaDevAttrWarpSize, 1) == cudaSuccess);
    CHECK(cudaSetDevice(2) == cudaErrorInvalidDevice);
    CHECK(current() == 0);
    CHECK(cudaGetLastError() == cudaErrorInvalidDevice);
    CHECK(active(0) == 0 && active(1) == 0);
  });
}

TEST(work_where_no_context_is_current_makes_that_of_the_threads_device) {
  in_a_child([] {
    const cudaStream_t stream = make_stream(1);
    CHECK(active(0) == 0 && active(1) == 1);
    CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
    CHECK(active(0) == 1);
    CHECK(context() != nullptr);
    CHECK(current() == 0);
  });
}

TEST(a_device_that_was_chosen_is_current_with_its_context) {
  in_a_child([] {
    CHECK(cudaSetDevice(1) == cudaSuccess);
    CHECK(active(0) == 0 && active(1) == 1);
    CHECK(current() == 1);
    std::thread([] { CHECK(current() == 0); }).join();
    CHECK(cudaSetDevice(0) == cudaSuccess);
    CHECK(active(0) == 1);
  });
}

TEST(a_context_is_current_until_it_is_popped) {
  in_a_child([] {
    {
      const Pushed on(1);
      CHECK(current() == 1);
      void* memory = nullptr;
      CHECK(cudaMalloc(&memory, 8) == cudaSuccess);
      CHECK(cudaFree(memory) == cudaSuccess);
    }
    CHECK(context() == nullptr);
    CHECK(current() == 0);
    CHECK(active(0) == 0);
    const Pushed on(0);
    {
      const Pushed other(1);
      CHECK(context() == other.ours);
    }
    CHECK(context() == on.ours);
  });
  in_a_child([] {
    CUcontext none = nullptr;
    CHECK(cuCtxPopCurrent(&none) == CUDA_ERROR_INVALID_CONTEXT);
  });
}

TEST(memory_is_counted_where_it_lies) {
  in_a_child([] {
    std::size_t before[2], free = 0, total = 0;
    for (int i = 0; i < 2; ++i) {
      const Pushed on(i);
      CHECK(cudaMemGetInfo(&before[i], &total) == cudaSuccess);
    }
    int* memory = allocate(1);
    {
      const Pushed on(0);
      CHECK(cudaMemGetInfo(&free, &total) == cudaSuccess && free == before[0]);
    }
    const Pushed on(1);
    CHECK(cudaMemGetInfo(&free, &total) == cudaSuccess && free < before[1]);
    CHECK(cudaFree(memory) == cudaSuccess);
    CHECK(cudaMemGetInfo(&free, &total) == cudaSuccess && free == before[1]);
  });
}

TEST(kernels_reach_their_own_memory_and_the_hosts) {
  in_a_child([] {
    int *first = allocate(0), *second = allocate(1), *pinned = nullptr, value = 0;
    const Pushed on(1);
    CHECK(cudaHostAlloc(&pinned, sizeof(int), cudaHostAllocPortable) == cudaSuccess);
    store<<<1, 1>>>(second, 7);
    loads<<<1, 1>>>(second, pinned);
    CHECK(cudaDeviceSynchronize() == cudaSuccess);
    CHECK(*pinned == 7);
    CHECK(cudaMemcpyPeerAsync(first, 0, second, 1, sizeof(int), nullptr) == cudaSuccess);
    CHECK(cudaMemcpy(&value, first, sizeof value, cudaMemcpyDeviceToHost) == cudaSuccess);
    CHECK(value == 7);
    CHECK(cudaMemcpyPeerAsync(first, 1, second, 0, sizeof(int), nullptr) == cudaErrorInvalidValue);
    CHECK(cudaMemsetAsync(first, 0, sizeof(int), nullptr) == cudaErrorInvalidValue);
  });
}

TEST(another_devices_memory_faults_and_only_the_device_that_read_it) {
  in_a_child([] {
    int *first = allocate(0), *second = allocate(1);
    const Pushed here(0);
    {
      const Pushed on(1);
      loads<<<1, 1>>>(first, second);
      CHECK(cudaDeviceSynchronize() == cudaErrorIllegalAddress);
      CHECK(cudaGetLastError() == cudaErrorIllegalAddress);
    }
    store<<<1, 1>>>(first, 3);
    CHECK(cudaDeviceSynchronize() == cudaSuccess);
    const Pushed on(1);
    CHECK(cudaDeviceSynchronize() == cudaErrorIllegalAddress);
  });
}

TEST(a_streams_work_is_given_where_its_device_is_current) {
  in_a_child([] {
    int* memory = allocate(1);
    const cudaStream_t stream = make_stream(1);
    const Pushed on(0);
    store<<<1, 1, 0, stream>>>(memory, 7);
    CHECK(cudaGetLastError() == cudaErrorInvalidResourceHandle);
    int value = 1;
    CHECK(cudaMemcpyAsync(memory, &value, sizeof value, cudaMemcpyHostToDevice, stream) ==
          cudaSuccess);
    cudaEvent_t event = nullptr;
    CHECK(cudaEventCreateWithFlags(&event, cudaEventDisableTiming) == cudaSuccess);
    CHECK(cudaEventRecord(event, stream) == cudaErrorInvalidResourceHandle);
    CHECK(cudaEventRecord(event, nullptr) == cudaSuccess);
    CHECK(cudaStreamWaitEvent(stream, event, 0) == cudaSuccess);
    CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
  });
}

TEST(a_graph_runs_on_its_device) {
  in_a_child([] {
    int* memory = allocate(1);
    const cudaStream_t streams[2] = {make_stream(0), make_stream(1)};
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t executable = nullptr;
    const Pushed on(1);
    CHECK(cudaStreamBeginCapture(streams[1], cudaStreamCaptureModeThreadLocal) == cudaSuccess);
    store<<<1, 1, 0, streams[1]>>>(memory, 9);
    {
      // The other device has nothing that captures.
      std::thread([] {
        const Pushed other(0);
        CHECK(cudaDeviceSynchronize() == cudaSuccess);
      }).join();
    }
    CHECK(cudaStreamEndCapture(streams[1], &graph) == cudaSuccess);
    CHECK(cudaGraphInstantiate(&executable, graph, 0) == cudaSuccess);
    CHECK(cudaGraphLaunch(executable, streams[0]) == cudaErrorInvalidResourceHandle);
    CHECK(cudaGraphLaunch(executable, streams[1]) == cudaSuccess);
    int value = 0;
    CHECK(cudaMemcpy(&value, memory, sizeof value, cudaMemcpyDeviceToHost) == cudaSuccess);
    CHECK(value == 9);
    const Pushed other(0);
    CHECK(cudaGraphLaunch(executable, streams[0]) == cudaErrorInvalidResourceHandle);
  });
}

TEST(a_kernels_limit_is_raised_on_each_device) {
  in_a_child([] {
    int *first = allocate(0), *second = allocate(1);
    {
      const Pushed on(0);
      CHECK(cudaFuncSetAttribute(fills_shared, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                 above_default) == cudaSuccess);
      fills_shared<<<1, 1, above_default>>>(first);
      CHECK(cudaGetLastError() == cudaSuccess);
    }
    const Pushed on(1);
    fills_shared<<<1, 1, above_default>>>(second);
    CHECK(cudaGetLastError() == cudaErrorInvalidValue);
  });
}

TEST(visible_devices_are_counted) {
  const auto expect = [](const char* visible, int wanted) {
    in_a_child([=] {
      setenv("CUDA_VISIBLE_DEVICES", visible, 1);
      int count = 0;
      CHECK(cudaGetDeviceCount(&count) == (wanted > 0 ? cudaSuccess : cudaErrorNoDevice));
      CHECK(count == wanted);
    });
  };
  expect("0,1", 2);
  expect("1", 1);
  expect("1,-1,0", 1);
  expect("", 0);
  expect("-1", 0);
  expect("2", 0);
}

}  // namespace

int main() {
  setenv("QUANTLOOM_EMULATOR_DEVICES", "2", 1);
  unsetenv("CUDA_VISIBLE_DEVICES");
  return quantloom::check::run_all();
}
