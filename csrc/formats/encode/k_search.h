// The search for a block of 256 weights whose group scales (and minima) are small integers times
// one half each. Groups first get their best real scales; then, in turns, each group picks the
// integers near them that give the smallest error, and the halves are fitted to all groups at once.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "formats/encode/search.h"
#include "formats/half.h"

namespace quantloom::formats {

constexpr int block_size = 256;
constexpr int largest_half = 0x7bff;              // bits of 65504
constexpr std::uint16_t half_infinity = 0x7c00u;  // the scale of a block that no half scale fits

inline int clamp_to(int value, int low, int high) {
  return value < low ? low : value > high ? high : value;
}

template <int N>
float sum_of(const float* x) {
  Lanes sum = {};
  for (int i = 0; i < N; i += 4) sum += load_lanes(x + i);
  return sum_lanes(sum);
}

// value = (scale * scales[g]) * q, q in q_low..q_high, scales in s_low..s_high.
template <int N, int q_low, int q_high, int s_low, int s_high>
struct ScaledBlock {
  static constexpr int groups = block_size / N;

  std::uint16_t scale = 0;  // half
  int scales[groups] = {};
  float error = std::numeric_limits<float>::infinity();

  template <int Count, int Starts>
  static ScaledBlock search(const float* x, const float (&factors)[Count],
                            const float (&starts)[Starts], int rounds) {
    float wanted[groups];
    float largest = 0.0f;
    for (int g = 0; g < groups; ++g) {
      wanted[g] = best_scale<N, q_low, q_high>(x + g * N, factors);
      if (std::fabs(wanted[g]) > std::fabs(largest)) largest = wanted[g];
    }
    ScaledBlock best;
    if (largest == 0.0f) return best;
    for (const float start : starts) {
      std::uint16_t scale = scale_to_half(largest / (static_cast<float>(s_low) * start));
      for (int round = 0; round < rounds; ++round) {
        if ((scale & 0x7fff) > largest_half) break;
        const ScaledBlock now = choose(x, wanted, scale);
        if (now.error < best.error) best = now;
        if (!(now.error <= best.error)) break;
        scale = now.fit(x);
        if (scale == now.scale) break;
      }
    }
    if (std::isinf(best.error)) {
      best.scale = half_infinity;
    } else if (is_coarse(best.scale)) {
      const ScaledBlock larger = choose(x, wanted, static_cast<std::uint16_t>(best.scale + 1));
      if (larger.error < best.error) best = larger;
    }
    return best;
  }

  void quantize(const float* x, std::int8_t q[block_size]) const {
    for (int g = 0; g < groups; ++g) {
      const float inverse = inverse_or_zero(group_scale(g));
      for (int i = g * N; i < (g + 1) * N; i += 4) {
        const Lanes integers = to_integers<q_low, q_high>(load_lanes(x + i) * inverse);
        for (int lane = 0; lane < 4; ++lane) q[i + lane] = static_cast<std::int8_t>(integers[lane]);
      }
    }
  }

 private:
  float group_scale(int g) const { return half_to_float(scale) * static_cast<float>(scales[g]); }

  static ScaledBlock choose(const float* x, const float wanted[groups], std::uint16_t half) {
    ScaledBlock block;
    block.scale = half;
    block.error = 0.0f;
    const float unit = half_to_float(half);
    for (int g = 0; g < groups; ++g) {
      const float ratio = unit == 0.0f ? 0.0f : wanted[g] / unit;
      constexpr auto bottom = static_cast<float>(s_low);
      constexpr auto top = static_cast<float>(s_high);
      const float limited = ratio < bottom ? bottom : ratio > top ? top : ratio;
      const int middle = static_cast<int>(std::nearbyint(limited));
      float smallest = std::numeric_limits<float>::infinity();
      for (int s = clamp_to(middle - 1, s_low, s_high); s <= clamp_to(middle + 1, s_low, s_high);
           ++s) {
        const float error = scale_error<N, q_low, q_high>(x + g * N, unit * static_cast<float>(s));
        if (error < smallest) {
          smallest = error;
          block.scales[g] = s;
        }
      }
      block.error += smallest;
    }
    return block;
  }

  // The least-squares scale for the integers that this choice gives.
  std::uint16_t fit(const float* x) const {
    double ax = 0.0;
    double aa = 0.0;
    for (int g = 0; g < groups; ++g) {
      const ScaleSums sums =
          scale_sums<N, q_low, q_high>(x + g * N, inverse_or_zero(group_scale(g)));
      const double s = scales[g];
      ax += s * static_cast<double>(sums.qx);
      aa += s * s * static_cast<double>(sums.qq);
    }
    return aa > 0.0 ? scale_to_half(static_cast<float>(ax / aa)) : scale;
  }
};

// value = (scale * scales[g]) * q - minimum_scale * minima[g], q in 0..q_high, both in 0..s_high.
template <int N, int q_high, int s_high>
struct AffineBlock {
  static constexpr int groups = block_size / N;

  std::uint16_t scale = 0;          // half
  std::uint16_t minimum_scale = 0;  // half
  int scales[groups] = {};
  int minima[groups] = {};
  float error = std::numeric_limits<float>::infinity();

  template <int Count, int Starts>
  static AffineBlock search(const float* x, const float (&widenings)[Count],
                            const float (&starts)[Starts], int rounds) {
    AffineFit wanted[groups];
    float largest_scale = 0.0f;
    float largest_minimum = 0.0f;
    for (int g = 0; g < groups; ++g) {
      wanted[g] = best_affine<N, q_high, true>(x + g * N, widenings, 1);
      if (wanted[g].scale > largest_scale) largest_scale = wanted[g].scale;
      if (-wanted[g].offset > largest_minimum) largest_minimum = -wanted[g].offset;
    }
    AffineBlock best;
    for (const float start : starts) {
      std::uint16_t scale = scale_to_half(largest_scale / (static_cast<float>(s_high) * start));
      std::uint16_t minimum_scale = scale_to_half(largest_minimum / static_cast<float>(s_high));
      for (int round = 0; round < rounds; ++round) {
        if (scale > largest_half || minimum_scale > largest_half) break;
        const AffineBlock now = choose(x, wanted, scale, minimum_scale);
        if (now.error < best.error) best = now;
        if (!(now.error <= best.error)) break;
        now.fit(x, scale, minimum_scale);
        if (scale == now.scale && minimum_scale == now.minimum_scale) break;
      }
    }
    if (std::isinf(best.error)) best.scale = half_infinity;
    return best;
  }

  void quantize(const float* x, std::int8_t q[block_size]) const {
    for (int g = 0; g < groups; ++g) {
      const float inverse = inverse_or_zero(group_scale(g));
      const float offset = group_offset(g);
      for (int i = g * N; i < (g + 1) * N; i += 4) {
        const Lanes integers = to_integers<0, q_high>((load_lanes(x + i) - offset) * inverse);
        for (int lane = 0; lane < 4; ++lane) q[i + lane] = static_cast<std::int8_t>(integers[lane]);
      }
    }
  }

 private:
  float group_scale(int g) const { return half_to_float(scale) * static_cast<float>(scales[g]); }
  float group_offset(int g) const {
    return -(half_to_float(minimum_scale) * static_cast<float>(minima[g]));
  }

  static int nearest(float value, float unit) {
    if (unit == 0.0f) return 0;
    const float ratio = value / unit;
    if (!(ratio > 0.0f)) return 0;
    return ratio < static_cast<float>(s_high) ? static_cast<int>(ratio + 0.5f) : s_high;
  }

  static AffineBlock choose(const float* x, const AffineFit wanted[groups], std::uint16_t half,
                            std::uint16_t minimum_half) {
    AffineBlock block;
    block.scale = half;
    block.minimum_scale = minimum_half;
    block.error = 0.0f;
    const float unit = half_to_float(half);
    const float minimum_unit = half_to_float(minimum_half);
    for (int g = 0; g < groups; ++g) {
      const float* group = x + g * N;
      const float sum_x = sum_of<N>(group);
      const int middle = nearest(wanted[g].scale, unit);
      float smallest = std::numeric_limits<float>::infinity();
      for (int s = clamp_to(middle - 1, 0, s_high); s <= clamp_to(middle + 1, 0, s_high); ++s) {
        const float scale = unit * static_cast<float>(s);
        int minimum = nearest(-wanted[g].offset, minimum_unit);
        // The best minimum for this scale's q, then for the q which that one gives.
        for (int turn = 0; turn < 3; ++turn) {
          const float offset = -(minimum_unit * static_cast<float>(minimum));
          const AffineError found = affine_error<N, q_high>(group, scale, offset);
          if (found.error < smallest) {
            smallest = found.error;
            block.scales[g] = s;
            block.minima[g] = minimum;
          }
          const float mean = (sum_x - scale * found.sum_q) / static_cast<float>(N);
          const int better = nearest(-mean, minimum_unit);
          if (better == minimum) break;
          minimum = better;
        }
      }
      block.error += smallest;
    }
    return block;
  }

  // The halves of least squared error for the integers that this choice gives. Rounding the two
  // one by one would lose up to a bit of both, since their errors partly cancel.
  void fit(const float* x, std::uint16_t& new_scale, std::uint16_t& new_minimum_scale) const {
    // value = s * a - m * b with a = scales * q and b = minima
    double aa = 0.0;
    double ab = 0.0;
    double bb = 0.0;
    double ax = 0.0;
    double bx = 0.0;
    for (int g = 0; g < groups; ++g) {
      const float* group = x + g * N;
      const AffineSums sums =
          affine_sums<N, q_high>(group, inverse_or_zero(group_scale(g)), group_offset(g));
      const double s = scales[g];
      const double m = minima[g];
      aa += s * s * static_cast<double>(sums.qq);
      ab += s * m * static_cast<double>(sums.q);
      bb += m * m * N;
      ax += s * static_cast<double>(sums.qx);
      bx += m * static_cast<double>(sum_of<N>(group));
    }
    new_scale = scale;
    new_minimum_scale = minimum_scale;
    const double determinant = aa * bb - ab * ab;
    double best_scale = aa > 0.0 ? ax / aa : 0.0;
    double best_minimum = 0.0;
    if (determinant > 1e-9 * aa * bb) {
      best_scale = (ax * bb - bx * ab) / determinant;
      best_minimum = (ax * ab - bx * aa) / determinant;
    } else if (bb > 0.0) {
      return;
    }
    if (!(best_scale >= 0.0) || !(best_minimum >= 0.0)) return;
    const int nearest_scale = float_to_half(static_cast<float>(best_scale));
    const int nearest_minimum = float_to_half(static_cast<float>(best_minimum));
    double smallest = std::numeric_limits<double>::infinity();
    for (int i = clamp_to(nearest_scale - 1, 0, largest_half);
         i <= clamp_to(nearest_scale + 1, 0, largest_half); ++i) {
      for (int j = clamp_to(nearest_minimum - 1, 0, largest_half);
           j <= clamp_to(nearest_minimum + 1, 0, largest_half); ++j) {
        const double s = half_to_float(static_cast<std::uint16_t>(i));
        const double m = half_to_float(static_cast<std::uint16_t>(j));
        const double error = s * (s * aa - 2.0 * ax) + m * (m * bb + 2.0 * bx) - 2.0 * s * m * ab;
        if (error < smallest) {
          smallest = error;
          new_scale = static_cast<std::uint16_t>(i);
          new_minimum_scale = static_cast<std::uint16_t>(j);
        }
      }
    }
  }
};

}  // namespace quantloom::formats
