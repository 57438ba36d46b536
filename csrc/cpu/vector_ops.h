// The operations between the products, over a vector class V of simd_*.h.
#pragma once

#include <cmath>
#include <cstdint>

#include "formats/half.h"
#include "ops/operations.h"

namespace quantloom::cpu {
namespace {

// e^x to 2 units in the last place for x in -87 .. 88, clamped to that range outside. NaN passes.
// x = n ln 2 + r, ln 2 in two parts; the polynomial is Taylor's, |r| <= 0.3466.
template <class V>
inline typename V::Float exponential(typename V::Float x) {
  x = V::max(V::set(-87.0f), V::min(V::set(88.0f), x));
  const typename V::Float n = V::round(V::mul(x, V::set(1.44269504f)));
  typename V::Float r = V::fma(n, V::set(-0.693359375f), x);
  r = V::fma(n, V::set(2.12194440e-4f), r);
  typename V::Float p = V::set(1.0f / 5040);
  p = V::fma(p, r, V::set(1.0f / 720));
  p = V::fma(p, r, V::set(1.0f / 120));
  p = V::fma(p, r, V::set(1.0f / 24));
  p = V::fma(p, r, V::set(1.0f / 6));
  p = V::fma(p, r, V::set(0.5f));
  p = V::fma(V::mul(r, r), p, r);
  p = V::add(p, V::set(1.0f));
  return V::mul(p, V::power_of_two(n));
}

// tanh(x) = 1 - 2 / (e^2x + 1), to 1e-7 absolute.
template <class V>
inline typename V::Float hyperbolic_tangent(typename V::Float x) {
  const typename V::Float e = exponential<V>(V::add(x, x));
  return V::sub(V::set(1.0f), V::div(V::set(2.0f), V::add(e, V::set(1.0f))));
}

// Calls op(i, count) for whole vectors, and for the tail through a padded copy: see the callers.
template <class V>
struct Tail {
  float values[V::width] = {};
  Tail(const float* source, int count) {
    for (int i = 0; i < count; ++i) values[i] = source[i];
  }
  static void store(float* to, typename V::Float v, int count) {
    float buffer[V::width];
    V::store(buffer, v);
    for (int i = 0; i < count; ++i) to[i] = buffer[i];
  }
};

// Where the squares of finite numbers pass the largest float. Their norm does not, and nobody would
// see that it was taken for 0.
inline void rms_norm_of_large(const float* x, std::int64_t width, const ops::Norm& norm,
                              float* out) {
  double total = 0;
  for (std::int64_t i = 0; i < width; ++i) total += static_cast<double>(x[i]) * x[i];
  const double factor = 1 / std::sqrt(total / static_cast<double>(width) + norm.epsilon);
  for (std::int64_t i = 0; i < width; ++i) {
    out[i] = static_cast<float>(x[i] * factor) * norm.weight[i];
  }
}

template <class V>
void rms_norm(const float* x, std::int64_t width, const ops::Norm& norm, float* out) {
  typename V::Float squares[4] = {V::set(0), V::set(0), V::set(0), V::set(0)};
  std::int64_t i = 0;
  for (; i + 4 * V::width <= width; i += 4 * V::width) {
    for (int j = 0; j < 4; ++j) {
      const typename V::Float v = V::load(x + i + j * V::width);
      squares[j] = V::fma(v, v, squares[j]);
    }
  }
  float total = V::sum(V::add(V::add(squares[0], squares[1]), V::add(squares[2], squares[3])));
  for (; i < width; ++i) total += x[i] * x[i];
  if (std::isinf(total)) return rms_norm_of_large(x, width, norm, out);
  const float factor = 1.0f / std::sqrt(total / static_cast<float>(width) + norm.epsilon);

  const typename V::Float factors = V::set(factor);
  i = 0;
  for (; i + V::width <= width; i += V::width) {
    V::store(out + i, V::mul(V::mul(V::load(x + i), factors), V::load(norm.weight + i)));
  }
  for (; i < width; ++i) out[i] = (x[i] * factor) * norm.weight[i];
}

template <class V>
void rotate(float* head, const float* cosines, const float* sines, int dimensions,
            bool interleaved) {
  const int half = dimensions / 2;
  if (interleaved) {
    for (int i = 0; i < half; ++i) {
      const float a = head[2 * i];
      const float b = head[2 * i + 1];
      head[2 * i] = a * cosines[i] - b * sines[i];
      head[2 * i + 1] = a * sines[i] + b * cosines[i];
    }
    return;
  }
  int i = 0;
  for (; i + V::width <= half; i += V::width) {
    const typename V::Float a = V::load(head + i);
    const typename V::Float b = V::load(head + half + i);
    const typename V::Float c = V::load(cosines + i);
    const typename V::Float s = V::load(sines + i);
    V::store(head + i, V::sub(V::mul(a, c), V::mul(b, s)));
    V::store(head + half + i, V::add(V::mul(a, s), V::mul(b, c)));
  }
  for (; i < half; ++i) {
    const float a = head[i];
    const float b = head[half + i];
    head[i] = a * cosines[i] - b * sines[i];
    head[half + i] = a * sines[i] + b * cosines[i];
  }
}

template <class V>
void store_cache_row(const float* values, int head_size, ops::CacheType type, void* row,
                     std::uint16_t* scales) {
  if (type == ops::CacheType::f32) {
    auto* out = static_cast<float*>(row);
    for (int i = 0; i < head_size; ++i) out[i] = values[i];
    return;
  }
  if (type == ops::CacheType::f16) {
    auto* out = static_cast<std::uint16_t*>(row);
    int i = 0;
    for (; i + V::width <= head_size; i += V::width) V::store_half(out + i, V::load(values + i));
    for (; i < head_size; ++i) out[i] = formats::float_to_half(values[i]);
    return;
  }
  auto* out = static_cast<std::int8_t*>(row);
  for (int group = 0; group < head_size / 32; ++group) {
    const float* source = values + 32 * group;
    float highest = 0;
    float poison = 0;  // NaN where a value is not finite
    for (int i = 0; i < 32; ++i) {
      highest = std::fmax(highest, std::fabs(source[i]));
      poison += source[i] * 0.0f;
    }
    const float scale = highest / 127.0f;
    const float inverse = scale > 0 ? 1.0f / scale : 0.0f;
    scales[group] = formats::float_to_half(scale + poison);
    for (int i = 0; i < 32; ++i) {
      const float q = std::nearbyint(source[i] * inverse);
      out[32 * group + i] = q >= -127 && q <= 127 ? static_cast<std::int8_t>(q) : std::int8_t{1};
    }
  }
}

template <class V>
inline typename V::Float silu(typename V::Float x) {
  return V::div(x, V::add(V::set(1.0f), exponential<V>(V::sub(V::set(0.0f), x))));
}

// 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))   (Hendrycks and Gimpel 2016, arXiv 1606.08415)
template <class V>
inline typename V::Float gelu_tanh(typename V::Float x) {
  const typename V::Float cube = V::mul(V::mul(x, x), x);
  const typename V::Float inner = V::mul(V::set(0.797884561f), V::fma(V::set(0.044715f), cube, x));
  return V::mul(V::mul(V::set(0.5f), x), V::add(V::set(1.0f), hyperbolic_tangent<V>(inner)));
}

template <class V, class Function>
inline void map2(const float* a, const float* b, std::int64_t count, float* out, Function) {
  std::int64_t i = 0;
  for (; i + V::width <= count; i += V::width) {
    V::store(out + i, Function::apply(V::load(a + i), V::load(b + i)));
  }
  if (i < count) {
    const int rest = static_cast<int>(count - i);
    const Tail<V> left(a + i, rest);
    const Tail<V> right(b + i, rest);
    Tail<V>::store(out + i, Function::apply(V::load(left.values), V::load(right.values)), rest);
  }
}

template <class V>
struct SiluTimes {
  static typename V::Float apply(typename V::Float a, typename V::Float b) {
    return V::mul(silu<V>(a), b);
  }
};

template <class V>
struct GeluTanhTimes {
  static typename V::Float apply(typename V::Float a, typename V::Float b) {
    return V::mul(gelu_tanh<V>(a), b);
  }
};

template <class V>
struct Sum {
  static typename V::Float apply(typename V::Float a, typename V::Float b) { return V::add(a, b); }
};

template <class V>
void activate(const float* gate, const float* up, std::int64_t count, ops::Activation activation,
              float* out) {
  switch (activation) {
    case ops::Activation::silu:
      map2<V>(gate, up, count, out, SiluTimes<V>{});
      return;
    case ops::Activation::gelu_tanh:
      map2<V>(gate, up, count, out, GeluTanhTimes<V>{});
      return;
    case ops::Activation::gelu:
      for (std::int64_t i = 0; i < count; ++i) {
        out[i] = 0.5f * gate[i] * (1.0f + std::erf(gate[i] * 0.707106781f)) * up[i];
      }
      return;
  }
}

template <class V>
void add(const float* a, const float* b, std::int64_t count, float* out) {
  map2<V>(a, b, count, out, Sum<V>{});
}

template <class V>
void scale(float* x, std::int64_t count, float factor) {
  for (std::int64_t i = 0; i < count; ++i) x[i] *= factor;
}

template <class V>
void soft_cap(float* x, std::int64_t count, float cap) {
  const typename V::Float caps = V::set(cap);
  std::int64_t i = 0;
  for (; i + V::width <= count; i += V::width) {
    V::store(x + i, V::mul(caps, hyperbolic_tangent<V>(V::div(V::load(x + i), caps))));
  }
  if (i < count) {
    const int rest = static_cast<int>(count - i);
    const Tail<V> tail(x + i, rest);
    Tail<V>::store(x + i, V::mul(caps, hyperbolic_tangent<V>(V::div(V::load(tail.values), caps))),
                   rest);
  }
}

}  // namespace
}  // namespace quantloom::cpu
