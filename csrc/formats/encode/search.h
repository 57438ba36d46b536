// Searches for the scale (and offset) that give a group of weights the smallest squared error.
//
// For fixed integers q the best scale and offset are a linear least-squares fit; for a fixed scale
// and offset the best q is rounding. Alternating the two never increases the error but stops in the
// nearest valley, so it starts from several scales around the one that just spans the group.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "formats/half.h"

namespace quantloom::formats {

// Four lanes, which SSE2 and NEON have on every machine of their kind.
using Lanes = float __attribute__((vector_size(16)));

inline Lanes load_lanes(const float* source) {
  Lanes lanes;
  std::memcpy(&lanes, source, sizeof(lanes));
  return lanes;
}

inline float sum_lanes(Lanes lanes) { return (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]); }

// Rounds to nearest even after clamping to [low, high]: adding 1.5 * 2^23 leaves no fraction bits.
template <int low, int high>
Lanes to_integers(Lanes value) {
  constexpr auto bottom = static_cast<float>(low);
  constexpr auto top = static_cast<float>(high);
  constexpr float shift = 12582912.0f;
  const Lanes raised = value > bottom ? value : Lanes{bottom, bottom, bottom, bottom};
  const Lanes clamped = raised < top ? raised : Lanes{top, top, top, top};
  return (clamped + shift) - shift;
}

inline float inverse_or_zero(float value) { return value != 0.0f ? 1.0f / value : 0.0f; }

// A scale as a half; the smallest one in place of zero, which would lose all weights where that one
// has them to half a step.
inline std::uint16_t scale_to_half(float scale) {
  const std::uint16_t half = float_to_half(scale);
  const bool lost = (half & 0x7fffu) == 0 && scale != 0.0f;
  return static_cast<std::uint16_t>(half | (lost ? 1u : 0u));
}

// Subnormal halves are coarse: rounded down, a scale may not reach the largest weight, and the next
// larger one be better.
inline bool is_coarse(std::uint16_t half) { return (half & 0x7c00u) == 0; }

// Below this a group counts as all zero: no half scale can represent it, and 1 / scale stays
// finite.
constexpr float negligible = 1e-20f;

struct Extremes {
  float low;
  float high;
  float largest;  // the value of the largest magnitude, with its sign
};

template <int N>
Extremes extremes(const float* x) {
  Lanes low = load_lanes(x);
  Lanes high = low;
  for (int i = 4; i < N; i += 4) {
    const Lanes value = load_lanes(x + i);
    low = value < low ? value : low;
    high = value > high ? value : high;
  }
  Extremes result{low[0], high[0], 0.0f};
  for (int i = 1; i < 4; ++i) {
    if (low[i] < result.low) result.low = low[i];
    if (high[i] > result.high) result.high = high[i];
  }
  result.largest = -result.low > result.high ? result.low : result.high;
  return result;
}

// --- value = scale * q -------------------------------------------------------------------------

struct ScaleSums {
  float qx;
  float qq;

  float gain() const { return qq > 0.0f ? qx * qx / qq : 0.0f; }  // squared error taken away
  float scale() const { return qq > 0.0f ? qx / qq : 0.0f; }      // least-squares scale
};

template <int N, int low, int high>
ScaleSums scale_sums(const float* x, float inverse) {
  Lanes qx = {};
  Lanes qq = {};
  for (int i = 0; i < N; i += 4) {
    const Lanes value = load_lanes(x + i);
    const Lanes q = to_integers<low, high>(value * inverse);
    qx += q * value;
    qq += q * q;
  }
  return {sum_lanes(qx), sum_lanes(qq)};
}

// Squared error at exactly this scale.
template <int N, int low, int high>
float scale_error(const float* x, float scale) {
  const float inverse = inverse_or_zero(scale);
  Lanes error = {};
  for (int i = 0; i < N; i += 4) {
    const Lanes value = load_lanes(x + i);
    const Lanes rest = value - to_integers<low, high>(value * inverse) * scale;
    error += rest * rest;
  }
  return sum_lanes(error);
}

// The best scale found for one group. `factors` are tried on the scale that maps the largest weight
// to `low` and, negated, to `high`.
template <int N, int low, int high, int Count>
float best_scale(const float* x, const float (&factors)[Count]) {
  const float largest = extremes<N>(x).largest;
  if (std::fabs(largest) < negligible) return 0.0f;
  float best = 0.0f;
  float best_gain = 0.0f;
  const auto consider = [&](float inverse) {
    const ScaleSums sums = scale_sums<N, low, high>(x, inverse);
    const bool better = sums.gain() > best_gain;
    if (better) {
      best_gain = sums.gain();
      best = sums.scale();
    }
    return better;
  };
  for (const float factor : factors) {
    consider(static_cast<float>(low) * factor / largest);
    consider(static_cast<float>(high) * factor / largest);
  }
  for (int round = 0; round < 4 && best != 0.0f; ++round) {
    if (!consider(1.0f / best)) break;
  }
  return best;
}

// --- value = scale * q + offset ----------------------------------------------------------------

struct AffineFit {
  float scale;
  float offset;
  float error;
};

struct AffineSums {
  float q;
  float qq;
  float qx;
};

template <int N, int high>
AffineSums affine_sums(const float* x, float inverse, float offset) {
  Lanes sum_q = {};
  Lanes sum_qq = {};
  Lanes sum_qx = {};
  for (int i = 0; i < N; i += 4) {
    const Lanes value = load_lanes(x + i);
    const Lanes q = to_integers<0, high>((value - offset) * inverse);
    sum_q += q;
    sum_qq += q * q;
    sum_qx += q * value;
  }
  return {sum_lanes(sum_q), sum_lanes(sum_qq), sum_lanes(sum_qx)};
}

struct AffineError {
  float error;
  float sum_q;
};

// Squared error at exactly this scale and offset.
template <int N, int high>
AffineError affine_error(const float* x, float scale, float offset) {
  const float inverse = inverse_or_zero(scale);
  Lanes error = {};
  Lanes sum_q = {};
  for (int i = 0; i < N; i += 4) {
    const Lanes value = load_lanes(x + i) - offset;
    const Lanes q = to_integers<0, high>(value * inverse);
    const Lanes rest = value - q * scale;
    error += rest * rest;
    sum_q += q;
  }
  return {sum_lanes(error), sum_lanes(sum_q)};
}

// The best scale and offset found for one group with q in 0..high. With `negative_only` the offset
// is at most 0, which is what a format with unsigned minima can store.
template <int N, int high, bool negative_only, int Count>
AffineFit best_affine(const float* x, const float (&widenings)[Count], int rounds) {
  const Extremes span = extremes<N>(x);
  const float start = negative_only && span.low > 0.0f ? 0.0f : span.low;
  const float end = span.high > start ? span.high : start;
  Lanes lanes_x = {};
  Lanes lanes_xx = {};
  for (int i = 0; i < N; i += 4) {
    const Lanes value = load_lanes(x + i);
    lanes_x += value;
    lanes_xx += value * value;
  }
  const float sum_x = sum_lanes(lanes_x);
  const float sum_xx = sum_lanes(lanes_xx);
  if (end - start < negligible) {
    const float mean = sum_x / static_cast<float>(N);
    const float offset = negative_only && mean > 0.0f ? 0.0f : mean;
    return {0.0f, offset, 0.0f};
  }
  const auto fit = [&](float inverse, float offset) {
    const AffineSums sums = affine_sums<N, high>(x, inverse, offset);
    constexpr auto count = static_cast<float>(N);
    const float determinant = count * sums.qq - sums.q * sums.q;
    AffineFit result{0.0f, 0.0f, sum_xx};
    if (determinant > 0.0f) {
      result.scale = (count * sums.qx - sums.q * sum_x) / determinant;
      result.offset = (sums.qq * sum_x - sums.q * sums.qx) / determinant;
    }
    if (determinant <= 0.0f || (negative_only && result.offset > 0.0f)) {
      result.offset = 0.0f;
      result.scale = sums.qq > 0.0f ? sums.qx / sums.qq : 0.0f;
    }
    const float s = result.scale;
    const float o = result.offset;
    result.error = sum_xx - 2.0f * (s * sums.qx + o * sum_x) + s * s * sums.qq +
                   2.0f * s * o * sums.q + count * o * o;
    return result;
  };
  AffineFit best{0.0f, 0.0f, sum_xx};
  // Fits that differ by less than this are equal but for rounding. Groups with few distinct values
  // have several; all groups of a block should take the same.
  const float margin = 1e-6f * sum_xx;
  for (const float widening : widenings) {
    AffineFit now = fit((static_cast<float>(high) + widening) / (end - start), start);
    for (int round = 0; round < rounds && now.scale > 0.0f; ++round) {
      const AffineFit next = fit(1.0f / now.scale, now.offset);
      if (!(next.error < now.error)) break;
      now = next;
    }
    if (now.scale > 0.0f && now.error < best.error - margin) best = now;
  }
  for (int round = 0; round < 4 && best.scale > 0.0f; ++round) {
    const AffineFit next = fit(1.0f / best.scale, best.offset);
    if (!(next.error < best.error) || !(next.scale > 0.0f)) break;
    best = next;
  }
  return best;
}

}  // namespace quantloom::formats
