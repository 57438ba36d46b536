// The emulator's stand-in for the CUDA runtime: what it answers where a GPU would refuse, fault or
// record.
#include <cuda_runtime.h>

#include <string>
#include <vector>

#include "in_a_child.h"

namespace {

__device__ int calls;

__global__ void add(int* values, int count, int what) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) values[i] += what;
}
__global__ void count_calls(int* out) { *out = atomicAdd(&calls, 1); }
__global__ void __launch_bounds__(64) small_blocks(int* out) { *out = blockDim.x; }
__global__ void fills_shared(int* out) {
  extern __shared__ int room[];
  room[threadIdx.x] = threadIdx.x;
  __syncthreads();
  out[threadIdx.x] = room[blockDim.x - 1 - threadIdx.x];
}
__global__ void loads(const int* from, int* to) { *to = *from; }
__global__ void traps() { __trap(); }
// Every block waits for all: it ends only where all are resident.
__global__ void meets(unsigned* arrived, int* out) {
  if (threadIdx.x == 0) {
    atomicAdd(arrived, 1);
    while (*static_cast<volatile unsigned*>(arrived) < gridDim.x) {
    }
  }
  __syncthreads();
  if (threadIdx.x == 0) out[blockIdx.x] = 1;
}

// Device memory of a test.
struct Ints {
  explicit Ints(const std::vector<int>& values) : count(values.size()) {
    CHECK(cudaMalloc(&memory, count * sizeof(int)) == cudaSuccess);
    CHECK(cudaMemcpy(memory, values.data(), count * sizeof(int), cudaMemcpyHostToDevice) ==
          cudaSuccess);
  }
  ~Ints() { cudaFree(memory); }
  std::vector<int> read() const {
    std::vector<int> values(count);
    CHECK(cudaMemcpy(values.data(), memory, count * sizeof(int), cudaMemcpyDeviceToHost) ==
          cudaSuccess);
    return values;
  }
  int* memory = nullptr;
  std::size_t count;
};

void expect_fault(cudaError_t error) {
  CHECK(cudaGetLastError() == cudaSuccess);
  CHECK(cudaDeviceSynchronize() == error);
  CHECK(cudaGetLastError() == error);
  void* memory = nullptr;
  CHECK(cudaMalloc(&memory, 4) == error);
  CHECK(cudaGetLastError() == error);
}

TEST(an_address_behind_an_allocation_faults) {
  in_a_child([] {
    Ints one({1});
    loads<<<1, 1>>>(one.memory + 1, one.memory);
    expect_fault(cudaErrorIllegalAddress);
  });
}

TEST(a_misaligned_address_faults) {
  in_a_child([] {
    Ints two({1, 2});
    loads<<<1, 1>>>(reinterpret_cast<int*>(reinterpret_cast<char*>(two.memory) + 2), two.memory);
    expect_fault(cudaErrorMisalignedAddress);
  });
}

TEST(freed_memory_faults) {
  in_a_child([] {
    int* freed = nullptr;
    cudaMalloc(&freed, 4);
    cudaFree(freed);
    loads<<<1, 1>>>(freed, freed);
    expect_fault(cudaErrorIllegalAddress);
  });
}

TEST(a_trap_is_a_launch_failure) {
  in_a_child([] {
    traps<<<1, 1>>>();
    expect_fault(cudaErrorLaunchFailure);
  });
}

TEST(a_forked_child_cannot_use_the_device_of_its_parent) {
  in_a_child([] {
    int count = 0;
    CHECK(cudaGetDeviceCount(&count) == cudaSuccess && count == 1);
    in_a_child([] {
      int again = 0;
      CHECK(cudaGetDeviceCount(&again) == cudaErrorInitializationError);
    });
  });
}

TEST(kernels_read_and_write) {
  Ints values({1, 2, 3, 4, 5});
  add<<<2, 3>>>(values.memory, 5, 10);
  CHECK(cudaGetLastError() == cudaSuccess);
  CHECK(values.read() == std::vector<int>({11, 12, 13, 14, 15}));
}

TEST(variables_of_a_module_keep_their_value) {
  Ints out({-1});
  count_calls<<<1, 1>>>(out.memory);
  CHECK(out.read()[0] == 0);
  count_calls<<<1, 1>>>(out.memory);
  CHECK(out.read()[0] == 1);
}

TEST(launches_that_a_gpu_refuses) {
  Ints out({0});
  add<<<1, 1025>>>(out.memory, 1, 1);
  CHECK(cudaGetLastError() == cudaErrorInvalidConfiguration);
  add<<<0, 32>>>(out.memory, 1, 1);
  CHECK(cudaGetLastError() == cudaErrorInvalidConfiguration);
  small_blocks<<<1, 65>>>(out.memory);
  CHECK(cudaGetLastError() == cudaErrorInvalidValue);
  fills_shared<<<1, 1, 49 << 10>>>(out.memory);
  CHECK(cudaGetLastError() == cudaErrorInvalidValue);
  CHECK(cudaFuncSetAttribute(fills_shared, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             228 << 10) == cudaErrorInvalidValue);
  CHECK(cudaGetLastError() == cudaErrorInvalidValue);
  CHECK(cudaFuncSetAttribute(fills_shared, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             227 << 10) == cudaSuccess);
  fills_shared<<<1, 1, 227 << 10>>>(out.memory);
  CHECK(cudaGetLastError() == cudaSuccess);
  CHECK(out.read()[0] == 0);
}

TEST(dynamic_shared_memory) {
  Ints out{std::vector<int>(64)};
  fills_shared<<<1, 64, 256>>>(out.memory);
  const std::vector<int> found = out.read();
  for (int i = 0; i < 64; ++i) CHECK(found[i] == 63 - i);
}

TEST(blocks_of_a_cooperative_launch_run_side_by_side) {
  int processors = 0;
  CHECK(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, 0) == cudaSuccess);
  Ints out{std::vector<int>(processors)}, arrived({0});
  CHECK(cudaFuncSetAttribute(meets, cudaFuncAttributeMaxDynamicSharedMemorySize, 120 << 10) ==
        cudaSuccess);
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeCooperative;
  attribute.val.cooperative = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(processors + 1);
  config.blockDim = dim3(64);
  config.dynamicSmemBytes = 120 << 10;
  config.attrs = &attribute;
  config.numAttrs = 1;
  auto* counter = reinterpret_cast<unsigned*>(arrived.memory);
  CHECK(cudaLaunchKernelEx(&config, meets, counter, out.memory) ==
        cudaErrorCooperativeLaunchTooLarge);
  CHECK(cudaGetLastError() == cudaErrorCooperativeLaunchTooLarge);
  config.gridDim = dim3(processors);
  CHECK(cudaLaunchKernelEx(&config, meets, counter, out.memory) == cudaSuccess);
  CHECK(out.read() == std::vector<int>(processors, 1));
}

TEST(a_graph_keeps_the_parameters_of_its_capture) {
  Ints values({0, 0});
  cudaStream_t stream = nullptr;
  CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) == cudaSuccess);
  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
  int what = 3;
  add<<<1, 2, 0, stream>>>(values.memory, 2, what);
  what = 5;
  CHECK(cudaMemsetAsync(values.memory + 1, 0, 4, stream) == cudaSuccess);
  cudaGraph_t graph = nullptr;
  CHECK(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
  CHECK(values.read() == std::vector<int>({0, 0}));
  cudaGraphExec_t executable = nullptr;
  CHECK(cudaGraphInstantiate(&executable, graph, 0) == cudaSuccess);
  CHECK(cudaGraphDestroy(graph) == cudaSuccess);
  for (int i = 0; i < 2; ++i) CHECK(cudaGraphLaunch(executable, stream) == cudaSuccess);
  CHECK(cudaStreamSynchronize(stream) == cudaSuccess);
  CHECK(values.read() == std::vector<int>({6, 0}));
  CHECK(cudaGraphExecDestroy(executable) == cudaSuccess);
  CHECK(cudaStreamDestroy(stream) == cudaSuccess);
  CHECK(cudaStreamSynchronize(stream) == cudaErrorInvalidResourceHandle);
  cudaGetLastError();
}

TEST(what_waits_ends_a_capture) {
  cudaStream_t stream = nullptr;
  cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
  void* memory = nullptr;
  CHECK(cudaMalloc(&memory, 4) == cudaErrorStreamCaptureUnsupported);
  cudaGraph_t graph = nullptr;
  CHECK(cudaStreamEndCapture(stream, &graph) == cudaErrorStreamCaptureInvalidated);
  CHECK(graph == nullptr);
  cudaGetLastError();
  CHECK(cudaMalloc(&memory, 4) == cudaSuccess);
  CHECK(cudaFree(memory) == cudaSuccess);
  CHECK(cudaStreamDestroy(stream) == cudaSuccess);
}

TEST(memory_is_counted_and_ends) {
  std::size_t before = 0, after = 0, total = 0;
  CHECK(cudaMemGetInfo(&before, &total) == cudaSuccess);
  void *memory = nullptr, *more = nullptr;
  CHECK(cudaMalloc(&memory, 1 << 20) == cudaSuccess);
  CHECK(cudaMemGetInfo(&after, &total) == cudaSuccess);
  CHECK(before - after == 1 << 20);
  CHECK(cudaMalloc(&more, total) == cudaErrorMemoryAllocation);
  CHECK(cudaGetLastError() == cudaErrorMemoryAllocation);
  CHECK(cudaFree(memory) == cudaSuccess);
  CHECK(cudaFree(memory) == cudaErrorInvalidValue);
  cudaGetLastError();
}

}  // namespace

int main() { return quantloom::check::run_all(); }
