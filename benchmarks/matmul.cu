// Checks every matmul kernel against float64 over the decoded weights, then times it inside a
// replayed graph on weights rotated beyond the L2 cache.
//   benchmark_matmul [json file or - [formats, with commas between, or "" [tokens...]]]
// Tokens of 0: checks alone; in the environment NO_CHECKS: times alone, OVERLAP: dependent
// launches.
#include "matmul/matmul.h"

#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "formats/list.h"

using namespace quantloom;
using kernels::MatmulArguments;
using kernels::MatmulStatus;

#define CHECK(call)                                                                        \
  do {                                                                                     \
    const cudaError_t error = (call);                                                      \
    if (error != cudaSuccess) {                                                            \
      std::printf("%s:%d %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(error)); \
      std::exit(1);                                                                        \
    }                                                                                      \
  } while (0)

namespace {

void check_status(MatmulStatus status, const char* what) {
  if (status == MatmulStatus::done) return;
  std::printf("%s: status %d (%s)\n", what, static_cast<int>(status),
              cudaGetErrorString(cudaGetLastError()));
  std::exit(1);
}

// Random bits with the floating-point scales of the format set to sane values.
template <class F>
void fill_block(typename F::Block& block, std::mt19937& random) {
  auto* bytes = reinterpret_cast<std::uint8_t*>(&block);
  for (int i = 0; i < F::bytes; ++i) bytes[i] = static_cast<std::uint8_t>(random());
  const auto half = [&](float low, float high) {
    return formats::float_to_half(low +
                                  (high - low) * static_cast<float>(random() % 1000) / 999.0f);
  };
  if constexpr (requires { block.minimum_scale; }) block.minimum_scale = half(0.001f, 0.01f);
  if constexpr (requires { block.offset; }) block.offset = half(-0.1f, 0.1f);
  if constexpr (requires { block.exponent; }) {
    block.exponent = static_cast<std::uint8_t>(118 + random() % 6);
  }
  if constexpr (requires { block.scale; }) {
    block.scale = half(0.001f, 0.01f);
  } else if constexpr (F::format == formats::Format::iq1_m) {
    const unsigned d = half(0.001f, 0.01f);
    for (int i = 0; i < 4; ++i) {
      block.scales[i] =
          static_cast<std::uint16_t>((block.scales[i] & 0x0fff) | ((d >> (4 * i)) & 15u) << 12);
    }
  } else if constexpr (F::format == formats::Format::nvfp4) {
    for (auto& scale : block.scales) scale = static_cast<std::uint8_t>(8 + random() % 48);
  }
}

struct Matrix {
  formats::Format format;
  std::int64_t rows, columns;
  std::vector<std::uint8_t> blocks;
  std::int64_t row_bytes;
};

template <class F>
Matrix random_matrix(std::int64_t rows, std::int64_t columns, unsigned seed) {
  Matrix m{F::format, rows, columns, {}, columns / F::elements * F::bytes};
  m.blocks.resize(static_cast<std::size_t>(rows * m.row_bytes));
  std::mt19937 random(seed);
  for (std::size_t at = 0; at < m.blocks.size(); at += F::bytes) {
    typename F::Block block;
    fill_block<F>(block, random);
    std::memcpy(m.blocks.data() + at, &block, F::bytes);
  }
  return m;
}

template <class F>
std::vector<double> decode_row(const Matrix& m, std::int64_t row) {
  std::vector<double> values(static_cast<std::size_t>(m.columns));
  for (std::int64_t b = 0; b < m.columns / F::elements; ++b) {
    typename F::Block block;
    std::memcpy(&block, m.blocks.data() + row * m.row_bytes + b * F::bytes, F::bytes);
    for (int k = 0; k < F::elements / 8; ++k) {
      std::int8_t q[8];
      F::quants8(block, k, q);
      for (int i = 0; i < 8; ++i) {
        const formats::Affine a = F::affine(block, (8 * k + i) / F::group);
        values[b * F::elements + 8 * k + i] =
            static_cast<double>(formats::add(formats::multiply(a.scale, q[i]), a.offset));
      }
    }
  }
  return values;
}

template <class T>
T* to_device(const std::vector<T>& host) {
  T* p = nullptr;
  CHECK(cudaMalloc(&p, host.size() * sizeof(T)));
  CHECK(cudaMemcpy(p, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice));
  return p;
}

std::vector<float> random_x(std::int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.05f, 1.0f);
  std::vector<float> x(static_cast<std::size_t>(count));
  for (float& v : x) v = normal(random);
  x[static_cast<std::size_t>(count) / 3] = 3000.0f;  // an outlier as real models have them
  return x;
}

int failures = 0;

void* workspace = nullptr;
std::size_t workspace_bytes = 0;

void give_workspace(MatmulArguments& a) {
  const std::size_t needed = kernels::matmul_workspace_bytes(a);
  if (needed > workspace_bytes) {
    if (workspace != nullptr) CHECK(cudaFree(workspace));
    CHECK(cudaMalloc(&workspace, needed));
    CHECK(cudaMemset(workspace, 0, needed));
    workspace_bytes = needed;
  }
  a.workspace = workspace;
  a.workspace_bytes = workspace_bytes;
}

template <class F>
void check(std::int64_t rows, std::int64_t columns, const std::vector<int>& token_counts,
           double& worst) {
  const Matrix m = random_matrix<F>(rows, columns, 7u + static_cast<unsigned>(rows + columns));
  std::uint8_t* blocks = to_device(m.blocks);
  const std::size_t bytes = kernels::planes_bytes(F::format, rows, columns);
  std::uint8_t* planes = nullptr;
  CHECK(cudaMalloc(&planes, bytes));
  check_status(kernels::repack(F::format, blocks, planes, 0, rows, rows, columns, nullptr),
               "repack");
  {
    // Random bits in every field, not only valid scales.
    std::vector<std::uint8_t> bits(m.blocks.size()), back(m.blocks.size());
    std::mt19937 random(3);
    for (auto& b : bits) b = static_cast<std::uint8_t>(random());
    std::uint8_t* from = to_device(bits);
    std::uint8_t *to = nullptr, *packed = nullptr;
    CHECK(cudaMalloc(&to, bits.size()));
    CHECK(cudaMalloc(&packed, bytes));
    CHECK(cudaMemset(to, 0xa5, bits.size()));
    check_status(kernels::repack(F::format, from, packed, 0, rows, rows, columns, nullptr),
                 "repack");
    check_status(kernels::unpack(F::format, packed, to, 0, rows, columns, nullptr), "unpack");
    CHECK(cudaMemcpy(back.data(), to, bits.size(), cudaMemcpyDeviceToHost));
    if (back != bits) {
      ++failures;
      std::size_t at = 0;
      while (back[at] == bits[at]) ++at;
      std::printf("FAIL %s repack %ldx%ld differs at byte %zu\n", F::name, rows, columns, at);
    }
    CHECK(cudaFree(from));
    CHECK(cudaFree(to));
    CHECK(cudaFree(packed));
  }
  // Rows that the reference computes: all of a small matrix, some of a large one.
  std::vector<std::int64_t> sample;
  const std::int64_t step = std::max<std::int64_t>(1, rows / 64);
  for (std::int64_t r = 0; r < rows; r += step) sample.push_back(r);
  sample.push_back(rows - 1);
  std::vector<std::vector<double>> decoded;
  for (const std::int64_t r : sample) decoded.push_back(decode_row<F>(m, r));

  for (const int tokens : token_counts) {
    const std::vector<float> x = random_x(tokens * columns, 11);
    float* x_device = to_device(x);
    constexpr int guard = 64;
    std::vector<float> out(static_cast<std::size_t>(tokens * rows + 2 * guard), std::nanf(""));
    float* out_device = to_device(out);
    MatmulArguments a;
    a.format = F::format;
    a.columns = columns;
    a.tokens = tokens;
    a.x = x_device;
    a.weights[0] = {planes, rows, nullptr, out_device + guard};
    give_workspace(a);
    check_status(kernels::matmul(a, nullptr), F::name);
    CHECK(cudaDeviceSynchronize());
    CHECK(cudaMemcpy(out.data(), out_device, out.size() * 4, cudaMemcpyDeviceToHost));
    double error = 0, norm = 0;
    for (int token = 0; token < tokens; ++token) {
      // Each token is checked alone, so that the outlier's row does not hide the others.
      double token_error = 0, token_norm = 0;
      for (std::size_t s = 0; s < sample.size(); ++s) {
        double sum = 0;
        for (std::int64_t c = 0; c < columns; ++c) sum += decoded[s][c] * x[token * columns + c];
        const double d = out[guard + token * rows + sample[s]] - sum;
        token_error += d * d, token_norm += sum * sum;
      }
      const double nmse = token_error / token_norm;
      if (!(nmse <= error / std::max(norm, 1e-300))) error = nmse, norm = 1;
    }
    bool guards = true;
    for (int i = 0; i < guard; ++i) {
      guards = guards && std::isnan(out[i]) && std::isnan(out[out.size() - 1 - i]);
    }
    bool written = true;
    for (std::size_t i = guard; i + guard < out.size(); ++i)
      written = written && !std::isnan(out[i]);
    if (!(error <= 1e-6) || !guards || !written) {
      ++failures;
      std::printf("FAIL %s %ldx%ld M=%d %s: nmse %.3g guards %d written %d\n", F::name, rows,
                  columns, tokens, kernels::matmul_kernel_name(a), error, guards, written);
    }
    if (!(error <= worst)) worst = error;
    CHECK(cudaFree(x_device));
    CHECK(cudaFree(out_device));
  }
  CHECK(cudaFree(blocks));
  CHECK(cudaFree(planes));
}

constexpr float epsilon = 1e-5f;

// Each token of x over its root mean square, times weight.
std::vector<float> normed(const std::vector<float>& x, const std::vector<float>& weight) {
  std::vector<float> result(x.size());
  for (std::size_t token = 0; token < x.size(); token += weight.size()) {
    double squares = 0;
    for (std::size_t i = 0; i < weight.size(); ++i) {
      squares += static_cast<double>(x[token + i]) * x[token + i];
    }
    const double factor = 1 / std::sqrt(squares / static_cast<double>(weight.size()) + epsilon);
    for (std::size_t i = 0; i < weight.size(); ++i) {
      result[token + i] = static_cast<float>(x[token + i] * factor * weight[i]);
    }
  }
  return result;
}

// Several weights in one call, the epilogues, the pairing of gate and up and the norm, against
// single calls of one weight.
template <class F>
void check_fused(std::int64_t columns, int tokens) {
  constexpr int all = 4;
  const std::int64_t rows[all] = {208, 336, 48, 208};
  std::uint8_t* planes[all];
  float *alone[all], *together[all];
  const std::vector<float> raw = random_x(tokens * columns, 21);
  const std::vector<float> norm = random_x(columns, 22);
  float* x = to_device(normed(raw, norm));
  float* raw_x = to_device(raw);
  float* norm_weight = to_device(norm);
  const auto read = [&](const float* from, std::int64_t count) {
    std::vector<float> host(static_cast<std::size_t>(count));
    CHECK(cudaMemcpy(host.data(), from, host.size() * 4, cudaMemcpyDeviceToHost));
    return host;
  };
  const auto expect = [&](const char* what, const std::vector<float>& got,
                          const std::vector<double>& wanted) {
    double error = 0, norm = 0;
    for (std::size_t i = 0; i < got.size(); ++i) {
      error += (got[i] - wanted[i]) * (got[i] - wanted[i]), norm += wanted[i] * wanted[i];
    }
    if (!(error <= 1e-6 * norm)) {
      ++failures;
      std::printf("FAIL %s %s columns %ld M=%d: nmse %.3g\n", F::name, what, columns, tokens,
                  error / norm);
    }
  };
  MatmulArguments a;
  a.format = F::format;
  a.columns = columns;
  a.tokens = tokens;
  a.x = x;
  for (int i = 0; i < all; ++i) {
    const Matrix m = random_matrix<F>(rows[i], columns, 31u + static_cast<unsigned>(i));
    std::uint8_t* blocks = to_device(m.blocks);
    CHECK(cudaMalloc(&planes[i], kernels::planes_bytes(F::format, rows[i], columns)));
    CHECK(cudaMalloc(&alone[i], static_cast<std::size_t>(tokens * rows[i]) * 4));
    CHECK(cudaMalloc(&together[i], static_cast<std::size_t>(tokens * rows[i]) * 4));
    CHECK(cudaMemset(together[i], 0, static_cast<std::size_t>(tokens * rows[i]) * 4));
    check_status(
        kernels::repack(F::format, blocks, planes[i], 0, rows[i], rows[i], columns, nullptr),
        "repack");
    a.weights[0] = {planes[i], rows[i], nullptr, alone[i]};
    give_workspace(a);
    check_status(kernels::matmul(a, nullptr), "alone");
    CHECK(cudaDeviceSynchronize());
    CHECK(cudaFree(blocks));
  }
  std::vector<std::vector<double>> wanted;
  for (int i = 0; i < all; ++i) {
    const std::vector<float> v = read(alone[i], tokens * rows[i]);
    wanted.emplace_back(v.begin(), v.end());
  }
  std::vector<float> bias_host(336);
  for (std::size_t i = 0; i < bias_host.size(); ++i) bias_host[i] = static_cast<float>(i) * 0.01f;
  float* bias = to_device(bias_host);
  a.weight_count = 3;
  a.epilogue = kernels::MatmulEpilogue::add;
  for (int i = 0; i < 3; ++i) a.weights[i] = {planes[i], rows[i], bias, together[i]};
  give_workspace(a);
  for (int turn = 0; turn < 2; ++turn) check_status(kernels::matmul(a, nullptr), "add");
  CHECK(cudaDeviceSynchronize());
  for (int i = 0; i < 3; ++i) {
    std::vector<double> twice = wanted[i];
    for (std::size_t e = 0; e < twice.size(); ++e) {
      twice[e] = 2 * (twice[e] + bias_host[e % static_cast<std::size_t>(rows[i])]);
    }
    expect("three weights added twice", read(together[i], tokens * rows[i]), twice);
  }
  a.weight_count = 2;
  a.epilogue = kernels::MatmulEpilogue::gate_up;
  a.weights[0] = {planes[0], rows[0], bias, together[0]};
  a.weights[1] = {planes[3], rows[3], bias + 16, nullptr};
  const auto gated = [&](const char* what, const auto& activation) {
    std::vector<double> values = wanted[0];
    for (std::size_t i = 0; i < values.size(); ++i) {
      const std::size_t row = i % static_cast<std::size_t>(rows[0]);
      values[i] = activation(values[i] + bias_host[row]) * (wanted[3][i] + bias_host[row + 16]);
    }
    if (!kernels::matmul_gates(a)) return;
    give_workspace(a);
    CHECK(cudaMemset(together[0], 0xff, static_cast<std::size_t>(tokens * rows[0]) * 4));
    check_status(kernels::matmul(a, nullptr), what);
    CHECK(cudaDeviceSynchronize());
    expect(what, read(together[0], tokens * rows[0]), values);
  };
  const auto silu = [](double v) { return v / (1 + std::exp(-v)); };
  const auto gelu_tanh = [](double v) {
    return 0.5 * v * (1 + std::tanh(std::sqrt(2 / M_PI) * (v + 0.044715 * v * v * v)));
  };
  gated("gate_up", silu);
  a.activation = kernels::MatmulActivation::gelu_tanh;
  gated("gate_up with GELU by tanh", gelu_tanh);
  a.activation = kernels::MatmulActivation::gelu;
  gated("gate_up with GELU", [](double v) { return 0.5 * v * (1 + std::erf(v / std::sqrt(2))); });
  if (kernels::matmul_norms(a)) {
    a.activation = kernels::MatmulActivation::silu;
    a.x = raw_x, a.norm = norm_weight, a.epsilon = epsilon;
    gated("norm and gate_up", silu);
  }
  for (int i = 0; i < all; ++i) {
    CHECK(cudaFree(planes[i]));
    CHECK(cudaFree(alone[i]));
    CHECK(cudaFree(together[i]));
  }
  CHECK(cudaFree(x));
  CHECK(cudaFree(raw_x));
  CHECK(cudaFree(norm_weight));
  CHECK(cudaFree(bias));
}

// The bits of a token under `invariant`: alone, first of few and last of many.
template <class F>
void check_invariant(std::int64_t rows, std::int64_t columns) {
  const Matrix m = random_matrix<F>(rows, columns, 51);
  std::uint8_t* blocks = to_device(m.blocks);
  std::uint8_t* planes = nullptr;
  float* out = nullptr;
  constexpr int most = 300;
  CHECK(cudaMalloc(&planes, kernels::planes_bytes(F::format, rows, columns)));
  CHECK(cudaMalloc(&out, static_cast<std::size_t>(most * rows) * 4));
  check_status(kernels::repack(F::format, blocks, planes, 0, rows, rows, columns, nullptr),
               "repack");
  float* x = to_device(random_x(most * columns, 77));
  const auto token_bits = [&](int tokens) {
    MatmulArguments a;
    a.format = F::format;
    a.columns = columns;
    a.tokens = tokens;
    a.x = x + (most - tokens) * columns;
    a.weights[0] = {planes, rows, nullptr, out};
    a.invariant = true;
    give_workspace(a);
    check_status(kernels::matmul(a, nullptr), "invariant");
    std::vector<float> bits(static_cast<std::size_t>(rows));
    CHECK(cudaMemcpy(bits.data(), out + (tokens - 1) * rows, bits.size() * 4,
                     cudaMemcpyDeviceToHost));
    return bits;
  };
  const std::vector<float> alone = token_bits(1);
  for (const int tokens : {2, 16, 17, 64, 65, 128, 129, 256, 300}) {
    const std::vector<float> bits = token_bits(tokens);
    if (std::memcmp(bits.data(), alone.data(), bits.size() * 4) != 0) {
      ++failures;
      std::printf("FAIL %s %ldx%ld: token %d of %d differs from itself alone\n", F::name, rows,
                  columns, tokens - 1, tokens);
    }
  }
  CHECK(cudaFree(x));
  CHECK(cudaFree(out));
  CHECK(cudaFree(planes));
  CHECK(cudaFree(blocks));
}

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
  // One strip's worth of valid blocks, repacked over and over.
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
void check_format() {
  double worst = 0;
  const int e = F::elements;
  check<F>(16, std::max(e, 32), {1, 2, 3}, worst);
  check<F>(17, e * 3, {1, 5}, worst);
  check<F>(33, 4096, {1, 4, 7, 8, 9, 15, 16, 17, 63, 65}, worst);
  check<F>(2113, 1280, {1, 2, 16, 33, 127, 129, 257}, worst);
  check<F>(4096, 14336, {1, 8, 16, 64}, worst);
  for (const int m : {1, 5, 16, 40, 200, 300}) check_fused<F>(1280, m), check_fused<F>(e * 9, m);
  check_invariant<F>(2113, 1280), check_invariant<F>(512, 4096);
  std::printf("%-8s worst nmse %.3g, failures so far %d\n", F::name, worst, failures);
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
  CHECK(cudaMalloc(&pool, pool_bytes));
  CHECK(cudaMemset(pool, 0x5a, pool_bytes));
  read_rate = read_bandwidth(pool, pool_bytes);
  std::printf("read %.0f GB/s\n", read_rate);
  const std::string only = argc > 2 ? argv[2] : "";
  std::vector<int> tokens;
  for (int i = 3; i < argc; ++i) tokens.push_back(std::atoi(argv[i]));
  if (tokens.empty()) tokens = {1, 8, 16};
#define QL_RUN(F)                                                                              \
  if (only.empty() ||                                                                          \
      ("," + only + ",").find("," + std::string(formats::F::name) + ",") != std::string::npos) \
    run_format<formats::F>(tokens, tokens[0] > 0);
#ifdef QL_SOME_FORMATS
  QL_SOME_FORMATS(QL_RUN)
#else
  QL_QUANTIZED_FORMATS(QL_RUN)
#endif
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
