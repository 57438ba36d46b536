#include "transformer/transformer.h"

namespace quantloom::kernels {
namespace {

constexpr int threads = 256;

template <Activation activation>
__device__ float apply(float x) {
  if constexpr (activation == Activation::silu) {
    return x / (1.0f + expf(-x));
  } else if constexpr (activation == Activation::gelu) {
    return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f));
  } else {
    const float inner = 0.79788456080286536f * (x + 0.044715f * x * x * x);
    return 0.5f * x * (1.0f + tanhf(inner));
  }
}

// f(i) for every i below count.
template <class Function>
__global__ void __launch_bounds__(threads) for_each(std::int64_t count, Function f) {
  const std::int64_t stride = std::int64_t{gridDim.x} * threads;
  for (std::int64_t i = std::int64_t{blockIdx.x} * threads + threadIdx.x; i < count; i += stride) {
    f(i);
  }
}

template <class Function>
cudaError_t launch(std::int64_t count, Function f, cudaStream_t stream) {
  if (count == 0) return cudaSuccess;
  const std::int64_t blocks = (count + threads - 1) / threads;
  for_each<<<static_cast<unsigned>(blocks < 4096 ? blocks : 4096), threads, 0, stream>>>(count, f);
  return cudaGetLastError();
}

template <Activation activation>
cudaError_t activate_as(const float* gate, const float* up, std::int64_t count, float* out,
                        cudaStream_t stream) {
  return launch(
      count,
      [=] __device__(std::int64_t i) {
        const float value = apply<activation>(gate[i]);
        out[i] = up != nullptr ? value * up[i] : value;
      },
      stream);
}

}  // namespace

cudaError_t add(const float* a, const float* b, std::int64_t count, float* out,
                cudaStream_t stream) {
  return launch(count, [=] __device__(std::int64_t i) { out[i] = a[i] + b[i]; }, stream);
}

cudaError_t activate(const float* gate, const float* up, std::int64_t count, Activation activation,
                     float* out, cudaStream_t stream) {
  switch (activation) {
    case Activation::silu:
      return activate_as<Activation::silu>(gate, up, count, out, stream);
    case Activation::gelu:
      return activate_as<Activation::gelu>(gate, up, count, out, stream);
    case Activation::gelu_tanh:
      return activate_as<Activation::gelu_tanh>(gate, up, count, out, stream);
  }
  return cudaErrorInvalidValue;
}

cudaError_t soft_cap(float* x, std::int64_t count, float cap, cudaStream_t stream) {
  return launch(count, [=] __device__(std::int64_t i) { x[i] = cap * tanhf(x[i] / cap); }, stream);
}

cudaError_t split_bits(const float* x, std::int64_t count, float* high, float* rest,
                       cudaStream_t stream) {
  return launch(
      count,
      [=] __device__(std::int64_t i) {
        const float value = x[i];
        const std::uint32_t bits = __float_as_uint(value);
        const float rounded = __uint_as_float((bits + 0x0fffu + (bits >> 13 & 1u)) & 0xffffe000u);
        const bool plain = fabsf(rounded) <= 3e38f && fabsf(value) <= 3e38f;
        high[i] = plain ? rounded : value;
        rest[i] = plain ? value - rounded : 0.0f;
      },
      stream);
}

}  // namespace quantloom::kernels
