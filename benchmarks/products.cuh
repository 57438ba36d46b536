// Matrices of random valid blocks, activations and a workspace, for what measures or checks
// products.
#pragma once

#include <cuda_runtime.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "formats/list.h"
#include "matmul/matmul.h"

#define CHECK(call)                                                                        \
  do {                                                                                     \
    const cudaError_t error = (call);                                                      \
    if (error != cudaSuccess) {                                                            \
      std::printf("%s:%d %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(error)); \
      std::exit(1);                                                                        \
    }                                                                                      \
  } while (0)

namespace quantloom::benchmarks {

using kernels::MatmulArguments;
using kernels::MatmulStatus;

inline void check_status(MatmulStatus status, const char* what) {
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
  std::int64_t columns;
  std::vector<std::uint8_t> blocks;
  std::int64_t row_bytes;
};

template <class F>
Matrix random_matrix(std::int64_t rows, std::int64_t columns, unsigned seed) {
  Matrix m{columns, {}, columns / F::elements * F::bytes};
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

inline std::vector<float> random_x(std::int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.05f, 1.0f);
  std::vector<float> x(static_cast<std::size_t>(count));
  for (float& v : x) v = normal(random);
  x[static_cast<std::size_t>(count) / 3] = 3000.0f;  // an outlier as real models have them
  return x;
}

inline void* workspace = nullptr;
inline std::size_t workspace_bytes = 0;

inline void give_workspace(MatmulArguments& a) {
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

}  // namespace quantloom::benchmarks
