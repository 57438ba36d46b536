// Checks every matmul kernel against float64 over the decoded weights, then times it inside a
// replayed graph on weights rotated beyond the L2 cache.
//   benchmark_matmul [json file or - [formats, with commas between, or "" [tokens...]]]
// Tokens of 0: checks alone; in the environment NO_CHECKS: times alone, OVERLAP: dependent
// launches.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "formats/list.h"
#include "matmul/matmul.h"
#include "product_checks.cuh"
#include "products.cuh"

using namespace quantloom;
using namespace quantloom::benchmarks;

namespace {

// Median time in microseconds of one call among `calls` that a graph replays.
template <class Call>
double time_graph(int calls, Call&& call) {
  cudaStream_t stream;
  CHECK(cudaStreamCreate(&stream));
  cudaGraph_t graph;
  cudaGraphExec_t executable;
  CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < calls; ++i) call(i, stream);
  CHECK(cudaStreamEndCapture(stream, &graph));
  CHECK(cudaGraphInstantiate(&executable, graph, 0));
  cudaEvent_t begin, end;
  CHECK(cudaEventCreate(&begin));
  CHECK(cudaEventCreate(&end));
  std::vector<float> times;
  for (int i = 0; i < 9; ++i) {
    CHECK(cudaEventRecord(begin, stream));
    CHECK(cudaGraphLaunch(executable, stream));
    CHECK(cudaEventRecord(end, stream));
    CHECK(cudaEventSynchronize(end));
    float ms = 0;
    CHECK(cudaEventElapsedTime(&ms, begin, end));
    if (i >= 2) times.push_back(ms);
  }
  std::sort(times.begin(), times.end());
  CHECK(cudaGraphExecDestroy(executable));
  CHECK(cudaGraphDestroy(graph));
  CHECK(cudaEventDestroy(begin));
  CHECK(cudaEventDestroy(end));
  CHECK(cudaStreamDestroy(stream));
  return times[times.size() / 2] * 1000.0 / calls;
}

__global__ void read_kernel(const uint4* p, std::size_t count, unsigned* out) {
  unsigned sum = 0;
  const std::size_t stride = static_cast<std::size_t>(gridDim.x) * blockDim.x;
  std::size_t i = static_cast<std::size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  for (; i + 3 * stride < count; i += 4 * stride) {
    const uint4 a = __ldcs(p + i), b = __ldcs(p + i + stride), c = __ldcs(p + i + 2 * stride),
                d = __ldcs(p + i + 3 * stride);
    sum += a.x ^ a.y ^ a.z ^ a.w ^ b.x ^ b.y ^ b.z ^ b.w ^ c.x ^ c.y ^ c.z ^ c.w ^ d.x ^ d.y ^ d.z ^
           d.w;
  }
  if (sum == 0x12345678u) *out = sum;
}

double read_bandwidth(const std::uint8_t* p, std::size_t bytes) {
  unsigned* out = nullptr;
  CHECK(cudaMalloc(&out, 4));
  const double us = time_graph(4, [&](int, cudaStream_t s) {
    read_kernel<<<132 * 8, 512, 0, s>>>(reinterpret_cast<const uint4*>(p), bytes / 16, out);
  });
  CHECK(cudaFree(out));
  return static_cast<double>(bytes) / us * 1e-3;
}

struct Result {
  std::string format;
  std::int64_t rows, columns;
  int tokens;
  std::string kernel;
  double us, gbs, share;
};
std::vector<Result> results;
std::uint8_t* pool = nullptr;
std::size_t pool_bytes = std::size_t{3} << 30;
double read_rate = 0;

// Times products with `parts` weights of rows / parts each: 1, or 2 as gate and up, for what the
// epilogue costs.
template <class F>
void time_format(std::int64_t rows, std::int64_t columns, const std::vector<int>& token_counts,
                 int parts = 1) {
  rows /= parts;
  const std::size_t bytes = kernels::planes_bytes(F::format, rows, columns);
  const int copies = static_cast<int>(
      std::clamp<std::size_t>(pool_bytes / (bytes * static_cast<std::size_t>(parts)), 1, 24));
  const auto planes = [&](int copy, int part) {
    return pool + static_cast<std::size_t>(copy * parts + part) * bytes;
  };
  // Up to 16 strips of valid blocks, repacked over and over.
  const std::int64_t some = std::min<std::int64_t>(rows, 256);
  const Matrix m = random_matrix<F>(some, columns, 5);
  std::uint8_t* blocks = to_device(m.blocks);
  for (int i = 0; i < copies * parts; ++i) {
    for (std::int64_t r = 0; r < rows; r += some) {
      check_status(kernels::repack(F::format, blocks, planes(0, i), r, std::min(some, rows - r),
                                   rows, columns, nullptr),
                   "repack");
    }
  }
  CHECK(cudaDeviceSynchronize());
  CHECK(cudaFree(blocks));
  for (const int tokens : token_counts) {
    float* x = to_device(random_x(tokens * columns, 3));
    float* out = nullptr;
    CHECK(cudaMalloc(&out, static_cast<std::size_t>(tokens * rows) * 4));
    MatmulArguments a;
    a.format = F::format;
    a.columns = columns;
    a.tokens = tokens;
    a.x = x;
    a.overlap = std::getenv("OVERLAP") != nullptr;
    a.weight_count = parts;
    if (parts == 2) a.epilogue = kernels::MatmulEpilogue::gate_up;
    a.weights[0] = {pool, rows, nullptr, out};
    a.weights[1] = {pool, rows, nullptr, nullptr};
    give_workspace(a);
    const double us = time_graph(2 * copies, [&](int i, cudaStream_t s) {
      for (int part = 0; part < parts; ++part) a.weights[part].planes = planes(i % copies, part);
      check_status(kernels::matmul(a, s), F::name);
    });
    const double gbs = static_cast<double>(bytes) * parts / us * 1e-3;
    const std::string kernel =
        kernels::matmul_kernel_name(a) + std::string(parts == 2 ? " gated" : "");
    results.push_back({F::name, rows * parts, columns, tokens, kernel, us, gbs, gbs / read_rate});
    std::printf("%-8s %6ld x %-6ld M=%-4d %-14s %8.2f us %7.0f GB/s %.3f of read\n", F::name,
                rows * parts, columns, tokens, kernel.c_str(), us, gbs, gbs / read_rate);
    std::fflush(stdout);
    CHECK(cudaFree(x));
    CHECK(cudaFree(out));
  }
}

template <class F>
void run_format(const std::vector<int>& tokens, bool timing) {
  if (std::getenv("NO_CHECKS") == nullptr) check_format<F>();
  if (!timing) return;
  for (const auto& [rows, columns] :
       {std::pair{28672, 4096}, {14336, 4096}, {4096, 14336}, {4096, 4096}}) {
    time_format<F>(rows, columns, tokens);
  }
  time_format<F>(28672, 4096, tokens, 2);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string only = argc > 2 ? argv[2] : "";
  const auto is_wanted = [&](const char* format) {
    return only.empty() || ("," + only + ",").find("," + std::string(format) + ",") != only.npos;
  };
  std::ptrdiff_t wanted = 0;
#define QL_COUNT(F) wanted += is_wanted(formats::F::name) ? 1 : 0;
  QL_QUANTIZED_FORMATS(QL_COUNT)
#undef QL_COUNT
  if (!only.empty() && wanted != 1 + std::count(only.begin(), only.end(), ',')) {
    std::fprintf(stderr, "unknown format in '%s'; names stand with commas between\n", only.c_str());
    return 2;
  }
  CHECK(cudaMalloc(&pool, pool_bytes));
  CHECK(cudaMemset(pool, 0x5a, pool_bytes));
  read_rate = read_bandwidth(pool, pool_bytes);
  std::printf("read %.0f GB/s\n", read_rate);
  std::vector<int> tokens;
  for (int i = 3; i < argc; ++i) tokens.push_back(std::atoi(argv[i]));
  if (tokens.empty()) tokens = {1, 8, 16};
#define QL_RUN(F) \
  if (is_wanted(formats::F::name)) run_format<formats::F>(tokens, tokens[0] > 0);
  QL_QUANTIZED_FORMATS(QL_RUN)
#undef QL_RUN
  if (argc > 1 && std::strcmp(argv[1], "-") != 0) {
    std::FILE* file = std::fopen(argv[1], "w");
    std::fprintf(file, "{\"read_gbs\": %.1f, \"results\": [\n", read_rate);
    for (std::size_t i = 0; i < results.size(); ++i) {
      const Result& r = results[i];
      std::fprintf(
          file,
          "{\"format\": \"%s\", \"rows\": %ld, \"columns\": %ld, \"tokens\": %d, \"kernel\": "
          "\"%s\", \"us\": %.3f, \"gbs\": %.1f, \"share\": %.4f}%s\n",
          r.format.c_str(), r.rows, r.columns, r.tokens, r.kernel.c_str(), r.us, r.gbs, r.share,
          i + 1 < results.size() ? "," : "");
    }
    std::fprintf(file, "]}\n");
    std::fclose(file);
  }
  std::printf("failures %d\n", failures);
  return failures == 0 ? 0 : 1;
}
