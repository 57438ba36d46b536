#include "formats/encode/legacy.h"

#include <cstdint>

#include "formats/encode/search.h"
#include "formats/half.h"

namespace quantloom::formats {

namespace {

constexpr int size = 32;

bool finite(std::uint16_t half) { return (half & 0x7c00u) != 0x7c00u; }

// Rounds the scale to a half and each weight to its nearest multiple of that.
template <int low, int high>
bool quantize_scaled(const float* x, float scale, std::uint16_t& stored, std::int8_t q[size]) {
  stored = scale_to_half(scale);
  if (!finite(stored)) return false;
  const auto error = [&](std::uint16_t half) {
    return scale_error<size, low, high>(x, half_to_float(half));
  };
  const auto larger = static_cast<std::uint16_t>(stored + 1);
  if (is_coarse(stored) && error(larger) < error(stored)) stored = larger;
  const float inverse = inverse_or_zero(half_to_float(stored));
  for (int i = 0; i < size; i += 4) {
    const Lanes integers = to_integers<low, high>(load_lanes(x + i) * inverse);
    for (int lane = 0; lane < 4; ++lane) q[i + lane] = static_cast<std::int8_t>(integers[lane]);
  }
  return true;
}

template <int high>
bool quantize_affine(const float* x, AffineFit fit, std::uint16_t& scale, std::uint16_t& offset,
                     std::int8_t q[size]) {
  scale = scale_to_half(fit.scale);
  offset = float_to_half(fit.offset);
  if (!finite(scale) || !finite(offset)) return false;
  const float start = half_to_float(offset);
  const auto error = [&](std::uint16_t half) {
    return affine_error<size, high>(x, half_to_float(half), start).error;
  };
  const auto larger = static_cast<std::uint16_t>(scale + 1);
  if (is_coarse(scale) && error(larger) < error(scale)) scale = larger;
  const float inverse = inverse_or_zero(half_to_float(scale));
  for (int i = 0; i < size; i += 4) {
    const Lanes integers = to_integers<0, high>((load_lanes(x + i) - start) * inverse);
    for (int lane = 0; lane < 4; ++lane) q[i + lane] = static_cast<std::int8_t>(integers[lane]);
  }
  return true;
}

// Weights 0..15 in the low nibbles, 16..31 in the high ones.
void pack_nibbles(const std::int8_t q[size], std::uint8_t target[16]) {
  for (int i = 0; i < 16; ++i) {
    target[i] = static_cast<std::uint8_t>((q[i] & 15) | (q[i + 16] & 15) << 4);
  }
}

void pack_fifth_bits(const std::int8_t q[size], std::uint8_t target[4]) {
  for (int byte = 0; byte < 4; ++byte) {
    int bits = 0;
    for (int i = 0; i < 8; ++i) bits |= ((q[8 * byte + i] >> 4) & 1) << i;
    target[byte] = static_cast<std::uint8_t>(bits);
  }
}

constexpr float scale_factors[] = {0.80f, 0.85f, 0.90f, 0.95f, 1.0f, 1.05f, 1.10f, 1.15f, 1.20f};
constexpr float fine_scale_factors[] = {0.94f, 0.97f, 1.0f, 1.03f, 1.06f, 1.09f, 1.12f};
constexpr float widenings[] = {-1.0f, -0.5f, 0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 2.5f, 3.0f};

}  // namespace

bool encode_block(const float x[32], Q4_0::Block& block) {
  std::int8_t q[size];
  const float scale = best_scale<size, -8, 7>(x, scale_factors);
  if (!quantize_scaled<-8, 7>(x, scale, block.scale, q)) return false;
  for (std::int8_t& value : q) value = static_cast<std::int8_t>(value + 8);
  pack_nibbles(q, block.quants);
  return true;
}

bool encode_block(const float x[32], Q5_0::Block& block) {
  std::int8_t q[size];
  const float scale = best_scale<size, -16, 15>(x, fine_scale_factors);
  if (!quantize_scaled<-16, 15>(x, scale, block.scale, q)) return false;
  for (std::int8_t& value : q) value = static_cast<std::int8_t>(value + 16);
  pack_nibbles(q, block.quants);
  pack_fifth_bits(q, block.high_bits);
  return true;
}

bool encode_block(const float x[32], Q4_1::Block& block) {
  std::int8_t q[size];
  const AffineFit fit = best_affine<size, 15, false>(x, widenings, 2);
  if (!quantize_affine<15>(x, fit, block.scale, block.offset, q)) return false;
  pack_nibbles(q, block.quants);
  return true;
}

bool encode_block(const float x[32], Q5_1::Block& block) {
  std::int8_t q[size];
  const AffineFit fit = best_affine<size, 31, false>(x, widenings, 2);
  if (!quantize_affine<31>(x, fit, block.scale, block.offset, q)) return false;
  pack_nibbles(q, block.quants);
  pack_fifth_bits(q, block.high_bits);
  return true;
}

// q stays within -127..127: integer kernels may take its absolute value.
bool encode_block(const float x[32], Q8_0::Block& block) {
  constexpr float factors[] = {1.0f, 1.004f, 1.008f, 1.012f};
  const float scale = best_scale<size, -127, 127>(x, factors);
  return quantize_scaled<-127, 127>(x, scale, block.scale, block.quants);
}

}  // namespace quantloom::formats
