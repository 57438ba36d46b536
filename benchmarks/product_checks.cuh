// Products of every kind against float64 over the decoded weights.
#pragma once

#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "products.cuh"

namespace quantloom::benchmarks {

inline int failures = 0;

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
inline std::vector<float> normed(const std::vector<float>& x, const std::vector<float>& weight) {
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
  a.activation = kernels::Activation::gelu_tanh;
  gated("gate_up with GELU by tanh", gelu_tanh);
  a.activation = kernels::Activation::gelu;
  gated("gate_up with GELU", [](double v) { return 0.5 * v * (1 + std::erf(v / std::sqrt(2))); });
  if (kernels::matmul_norms(a)) {
    a.activation = kernels::Activation::silu;
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

}  // namespace quantloom::benchmarks
