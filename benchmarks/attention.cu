// Checks attention against float64 on sampled heads, then times it in replayed graphs at the shape
// of Llama-3.1-8B: prefill in operations per second, causal ones counted once, beside the bf16 rate
// of cuBLAS; few tokens in bytes of cache per second, over caches that together do not fit the L2.
// Ends with 1 if a check failed. In the environment NO_CHECKS: times alone.
#include <cublas_v2.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <thread>
#include <vector>

#include "transformer/transformer.h"

namespace kernels = quantloom::kernels;
using kernels::CacheType;

namespace {

constexpr int heads = 32, kv_heads = 8, size = 128;
constexpr float scale = 0.088388f;
// Of the normalized mean square error. The scores of random int8 are large, so halves of q tell.
constexpr double bound_f16 = 1e-6, bound_q8_0 = 1e-5;

int failures = 0;

void check(cudaError_t status) {
  if (status == cudaSuccess) return;
  std::fprintf(stderr, "%s\n", cudaGetErrorString(status));
  std::exit(1);
}
void check(cublasStatus_t status) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  std::fprintf(stderr, "cuBLAS: status %d\n", static_cast<int>(status));
  std::exit(1);
}

// About normal, of variance 1.
__device__ float normal(std::int64_t i, unsigned seed) {
  unsigned state = static_cast<unsigned>(i) * 747796405u + seed * 2891336453u;
  unsigned sum = 0;
  for (int k = 0; k < 4; ++k) {
    state = state * 747796405u + 2891336453u;
    const unsigned word = ((state >> ((state >> 28) + 4)) ^ state) * 277803737u;
    sum += ((word >> 22) ^ word) >> 18;
  }
  return (static_cast<float>(sum) - 32766.0f) / 9459.0f;
}

template <class Value>
__global__ void fill(Value* out, std::int64_t count, unsigned seed, float factor) {
  const std::int64_t stride = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count;
       i += stride) {
    out[i] = static_cast<Value>(factor * normal(i, seed));
  }
}

template <class Value>
Value* random_values(std::int64_t count, unsigned seed, float factor) {
  Value* memory = nullptr;
  check(cudaMalloc(&memory, static_cast<std::size_t>(count) * sizeof(Value)));
  fill<<<1024, 256>>>(memory, count, seed, factor);
  check(cudaGetLastError());
  return memory;
}

template <class Value>
std::vector<Value> download(const Value* from, std::int64_t count) {
  std::vector<Value> values(static_cast<std::size_t>(count));
  check(cudaMemcpy(values.data(), from, values.size() * sizeof(Value), cudaMemcpyDeviceToHost));
  return values;
}

// Microseconds of one call, the median of five replays of a graph of `launches` calls. The pause
// lets the chip's clock recover from what ran before.
double time_calls(int launches, const std::function<void(int, cudaStream_t)>& call) {
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  cudaStream_t stream;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  call(0, stream);
  check(cudaStreamSynchronize(stream));
  cudaGraph_t graph;
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < launches; ++i) call(i, stream);
  check(cudaStreamEndCapture(stream, &graph));
  cudaGraphExec_t executable;
  check(cudaGraphInstantiate(&executable, graph, 0));
  cudaEvent_t start, stop;
  check(cudaEventCreate(&start));
  check(cudaEventCreate(&stop));
  std::vector<float> times;
  for (int run = 0; run < 6; ++run) {
    check(cudaEventRecord(start, stream));
    check(cudaGraphLaunch(executable, stream));
    check(cudaEventRecord(stop, stream));
    check(cudaEventSynchronize(stop));
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, start, stop));
    if (run > 0) times.push_back(milliseconds);
  }
  std::sort(times.begin(), times.end());
  check(cudaGraphExecDestroy(executable));
  check(cudaGraphDestroy(graph));
  check(cudaStreamDestroy(stream));
  return 1e3 * times[times.size() / 2] / launches;
}

struct Problem {
  CacheType type;
  int tokens;
  int past;
  bool invariant = false;

  std::int64_t end() const { return std::int64_t{past} + tokens; }
  double operations() const { return 4.0 * tokens * (past + (tokens + 1) / 2.0) * heads * size; }
  double bytes() const {
    return 2.0 * end() * kv_heads * size * (type == CacheType::f16 ? 2 : 1 + 2.0 / 32);
  }
};

class Buffers {
 public:
  explicit Buffers(const Problem& problem) : problem_(problem) {
    const std::int64_t values = problem.end() * kv_heads * size;
    copies_ =
        problem.tokens > 64 ? 2 : static_cast<int>(std::clamp(4e8 / problem.bytes(), 1.0, 16.0));
    for (int i = 0; i < copies_; ++i) {
      kernels::Cache cache{.type = problem.type,
                           .capacity = problem.end(),
                           .kv_heads = kv_heads,
                           .head_size = size,
                           .keys = nullptr,
                           .values = nullptr,
                           .key_scales = nullptr,
                           .value_scales = nullptr};
      if (problem.type == CacheType::f16) {
        cache.keys = keep(random_values<__half>(values, 4 * i + 1, 1.5f));
        cache.values = keep(random_values<__half>(values, 4 * i + 2, 1.0f));
      } else {
        cache.keys = keep(random_values<std::int8_t>(values, 4 * i + 1, 32.0f));
        cache.values = keep(random_values<std::int8_t>(values, 4 * i + 2, 32.0f));
        cache.key_scales = keep(random_values<__half>(values / 32, 4 * i + 3, 0.04f));
        cache.value_scales = keep(random_values<__half>(values / 32, 4 * i + 4, 0.03f));
      }
      caches_.push_back(cache);
    }
    const std::int64_t query = std::int64_t{problem.tokens} * heads * size;
    q_ = random_values<float>(query, 99, 1.5f);
    out_ = random_values<float>(query, 98, NAN);
    first_ = random_values<std::int32_t>(1, 0, 0);
    check(cudaMemcpy(first_, &problem.past, sizeof(int), cudaMemcpyHostToDevice));
    const auto workspace = kernels::attention_workspace_bytes(size);
    workspace_ = random_values<std::uint8_t>(workspace, 0, 0);
    for (void* memory :
         {static_cast<void*>(q_), static_cast<void*>(out_), static_cast<void*>(first_), workspace_})
      keep(memory);
    check(cudaDeviceSynchronize());
  }
  Buffers(const Buffers&) = delete;
  Buffers& operator=(const Buffers&) = delete;
  ~Buffers() {
    for (void* memory : memory_) cudaFree(memory);
  }

  int copies() const { return copies_; }
  void run(int i, cudaStream_t stream) {
    check(kernels::attention({.q = q_,
                              .out = out_,
                              .tokens = problem_.tokens,
                              .heads = heads,
                              .scale = scale,
                              .soft_cap = 0,
                              .window = 0,
                              .first = first_,
                              .bound = problem_.end(),
                              .cache = caches_[i % copies_],
                              .workspace = workspace_,
                              .invariant = problem_.invariant},
                             stream));
  }

  // Of eight (token, head) pairs against float64 over the cache as it stands.
  double error() {
    run(0, nullptr);
    check(cudaDeviceSynchronize());
    double difference = 0, magnitude = 0;
    for (int sample = 0; sample < 8; ++sample) {
      const int token = (problem_.tokens - 1) * sample / 7;
      const int head = sample * 5 % heads;
      const std::vector<double> keys = plane(head, true), values = plane(head, false);
      const std::int64_t at = (std::int64_t{token} * heads + head) * size;
      const std::vector<float> q = download(q_ + at, size), out = download(out_ + at, size);
      const int seen = problem_.past + token + 1;
      std::vector<double> scores(static_cast<std::size_t>(seen));
      double top = -INFINITY, mass = 0;
      for (int p = 0; p < seen; ++p) {
        double score = 0;
        for (int d = 0; d < size; ++d) score += q[d] * keys[std::size_t(p) * size + d];
        scores[p] = score * scale;
        top = std::max(top, scores[p]);
      }
      std::vector<double> wanted(size);
      for (int p = 0; p < seen; ++p) {
        const double weight = std::exp(scores[p] - top);
        mass += weight;
        for (int d = 0; d < size; ++d) wanted[d] += weight * values[std::size_t(p) * size + d];
      }
      for (int d = 0; d < size; ++d) {
        const double target = wanted[d] / mass;
        difference += (out[d] - target) * (out[d] - target);
        magnitude += target * target;
      }
    }
    return difference / magnitude;
  }

 private:
  template <class Pointer>
  Pointer keep(Pointer memory) {
    memory_.push_back(memory);
    return memory;
  }
  std::vector<double> plane(int head, bool is_key) const {
    const kernels::Cache& cache = caches_.front();
    const std::int64_t begin = head / (heads / kv_heads) * problem_.end() * size;
    const std::int64_t count = problem_.end() * size;
    const void* from = is_key ? cache.keys : cache.values;
    std::vector<double> decoded;
    if (cache.type == CacheType::f16) {
      for (const __half x : download(static_cast<const __half*>(from) + begin, count)) {
        decoded.push_back(__half2float(x));
      }
      return decoded;
    }
    const auto* scales = static_cast<const __half*>(is_key ? cache.key_scales : cache.value_scales);
    const auto steps = download(scales + begin / 32, count / 32);
    for (const std::int8_t x : download(static_cast<const std::int8_t*>(from) + begin, count)) {
      decoded.push_back(x * static_cast<double>(__half2float(steps[decoded.size() / 32])));
    }
    return decoded;
  }

  Problem problem_;
  int copies_;
  std::vector<kernels::Cache> caches_;
  float *q_, *out_;
  std::int32_t* first_;
  void* workspace_;
  std::vector<void*> memory_;
};

// TFLOP/s of 8192 x 8192 x 8192.
double bf16_rate() {
  constexpr int n = 8192;
  constexpr std::int64_t count = std::int64_t{n} * n;
  auto* a = random_values<__nv_bfloat16>(count, 1, 1.0f);
  auto* b = random_values<__nv_bfloat16>(count, 2, 1.0f);
  auto* c = random_values<__nv_bfloat16>(count, 3, 1.0f);
  constexpr std::size_t workspace_bytes = std::size_t{64} << 20;
  void* workspace = random_values<std::uint8_t>(workspace_bytes, 0, 0);
  cublasHandle_t handle;
  check(cublasCreate(&handle));
  const float one = 1, zero = 0;
  const double us = time_calls(8, [&](int, cudaStream_t stream) {
    check(cublasSetStream(handle, stream));
    check(cublasSetWorkspace(handle, workspace, workspace_bytes));
    check(cublasGemmEx(handle, CUBLAS_OP_T, CUBLAS_OP_N, n, n, n, &one, a, CUDA_R_16BF, n, b,
                       CUDA_R_16BF, n, &zero, c, CUDA_R_16BF, n, CUBLAS_COMPUTE_32F,
                       CUBLAS_GEMM_DEFAULT));
  });
  check(cublasDestroy(handle));
  for (void* memory :
       {static_cast<void*>(a), static_cast<void*>(b), static_cast<void*>(c), workspace}) {
    check(cudaFree(memory));
  }
  return 2.0 * n * n * n / us * 1e-6;
}

void report(const Problem& problem, double rate) {
  Buffers buffers(problem);
  const bool checks = std::getenv("NO_CHECKS") == nullptr;
  const double error = checks ? buffers.error() : 0;
  if (not(error <= (problem.type == CacheType::f16 ? bound_f16 : bound_q8_0))) ++failures;
  const int launches = std::max(
      buffers.copies(), static_cast<int>(std::clamp(5e12 / problem.operations(), 4.0, 48.0)));
  const double us =
      time_calls(launches, [&](int i, cudaStream_t stream) { buffers.run(i, stream); });
  const double tflops = problem.operations() / us * 1e-6;
  std::printf("%-4s %6d tokens after %6d%s %10.2f us %6.0f GB/s %6.1f TFLOP/s %5.2f of cuBLAS",
              problem.type == CacheType::f16 ? "F16" : "Q8_0", problem.tokens, problem.past,
              problem.invariant ? ", invariant" : "           ", us, problem.bytes() / us * 1e-3,
              tflops, tflops / rate);
  if (checks) std::printf("  error %.1e", error);
  std::printf("\n");
  std::fflush(stdout);
}

}  // namespace

int main() {
  using enum CacheType;
  const double rate = bf16_rate();
  std::printf("cuBLAS bf16 %.0f TFLOP/s\n", rate);
  for (const CacheType type : {f16, q8_0}) {
    for (const int tokens : {64, 512, 2048, 8192, 32768}) report({type, tokens, 0}, rate);
    for (const int tokens : {512, 2048}) report({type, tokens, 8192 - tokens}, rate);
    for (const int past : {127, 511, 4095, 32767, 131071}) report({type, 1, past}, rate);
    for (const int tokens : {2, 4, 8, 16, 64}) report({type, tokens, 32768 - tokens}, rate);
  }
  report({f16, 1, 32767, true}, rate);
  report({f16, 8192, 0, true}, rate);
  std::printf("cuBLAS bf16 again, warm: %.0f TFLOP/s\n", bf16_rate());
  if (failures > 0) std::printf("%d checks failed\n", failures);
  return failures > 0;
}
