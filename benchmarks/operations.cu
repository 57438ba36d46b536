// Times the kernels around the matrix products at the shapes of Llama-3.1-8B, each in a replayed
// graph of many launches over fresh memory, with the bytes that it must move. Attention is timed by
// benchmark_attention.
//   benchmark_operations            the table
//   benchmark_operations --small    each kernel at small shapes, once, for compute-sanitizer
#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <vector>

#include "dequantize/dequantize.h"
#include "embed_planes/embed_planes.h"
#include "matmul/matmul.h"
#include "raw_matmul/raw_matmul.h"
#include "sample/sample.h"
#include "transformer/transformer.h"

namespace kernels = quantloom::kernels;
namespace ops = quantloom::ops;

namespace {

bool small = false;

void check(cudaError_t status) {
  if (status == cudaSuccess) return;
  std::fprintf(stderr, "%s\n", cudaGetErrorString(status));
  std::exit(1);
}

__global__ void fill_normal(float* out, std::int64_t count, unsigned seed) {
  const std::int64_t stride = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < count;
       i += stride) {
    unsigned sum = 0;
    unsigned state = static_cast<unsigned>(i) * 747796405u + seed;
    for (int k = 0; k < 4; ++k) {
      state = state * 747796405u + 2891336453u;
      sum += state >> 18;
    }
    out[i] = (static_cast<float>(sum) - 32766.0f) / 9459.0f;
  }
}

// Halves of moderate size from any bits: the exponents are set to those of 0.5 to 1.
__global__ void fill_halves(unsigned* out, std::int64_t words) {
  const std::int64_t stride = std::int64_t{gridDim.x} * blockDim.x;
  for (std::int64_t i = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < words;
       i += stride) {
    unsigned state = static_cast<unsigned>(i) * 747796405u + 12345u;
    state ^= state >> 15;
    out[i] = (state * 2246822519u & 0x83ff83ffu) | 0x38003800u;
  }
}

void* device_bytes(std::int64_t bytes) {
  void* memory = nullptr;
  check(cudaMalloc(&memory, static_cast<std::size_t>(bytes)));
  return memory;
}

float* normal(std::int64_t count, unsigned seed) {
  auto* memory = static_cast<float*>(device_bytes(count * 4));
  fill_normal<<<1024, 256>>>(memory, count, seed);
  return memory;
}

void* halves(std::int64_t count) {
  auto* memory = static_cast<unsigned*>(device_bytes(count * 2));
  fill_halves<<<4096, 256>>>(memory, count / 2);
  return memory;
}

template <class Value>
Value* upload(const Value& value) {
  auto* memory = static_cast<Value*>(device_bytes(sizeof(Value)));
  check(cudaMemcpy(memory, &value, sizeof(Value), cudaMemcpyHostToDevice));
  return memory;
}

// call(i) launches; i counts the launches of one graph, so that they may take different memory.
// What is run at small shapes alone has 0 bytes and 1 launch.
void report(const char* name, double bytes, int launches,
            const std::function<void(int, cudaStream_t)>& call) {
  cudaStream_t stream;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  call(0, stream);
  check(cudaStreamSynchronize(stream));
  if (small) {
    std::printf("%s\n", name);
    check(cudaStreamDestroy(stream));
    return;
  }
  cudaGraph_t graph;
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < launches; ++i) call(i, stream);
  check(cudaStreamEndCapture(stream, &graph));
  cudaGraphExec_t executable;
  check(cudaGraphInstantiate(&executable, graph, 0));
  cudaEvent_t start, stop;
  check(cudaEventCreate(&start));
  check(cudaEventCreate(&stop));
  float best = 1e30f;
  for (int run = 0; run < 5; ++run) {
    check(cudaEventRecord(start, stream));
    check(cudaGraphLaunch(executable, stream));
    check(cudaEventRecord(stop, stream));
    check(cudaEventSynchronize(stop));
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, start, stop));
    if (run > 0 && milliseconds < best) best = milliseconds;
  }
  const double us = best * 1e3 / launches;
  std::printf("%-44s %9.2f us %7.0f GB/s\n", name, us, bytes / us * 1e-3);
  check(cudaGraphExecDestroy(executable));
  check(cudaGraphDestroy(graph));
  check(cudaStreamDestroy(stream));
}

constexpr int heads = 32, kv_heads = 8, size = 128, width = 4096, layers = 8;

struct Layer {
  kernels::Cache cache;
};

std::vector<Layer> make_cache(kernels::CacheType type, std::int64_t capacity) {
  std::vector<Layer> made(layers);
  const std::int64_t values = capacity * kv_heads * size;
  for (Layer& layer : made) {
    layer.cache = {.type = type, .capacity = capacity, .kv_heads = kv_heads, .head_size = size};
    // As int8 also any bits, as float32 any pair of halves.
    const std::int64_t words = type == kernels::CacheType::f32 ? 2 * values : values;
    layer.cache.keys = halves(words);
    layer.cache.values = halves(words);
    layer.cache.key_scales = halves(values / 32);
    layer.cache.value_scales = halves(values / 32);
  }
  return made;
}

void free_cache(const std::vector<Layer>& cache) {
  for (const Layer& layer : cache) {
    for (void* memory :
         {layer.cache.keys, layer.cache.values, layer.cache.key_scales, layer.cache.value_scales}) {
      check(cudaFree(memory));
    }
  }
}

void run_attention(kernels::CacheType type, const char* type_name, int tokens, int past) {
  const std::int64_t end = past + tokens;
  const std::vector<Layer> cache = make_cache(type, end);
  float* q = normal(std::int64_t{tokens} * heads * size, 3);
  float* out = normal(std::int64_t{tokens} * heads * size, 4);
  const std::int64_t bytes = kernels::attention_workspace_bytes(size);
  void* workspace = device_bytes(bytes);
  check(cudaMemset(workspace, 0, static_cast<std::size_t>(bytes)));
  const std::int32_t* first = upload(std::int32_t{past});
  char name[80];
  std::snprintf(name, sizeof name, "attention %s, %d tokens after %d", type_name, tokens, past);
  report(name, 0, 1, [&](int, cudaStream_t stream) {
    check(kernels::attention({.q = q,
                              .out = out,
                              .tokens = tokens,
                              .heads = heads,
                              .scale = 0.088f,
                              .soft_cap = 0,
                              .window = 0,
                              .first = first,
                              .bound = end,
                              .cache = cache.front().cache,
                              .workspace = workspace},
                             stream));
  });
  free_cache(cache);
}

void time_norm(int rows) {
  float* x = normal(std::int64_t{rows} * width, 1);
  float* weight = normal(width, 2);
  float* out = normal(std::int64_t{rows} * width, 3);
  char name[80];
  std::snprintf(name, sizeof name, "rms_norm, %d rows of %d", rows, width);
  report(name, 8.0 * rows * width, 64, [&](int, cudaStream_t stream) {
    check(kernels::rms_norm(
        {.x = x, .weight = weight, .epsilon = 1e-5f, .rows = rows, .width = width, .out = out},
        stream));
  });
}

void time_rope(int tokens) {
  const std::vector<Layer> cache = make_cache(kernels::CacheType::f16, 4096);
  float* q = normal(std::int64_t{tokens} * heads * size, 1);
  float* k = normal(std::int64_t{tokens} * kv_heads * size, 2);
  float* table = normal(4096 * size, 5);
  const std::int32_t* first = upload(std::int32_t{100});
  char name[80];
  std::snprintf(name, sizeof name, "rope_store, %d tokens", tokens);
  report(name, tokens * size * (8.0 * heads + (12.0 + 4) * kv_heads), 64,
         [&](int i, cudaStream_t stream) {
           check(kernels::rope_store({.q = q,
                                      .k = k,
                                      .v = k,
                                      .tokens = tokens,
                                      .heads = heads,
                                      .q_norm = nullptr,
                                      .k_norm = nullptr,
                                      .q_epsilon = 0,
                                      .k_epsilon = 0,
                                      .table = table,
                                      .dimensions = size,
                                      .interleaved = true,
                                      .first = first,
                                      .cache = cache[i % layers].cache},
                                     stream));
         });
  free_cache(cache);
}

void time_sample(const char* name, const ops::SamplerParameters& parameters,
                 int log_probabilities) {
  const std::int64_t vocabulary = small ? 1003 : 128256;
  float* logits = normal(vocabulary, 7);
  const std::int64_t bytes = kernels::sample_workspace_bytes(vocabulary);
  void* workspace = device_bytes(bytes);
  check(cudaMemset(workspace, 0, static_cast<std::size_t>(bytes)));
  auto* history = static_cast<std::int32_t*>(device_bytes(4 * 4096));
  check(cudaMemset(history, 0, 4 * 4096));
  const ops::SamplerParameters* on_device = upload(parameters);
  std::int32_t* first = upload(std::int32_t{0});
  std::int32_t* token = upload(std::int32_t{0});
  ops::Choice* results = nullptr;
  check(cudaMallocHost(&results, 16 * sizeof(ops::Choice)));
  report(name, 4.0 * vocabulary, 64, [&](int, cudaStream_t stream) {
    check(kernels::sample({.logits = logits,
                           .vocabulary = vocabulary,
                           .parameters = on_device,
                           .greedy = parameters.temperature == 0,
                           .top_log_probabilities = log_probabilities,
                           .first = first,
                           .count = 1,
                           .history = history,
                           .token = token,
                           .results = results,
                           .result_slots = 16},
                          workspace, stream));
  });
}

// What the table leaves out: kernels that a model's step spends no time in, or that are timed
// elsewhere.
void run_others() {
  constexpr std::int64_t rows = 37, columns = 768, tokens = 5;
  constexpr auto format = quantloom::formats::Format::q4_k;
  const std::int64_t blocks_bytes = rows * columns / 256 * 144;
  void* blocks = halves(blocks_bytes / 2);
  const std::size_t bytes = kernels::planes_bytes(format, rows, columns);
  void* planes = device_bytes(static_cast<std::int64_t>(bytes));
  auto* ids = static_cast<std::int32_t*>(device_bytes(tokens * 4));
  check(cudaMemset(ids, 0, tokens * 4));
  float* x = normal(tokens * columns, 1);
  float* out = normal(tokens * columns, 2);
  report("repack", 0, 1, [&](int, cudaStream_t stream) {
    check(cudaMemsetAsync(planes, 0, bytes, stream));  // rows that pad the last strip
    if (kernels::repack(format, blocks, planes, 0, rows, rows, columns, stream) !=
        kernels::MatmulStatus::done) {
      check(cudaErrorInvalidValue);
    }
  });
  report("embed_planes", 0, 1, [&](int, cudaStream_t stream) {
    check(kernels::embed_planes(format, planes, rows, columns, ids, tokens, 1.0f, out, stream));
  });
  for (const std::int64_t count : {std::int64_t{1}, tokens}) {
    report("raw_matmul", 0, 1, [&](int, cudaStream_t stream) {
      check(kernels::raw_matmul({.format = format,
                                 .blocks = blocks,
                                 .rows = rows,
                                 .columns = columns,
                                 .x = x,
                                 .tokens = count,
                                 .bias = nullptr,
                                 .accumulate = false,
                                 .out = out},
                                stream));
    });
    report("matmul", 0, 1, [&](int, cudaStream_t stream) {
      kernels::MatmulArguments a;
      a.format = format;
      a.columns = columns;
      a.tokens = count;
      a.x = x;
      a.weights[0] = {planes, rows, nullptr, out};
      a.workspace_bytes = kernels::matmul_workspace_bytes(a);
      a.workspace = device_bytes(static_cast<std::int64_t>(a.workspace_bytes) + 256);
      check(cudaMemsetAsync(a.workspace, 0, a.workspace_bytes + 256, stream));
      a.overlap = true;
      if (kernels::matmul(a, stream) != kernels::MatmulStatus::done) check(cudaErrorInvalidValue);
    });
  }
  report("elementwise", 0, 1, [&](int, cudaStream_t stream) {
    check(kernels::add(x, x, tokens * columns, out, stream));
    check(kernels::activate(x, x, tokens * columns, kernels::Activation::silu, out, stream));
    check(kernels::soft_cap(out, tokens * columns, 5.0f, stream));
  });
}

}  // namespace

int main(int count, char** words) {
  using enum kernels::CacheType;
  small = count > 1 && std::strcmp(words[1], "--small") == 0;
  if (small) {
    for (const int past : {0, 300, 1000}) run_attention(f16, "f16", 1, past);
    run_attention(f16, "f16", 5, 131);
    run_attention(q8_0, "q8_0", 1, 300);
    run_attention(f16, "f16", 40, 20);
    run_attention(q8_0, "q8_0", 40, 20);
    run_attention(f32, "f32", 3, 40);
    time_norm(3);
    time_rope(3);
    time_sample("sample, greedy", {}, -1);
    time_sample(
        "sample, chain",
        {.top_k = 40, .temperature = 1.0f, .top_p = 0.9f, .min_p = 0.05f, .typical_p = 0.8f}, -1);
    time_sample("sample, min_p", {.temperature = 1.0f, .min_p = 0.05f}, 3);
    time_sample("sample, penalties",
                {.penalty_window = 64, .temperature = 1.0f, .repetition_penalty = 1.2f}, -1);
    run_others();
    return 0;
  }
  for (const int rows : {1, 512}) time_norm(rows);
  for (const int tokens : {1, 512}) time_rope(tokens);
  time_sample("sample, greedy", {}, -1);
  time_sample("sample, temperature", {.temperature = 1.0f}, -1);
  time_sample("sample, top_k 40, top_p 0.9, min_p 0.05",
              {.top_k = 40, .temperature = 1.0f, .top_p = 0.9f, .min_p = 0.05f}, -1);
  time_sample("sample, greedy with 5 log-probabilities", {}, 5);
  return 0;
}
