#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/large.h"
#include "base/thread_pool.h"

namespace quantloom::model {
namespace {

// The (fractional) pair that turns `rotations` times over the original context.
double pair_of_rotations(const Hyperparameters& h, double rotations) {
  const double wavelength = static_cast<double>(h.rope_original_context) / rotations;
  return static_cast<double>(h.rope_dimensions) * std::log(wavelength / (2 * std::numbers::pi)) /
         (2 * std::log(h.rope_base));
}

// 1 where YaRN keeps a pair's frequency, 0 where it divides it by the factor.
double kept_share(const Hyperparameters& h, std::int64_t pair) {
  const double low = std::max(0.0, std::floor(pair_of_rotations(h, h.rope_beta_fast)));
  const double high = std::min(static_cast<double>(h.rope_dimensions - 1),
                               std::ceil(pair_of_rotations(h, h.rope_beta_slow)));
  const double along = (static_cast<double>(pair) - low) / std::max(0.001, high - low);
  return (1 - std::clamp(along, 0.0, 1.0)) * h.rope_extrapolation;
}

}  // namespace

std::vector<float> rope_table(const Hyperparameters& h, std::span<const float> factors,
                              std::int64_t context) {
  const std::int64_t pairs = h.rope_dimensions / 2;
  const bool yarn = h.rope_scaling == RopeScaling::yarn and h.rope_extrapolation != 0;
  double magnitude = h.rope_attention_factor;
  if (yarn) magnitude *= 1 + 0.1 * std::log(std::max(1.0, h.rope_factor));

  std::vector<double> frequencies(static_cast<std::size_t>(pairs));
  for (std::int64_t i = 0; i < pairs; ++i) {
    double frequency = std::pow(
        h.rope_base, -2.0 * static_cast<double>(i) / static_cast<double>(h.rope_dimensions));
    if (not factors.empty()) frequency /= factors[static_cast<std::size_t>(i)];
    const double kept = yarn ? kept_share(h, i) : 0;
    const double scale = h.rope_scaling == RopeScaling::none ? 1 : 1 / h.rope_factor;
    frequencies[static_cast<std::size_t>(i)] = frequency * (scale * (1 - kept) + kept);
  }

  const auto floats = static_cast<std::size_t>(context * pairs * 2);
  auto result = with_room<float>(floats, "RoPE table");
  result.resize(floats);
  constexpr std::int64_t step = 64;  // positions: with 64 pairs a tenth of a millisecond
  parallel_for((context + step - 1) / step, [&](std::int64_t item, int) {
    float* next = result.data() + item * step * pairs * 2;
    for (std::int64_t i = item * step; i < std::min((item + 1) * step, context); ++i) {
      for (const double frequency : frequencies) {
        const double angle = static_cast<double>(i) * frequency;
        *next++ = static_cast<float>(std::cos(angle) * magnitude);
        *next++ = static_cast<float>(std::sin(angle) * magnitude);
      }
    }
  });
  return result;
}

}  // namespace quantloom::model
