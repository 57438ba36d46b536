// Vectors of four floats in the compiler's portable extension: SSE2 or NEON, whatever the target's
// base instructions are. The other simd_*.h have the same members.
#pragma once

#include <cstdint>
#include <cstring>

#include "formats/half.h"

namespace quantloom::cpu {
namespace {

struct Plain {
  using Float = float __attribute__((vector_size(16)));
  using Integer = std::int32_t __attribute__((vector_size(16)));
  static constexpr int width = 4;
  static constexpr int tile_vectors = 2;  // accumulators of a register tile: vectors x broadcasts
  static constexpr int tile_broadcasts = 4;

  static Float load(const float* p) {
    Float v;
    std::memcpy(&v, p, sizeof(v));
    return v;
  }
  static void store(float* p, Float v) { std::memcpy(p, &v, sizeof(v)); }
  static Float set(float x) { return Float{x, x, x, x}; }
  static Float add(Float a, Float b) { return a + b; }
  static Float sub(Float a, Float b) { return a - b; }
  static Float mul(Float a, Float b) { return a * b; }
  static Float div(Float a, Float b) { return a / b; }
  static Float fma(Float a, Float b, Float c) { return a * b + c; }
  // b where either is NaN.
  static Float max(Float a, Float b) { return a > b ? a : b; }
  static Float min(Float a, Float b) { return a < b ? a : b; }
  static Float absolute(Float a) {
    return reinterpret_cast<Float>(reinterpret_cast<Integer>(a) & 0x7fffffff);
  }
  // then where a < b, otherwise; NaN compares false.
  static Float where_less(Float a, Float b, Float then, Float otherwise) {
    return a < b ? then : otherwise;
  }
  static float sum(Float v) { return (v[0] + v[2]) + (v[1] + v[3]); }
  static float maximum(Float v) {
    const float a = v[0] > v[1] ? v[0] : v[1];
    const float b = v[2] > v[3] ? v[2] : v[3];
    return a > b ? a : b;
  }
  // To the nearest integer, ties to even, for |v| below 2^22.
  static Float round(Float v) {
    const Float magic = set(12582912.0f);
    return (v + magic) - magic;
  }
  // 2^n for an integer n in -126 .. 127.
  static Float power_of_two(Float n) {
    return reinterpret_cast<Float>((__builtin_convertvector(n, Integer) + 127) << 23);
  }
  static Float load_half(const std::uint16_t* p) {
    return Float{formats::half_to_float(p[0]), formats::half_to_float(p[1]),
                 formats::half_to_float(p[2]), formats::half_to_float(p[3])};
  }
  static void store_half(std::uint16_t* p, Float v) {
    for (int i = 0; i < width; ++i) p[i] = formats::float_to_half(v[i]);
  }
  static Float load_bfloat16(const std::uint16_t* p) {
    return Float{formats::bfloat16_to_float(p[0]), formats::bfloat16_to_float(p[1]),
                 formats::bfloat16_to_float(p[2]), formats::bfloat16_to_float(p[3])};
  }
  static Float load_int8(const std::int8_t* p) {
    return Float{static_cast<float>(p[0]), static_cast<float>(p[1]), static_cast<float>(p[2]),
                 static_cast<float>(p[3])};
  }
  // Rounded to the nearest; |v| at most 32767.
  static void store_int16(std::int16_t* p, Float v) {
    const Integer n = __builtin_convertvector(round(v), Integer);
    for (int i = 0; i < width; ++i) p[i] = static_cast<std::int16_t>(n[i]);
  }
  // Of a width x width matrix, in place.
  static void transpose(Float r[width]) {
    for (int i = 0; i < width; ++i) {
      for (int j = 0; j < i; ++j) {
        const float t = r[i][j];
        r[i][j] = r[j][i];
        r[j][i] = t;
      }
    }
  }
};

}  // namespace
}  // namespace quantloom::cpu
