#include "formats/encode/k_quants.h"

#include <cstdint>

#include "formats/encode/k_search.h"

namespace quantloom::formats {

namespace {

bool finite(std::uint16_t half) { return (half & 0x7c00u) != 0x7c00u; }

// Two bits of each q: [2][32] bytes of four weights that lie 32 apart, lowest first.
void pack_two_bits(const std::int8_t q[block_size], int shift, std::uint8_t target[64]) {
  for (int i = 0; i < 64; ++i) {
    const std::int8_t* first = q + 128 * (i / 32) + i % 32;
    int byte = 0;
    for (int r = 0; r < 4; ++r) byte |= ((first[32 * r] >> shift) & 3) << (2 * r);
    target[i] = static_cast<std::uint8_t>(byte);
  }
}

// One bit of each q: bit g of byte i is that of weight 32g + i.
void pack_one_bit(const std::int8_t q[block_size], int shift, std::uint8_t target[32]) {
  for (int i = 0; i < 32; ++i) {
    int byte = 0;
    for (int g = 0; g < 8; ++g) byte |= ((q[32 * g + i] >> shift) & 1) << g;
    target[i] = static_cast<std::uint8_t>(byte);
  }
}

// Four bits of each q: bytes of two weights that lie `distance` apart.
void pack_four_bits(const std::int8_t q[block_size], int distance, std::uint8_t target[128]) {
  for (int i = 0; i < 128; ++i) {
    const std::int8_t* first = q + 2 * distance * (i / distance) + i % distance;
    target[i] = static_cast<std::uint8_t>((first[0] & 15) | (first[distance] & 15) << 4);
  }
}

// See k_scales.h.
void pack_scales_and_minima(const int scales[8], const int minima[8], std::uint8_t target[12]) {
  for (int j = 0; j < 4; ++j) {
    target[j] = static_cast<std::uint8_t>(scales[j] | (scales[j + 4] >> 4) << 6);
    target[j + 4] = static_cast<std::uint8_t>(minima[j] | (minima[j + 4] >> 4) << 6);
    target[j + 8] = static_cast<std::uint8_t>((scales[j + 4] & 15) | (minima[j + 4] & 15) << 4);
  }
}

constexpr float three_bit_factors[] = {0.70f, 0.76f, 0.82f, 0.88f, 0.94f, 1.0f,
                                       1.08f, 1.16f, 1.26f, 1.38f, 1.5f};
constexpr float six_bit_factors[] = {0.96f, 0.98f, 1.0f, 1.02f, 1.04f, 1.06f};
constexpr float two_bit_widenings[] = {-0.5f, -0.2f, 0.0f, 0.2f, 0.4f, 0.6f, 0.8f, 1.0f, 1.3f};
constexpr float four_bit_widenings[] = {-1.0f, -0.5f, 0.0f, 0.4f, 0.8f, 1.2f, 1.6f, 2.0f, 2.5f};
constexpr float five_bit_widenings[] = {-1.0f, -0.5f, 0.0f, 0.4f, 0.8f, 1.2f, 1.6f, 2.0f};
constexpr float three_starts[] = {0.94f, 1.0f, 1.06f};

}  // namespace

bool encode_block(const float x[256], Q2_K::Block& block) {
  using Search = AffineBlock<16, 3, 15>;
  const Search found = Search::search(x, two_bit_widenings, three_starts, 4);
  if (!finite(found.scale) || !finite(found.minimum_scale)) return false;
  std::int8_t q[block_size];
  found.quantize(x, q);
  block.scale = found.scale;
  block.minimum_scale = found.minimum_scale;
  for (int g = 0; g < 16; ++g) {
    block.scales[g] = static_cast<std::uint8_t>(found.scales[g] | found.minima[g] << 4);
  }
  pack_two_bits(q, 0, block.quants);
  return true;
}

bool encode_block(const float x[256], Q3_K::Block& block) {
  using Search = ScaledBlock<16, -4, 3, -32, 31>;
  const Search found = Search::search(x, three_bit_factors, three_starts, 3);
  if (!finite(found.scale)) return false;
  std::int8_t q[block_size];
  found.quantize(x, q);
  for (std::int8_t& value : q) value = static_cast<std::int8_t>(value + 4);
  block.scale = found.scale;
  for (int j = 0; j < 4; ++j) {
    int high = 0;
    for (int r = 0; r < 4; ++r) high |= ((found.scales[4 * r + j] + 32) >> 4) << (2 * r);
    block.scales[8 + j] = static_cast<std::uint8_t>(high);
  }
  for (int j = 0; j < 8; ++j) {
    block.scales[j] = static_cast<std::uint8_t>(((found.scales[j] + 32) & 15) |
                                                ((found.scales[j + 8] + 32) & 15) << 4);
  }
  pack_two_bits(q, 0, block.low_bits);
  pack_one_bit(q, 2, block.high_bits);
  return true;
}

bool encode_block(const float x[256], Q4_K::Block& block) {
  using Search = AffineBlock<32, 15, 63>;
  const Search found = Search::search(x, four_bit_widenings, three_starts, 3);
  if (!finite(found.scale) || !finite(found.minimum_scale)) return false;
  std::int8_t q[block_size];
  found.quantize(x, q);
  block.scale = found.scale;
  block.minimum_scale = found.minimum_scale;
  pack_scales_and_minima(found.scales, found.minima, block.scales);
  pack_four_bits(q, 32, block.quants);
  return true;
}

bool encode_block(const float x[256], Q5_K::Block& block) {
  using Search = AffineBlock<32, 31, 63>;
  const Search found = Search::search(x, five_bit_widenings, three_starts, 3);
  if (!finite(found.scale) || !finite(found.minimum_scale)) return false;
  std::int8_t q[block_size];
  found.quantize(x, q);
  block.scale = found.scale;
  block.minimum_scale = found.minimum_scale;
  pack_scales_and_minima(found.scales, found.minima, block.scales);
  pack_four_bits(q, 32, block.quants);
  pack_one_bit(q, 4, block.high_bits);
  return true;
}

bool encode_block(const float x[256], Q6_K::Block& block) {
  using Search = ScaledBlock<16, -32, 31, -128, 127>;
  const Search found = Search::search(x, six_bit_factors, three_starts, 3);
  if (!finite(found.scale)) return false;
  std::int8_t q[block_size];
  found.quantize(x, q);
  for (std::int8_t& value : q) value = static_cast<std::int8_t>(value + 32);
  block.scale = found.scale;
  for (int g = 0; g < 16; ++g) block.scales[g] = static_cast<std::int8_t>(found.scales[g]);
  pack_four_bits(q, 64, block.low_bits);
  pack_two_bits(q, 4, block.high_bits);
  return true;
}

}  // namespace quantloom::formats
