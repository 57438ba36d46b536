// Activations as fixed point: per group of 32 values the scale that takes the highest magnitude to
// the limit of the precision, values rounded to the nearest.
#pragma once

#include <cstdint>

#include "cpu/kernels.h"

namespace quantloom::cpu {
namespace {

// Below this a group counts as zero: its reciprocal would not be a finite float.
constexpr float smallest_magnitude = 1e-30f;

// One group; returns NaN where a value is not finite, else 0.
template <class V>
inline typename V::Float prepare_group(const float* x, float limit, std::int16_t* q, float& scale) {
  constexpr int vectors = activation_group / V::width;
  typename V::Float v[vectors];
  typename V::Float top = V::set(0);
  typename V::Float poison = V::set(0);
  for (int i = 0; i < vectors; ++i) {
    v[i] = V::load(x + i * V::width);
    top = V::max(V::absolute(v[i]), top);
    poison = V::fma(v[i], V::set(0), poison);
  }
  const float magnitude = V::maximum(top);
  const bool usable = magnitude >= smallest_magnitude && magnitude <= 3.402823466e38f;
  scale = usable ? magnitude / limit : 0.0f;
  const typename V::Float inverse = V::set(usable ? limit / magnitude : 0.0f);
  // Division rounds up now and then; a product may pass the limit by a unit in the last place,
  // which rounding to an integer takes away.
  for (int i = 0; i < vectors; ++i) V::store_int16(q + i * V::width, V::mul(v[i], inverse));
  return poison;
}

template <class V>
bool prepare_fixed(Form form, ops::Precision precision, std::int64_t begin, std::int64_t end,
                   const Activations& out) {
  const bool exact = precision == ops::Precision::exact;
  const float limit = exact ? exact_limit : fast_limit;
  const std::int64_t padded = out.groups * sum_group;
  typename V::Float poison = V::set(0);
  for (std::int64_t token = begin; token < end; ++token) {
    const float* x = out.values + token * out.columns;
    float* scales = out.scales + token * out.groups;
    float* sums = out.sums + token * out.groups;
    float* pair_sums = out.pair_sums + token * out.groups;
    std::int32_t* biases = out.biases + token * out.groups;
    std::int32_t* pair_biases = out.pair_biases + token * out.groups;
    for (std::int64_t c = 0; c < padded; c += activation_group) {
      alignas(64) std::int16_t q[activation_group] = {};
      float scale = 0;
      if (c < out.columns) poison = V::add(poison, prepare_group<V>(x + c, limit, q, scale));
      if (exact) {
        // A low byte of -128 has no negative: move it by one of 32639 steps.
        for (std::int16_t& value : q) {
          value = static_cast<std::int16_t>(value + ((value & 0xff) == 0x80 ? 1 : 0));
        }
      }
      std::int32_t halves[2] = {0, 0};
      for (int i = 0; i < sum_group; ++i) {
        halves[0] += q[i];
        halves[1] += q[sum_group + i];
      }
      for (int half = 0; half < 2; ++half) {
        const std::int64_t group = c / sum_group + half;
        scales[group] = scale;
        sums[group] = scale * static_cast<float>(halves[half]);
        pair_sums[group] = scale * static_cast<float>(halves[0] + halves[1]);
        biases[group] = -128 * halves[half];
        pair_biases[group] = -128 * (halves[0] + halves[1]);
      }
      if (form == Form::words) {
        std::int16_t* words = out.words + token * out.stride + c;
        for (int i = 0; i < activation_group; ++i) words[i] = q[i];
        continue;
      }
      std::int8_t* high = out.high + token * out.stride + c;
      if (!exact) {
        for (int i = 0; i < activation_group; ++i) high[i] = static_cast<std::int8_t>(q[i]);
        continue;
      }
      std::int8_t* low = out.low + token * out.stride + c;
      for (int i = 0; i < activation_group; ++i) {
        const auto upper = static_cast<std::int16_t>((q[i] + 128) >> 8);
        high[i] = static_cast<std::int8_t>(upper);
        low[i] = static_cast<std::int8_t>(q[i] - upper * 256);
      }
    }
  }
  return V::sum(poison) == 0.0f;
}

}  // namespace
}  // namespace quantloom::cpu
