// Planes of IQ2_XXS, IQ2_XS and IQ2_S. A grid row is looked up as eight nibbles of level 0 .. 2;
// with the sign as bit 2 each nibble selects one of +-8, 25, 43.
#pragma once

#include "matmul/grid_planes.h"

namespace quantloom::kernels {

__device__ inline std::uint32_t iq2_values(std::uint32_t selector) {
  return permute(0x002b1908u, 0x00d5e7f8u, selector);
}

// Bytes 8, 25, 43 shifted by 4 are their levels.
constexpr std::uint32_t iq2_levels(std::uint64_t row) { return nibbles_of_bytes(row >> 4); }
static __device__ constexpr auto iq2_xxs_words = grid_words(formats::iq2_xxs_grid_host, iq2_levels);
static __device__ constexpr auto iq2_xs_words = grid_words(formats::iq2_xs_grid_host, iq2_levels);
static __device__ constexpr auto iq2_s_words = grid_words(formats::iq2_s_grid_host, iq2_levels);

// half_more: the scale's nibble and a half.
__device__ inline float iq2_scale(float half_more, float d) { return d * half_more * 0.25f; }

// Adds scales that are nibbles of groups of 16, the first span; the second is d.
template <class Base>
struct Iq2NibbleScales : Base {
  static constexpr bool has_integer_scales = true;
  __device__ static float d(const std::uint8_t* piece, int n, int row) {
    return load_half(Base::template span<1>(piece, n, 0, row));
  }
  // The nibble is the lowest of the half that the lowest bit of `quad` names.
  __device__ static std::uint32_t bits(const std::uint8_t* piece, int n, int row, int quad, int t) {
    const auto nibbles = *reinterpret_cast<const uint2*>(Base::template span<0>(piece, n, 0, row));
    return (quad & 2 ? nibbles.y : nibbles.x) >> (4 * t);
  }
  __device__ static float unit(const std::uint8_t* piece, int n, int row) {
    return iq2_scale(0.5f, d(piece, n, row));
  }
  __device__ static int integer_scale(const std::uint8_t* piece, int n, int row, int quad, int t) {
    return static_cast<int>(2 * (bits(piece, n, row, quad, t) >> (16 * (quad & 1)) & 15u) + 1);
  }
  __device__ static Affine affine(const std::uint8_t* piece, int n, int row, int quad, int t) {
    const std::uint32_t w = bits(piece, n, row, quad, t);
    const float half_more = quad & 1 ? field_value<16>(w, 15u, 0.5f) : field_value<0>(w, 15u, 0.5f);
    return {iq2_scale(half_more, d(piece, n, row)), 0.0f};
  }
};

// IQ2_XXS and IQ2_XS: two bytes a unit, the index's lower eight bits and a byte of the seven signs
// with a bit of a scale or the ninth bit of the index. A lane's word is its unit of row g and,
// above it, of row g + 8. Table rows: levels in the lower half, signs in the upper one.
template <class F, Span... spans_>
struct Iq2WordPlanes : UnitPlanes<F, 16, spans_...> {
  __device__ static void pack_quants(std::uint8_t* piece, int, int j, int lane,
                                     const std::int8_t row_g[8], const std::int8_t row_g8[8]) {
    const auto unit = [](const std::int8_t q[8]) {
      return static_cast<std::uint32_t>(static_cast<std::uint8_t>(q[0])) |
             static_cast<std::uint32_t>(static_cast<std::uint8_t>(q[1])) << 8;
    };
    *Iq2WordPlanes::template pair_word<2>(piece, j, lane, j & 1) = unit(row_g) | unit(row_g8) << 16;
  }
  __device__ static void unpack_quants(const std::uint8_t* piece, int, int j, int lane,
                                       std::int8_t row_g[8], std::int8_t row_g8[8]) {
    const std::uint32_t w = word(piece, j, lane);
    row_g[0] = static_cast<std::int8_t>(w), row_g[1] = static_cast<std::int8_t>(w >> 8);
    row_g8[0] = static_cast<std::int8_t>(w >> 16), row_g8[1] = static_cast<std::int8_t>(w >> 24);
  }
  __device__ static std::uint32_t word(const std::uint8_t* piece, int j, int lane) {
    // A uint2 would be read as a whole by affine() and word by word by quants().
    const std::uint64_t pair = reinterpret_cast<const std::uint64_t*>(piece)[j / 2 * 32 + lane];
    return static_cast<std::uint32_t>(j & 1 ? pair >> 32 : pair);
  }
};

// The bit of a scale is the sign byte's lowest.
template <>
struct Planes<formats::IQ2_XXS> : Iq2WordPlanes<formats::IQ2_XXS, Span{0, 2, 1}> {
  __device__ static std::uint32_t table_word(int row, int column) {
    return column < 8 ? iq2_xxs_words.words[row] : sign_words.words[row >> 1];
  }
  __device__ static void quants(const std::uint8_t* piece, int, int j, int lane, std::uint32_t a[4],
                                const std::uint8_t* table) {
    const std::uint32_t w = word(piece, j, lane), in_row = 4u * lane;
    const std::uint32_t first =
        join(grid_entry<0>(table, w, in_row), grid_entry<1>(table + 128, w, in_row));
    const std::uint32_t second =
        join(grid_entry<2>(table, w, in_row), grid_entry<3>(table + 128, w, in_row));
    a[0] = iq2_values(first), a[2] = iq2_values(upper_half(first));
    a[1] = iq2_values(second), a[3] = iq2_values(upper_half(second));
  }
  static constexpr bool has_integer_scales = true;
  __device__ static float unit(const std::uint8_t* piece, int n, int row) {
    return iq2_scale(0.5f, load_half(span<0>(piece, n, 0, row)));
  }
  // The lane's scale of a quad, of row g in byte 1 and of row g + 8 in byte 3.
  __device__ static std::uint32_t scale_bytes(const std::uint8_t* piece, int quad) {
    const int lane = own_lane();
    const std::uint32_t two = unknown_zero() + 2u;
    std::uint32_t bits = 0;
#pragma unroll
    for (int j = 3; j >= 0; --j) {
      bits = bits * two + (word(piece, 4 * quad + j, lane) & 0x01000100u);
    }
    return bits;
  }
  __device__ static int integer_scale(const std::uint8_t* piece, int, int row, int quad, int) {
    const std::uint32_t bytes = scale_bytes(piece, quad);
    return static_cast<int>(2 * permute(bytes, 0u, row & 8 ? 0x4443u : 0x4441u) + 1);
  }
  __device__ static Affine affine(const std::uint8_t* piece, int n, int row, int quad, int) {
    const std::uint32_t bytes = scale_bytes(piece, quad);
    // Below the upper bytes of 2^23.
    const float value = __uint_as_float(permute(bytes, 0x4b000000u, row & 8 ? 0x7443u : 0x7441u));
    return {iq2_scale(value - 8388607.5f, load_half(span<0>(piece, n, 0, row))), 0.0f};
  }
  __device__ static void read_codes(const formats::IQ2_XXS::Block& block, int k, std::int8_t q[8]) {
    const std::uint16_t* words = block.quants + k / 4 * 4;
    const std::uint32_t signs = words[2] | static_cast<std::uint32_t>(words[3]) << 16;
    const int scale = block.quants[4 * scale_group_of_unit(k) + 3] >> 12;
    q[0] = static_cast<std::int8_t>(words[k % 4 / 2] >> (8 * (k % 2)));
    q[1] = static_cast<std::int8_t>(((signs >> (7 * (k % 4))) & 127u) << 1 |
                                    static_cast<std::uint32_t>(scale >> scale_bit_of_unit(k) & 1));
  }
  __device__ static void write_code(formats::IQ2_XXS::Block& block, int k, int i, int q) {
    std::uint16_t* words = block.quants + k / 4 * 4;
    if (i == 0) words[k % 4 / 2] |= static_cast<std::uint16_t>((q & 255) << (8 * (k % 2)));
    if (i != 1) return;
    const std::uint32_t signs = static_cast<std::uint32_t>(q >> 1 & 127) << (7 * (k % 4));
    words[2] |= static_cast<std::uint16_t>(signs),
        words[3] |= static_cast<std::uint16_t>(signs >> 16);
    block.quants[4 * scale_group_of_unit(k) + 3] |=
        static_cast<std::uint16_t>((q & 1) << (12 + scale_bit_of_unit(k)));
  }
};

// The ninth bit of the index is the sign byte's bit 6, where it stands in an address.
template <>
struct Planes<formats::IQ2_XS>
    : Iq2NibbleScales<Iq2WordPlanes<formats::IQ2_XS, Span{66, 8, 1}, Span{0, 2, 1}>> {
  __device__ static std::uint32_t table_word(int row, int column) {
    return column < 8 ? iq2_xs_words.words[row + column / 4 * 256]
                      : sign_words.words[(row & 63) | (row >> 1 & 64)];
  }
  __device__ static void quants(const std::uint8_t* piece, int, int j, int lane, std::uint32_t a[4],
                                const std::uint8_t* table) {
    const std::uint32_t w = word(piece, j, lane), in_row = 4u * lane;
    const std::uint32_t in_rows = (w & 0x40004000u) | 0x04000400u * (lane & 15);
    const std::uint32_t first =
        join(entry_of<0>(table, w, 0, in_rows), grid_entry<1>(table + 128, w, in_row));
    const std::uint32_t second =
        join(entry_of<1>(table, w, 2, in_rows), grid_entry<3>(table + 128, w, in_row));
    a[0] = iq2_values(first), a[2] = iq2_values(upper_half(first));
    a[1] = iq2_values(second), a[3] = iq2_values(upper_half(second));
  }
  __device__ static void read_codes(const formats::IQ2_XS::Block& block, int k, std::int8_t q[8]) {
    const std::uint32_t packed = block.quants[k];
    q[0] = static_cast<std::int8_t>(packed);
    q[1] =
        static_cast<std::int8_t>((packed >> 9 & 63u) | (packed >> 2 & 64u) | (packed >> 8 & 128u));
  }
  __device__ static void write_code(formats::IQ2_XS::Block& block, int k, int i, int q) {
    if (i == 0) block.quants[k] |= static_cast<std::uint16_t>(q & 255);
    if (i == 1) {
      block.quants[k] |= static_cast<std::uint16_t>((q & 63) << 9 | (q & 64) << 2 | (q & 128) << 8);
    }
  }
};

// Per two groups a lane has a word of four index bytes (row g, row g + 8, and the next group's) and
// one of their signs, bit i of unit u at 4i + u; behind them, per piece, a word with the indices'
// upper two bits: of row g in its lower half, of group j at 14 - 2j.
template <>
struct Planes<formats::IQ2_S>
    : Iq2NibbleScales<UnitPlanes<formats::IQ2_S, 18, Span{74, 8, 1}, Span{0, 2, 1}>> {
  __device__ static std::uint32_t table_word(int row, int column) {
    return iq2_s_words.words[row + column / 4 * 256];
  }
  __device__ static std::uint32_t* high_word(std::uint8_t* piece, int lane) {
    return reinterpret_cast<std::uint32_t*>(piece + 1024) + lane;
  }
  __device__ static void quants(const std::uint8_t* piece, int, int j, int lane, std::uint32_t a[4],
                                const std::uint8_t* table) {
    const uint2 w = pair_words(piece, j, lane);
    const std::uint32_t high = load_word(piece + 1024 + 4 * lane) << (2 * j);
    const std::uint32_t in_rows = (high & 0xc000c000u) | 0x04000400u * (lane & 15);
    const std::uint32_t first = entry_of<0>(table, w.x, 2 * (j & 1), in_rows);
    const std::uint32_t second = entry_of<1>(table, w.x, 2 * (j & 1) + 1, in_rows);
    const std::uint32_t first_signs = j & 1 ? w.y : w.y << 2;
    const std::uint32_t second_signs = j & 1 ? w.y >> 1 : w.y << 1;
    const std::uint32_t low = first | (first_signs & 0x44444444u);
    const std::uint32_t upper = second | (second_signs & 0x44444444u);
    a[0] = iq2_values(low), a[2] = iq2_values(upper_half(low));
    a[1] = iq2_values(upper), a[3] = iq2_values(upper_half(upper));
  }
  __device__ static void read_codes(const formats::IQ2_S::Block& block, int k, std::int8_t q[8]) {
    q[0] = static_cast<std::int8_t>(block.indices[k]);
    q[1] = static_cast<std::int8_t>(block.signs[k]);
    q[2] = static_cast<std::int8_t>(block.high_bits[k / 4] >> (2 * (k % 4)) & 3);
  }
  __device__ static void write_code(formats::IQ2_S::Block& block, int k, int i, int q) {
    if (i == 0) block.indices[k] = static_cast<std::uint8_t>(q);
    if (i == 1) block.signs[k] = static_cast<std::uint8_t>(q);
    if (i == 2) block.high_bits[k / 4] |= static_cast<std::uint8_t>((q & 3) << (2 * (k % 4)));
  }
  __device__ static void pack_quants(std::uint8_t* piece, int, int j, int lane,
                                     const std::int8_t row_g[8], const std::int8_t row_g8[8]) {
    const auto byte = [](std::int8_t q) { return static_cast<std::uint32_t>(q) & 255u; };
    std::uint32_t* indices = pair_word<2>(piece, j, lane, 0);
    std::uint32_t* signs = pair_word<2>(piece, j, lane, 1);
    std::uint32_t* high = high_word(piece, lane);
    if ((j & 1) == 0) *indices = *signs = 0;
    if (j == 0) *high = 0;
    const int unit = 2 * (j & 1);
    *indices |= (byte(row_g[0]) | byte(row_g8[0]) << 8) << (8 * unit);
    *signs |= (spread_bits(byte(row_g[1])) | spread_bits(byte(row_g8[1])) << 1) << unit;
    *high |= (byte(row_g[2]) | byte(row_g8[2]) << 16) << (14 - 2 * j);
  }
  __device__ static void unpack_quants(const std::uint8_t* piece, int, int j, int lane,
                                       std::int8_t row_g[8], std::int8_t row_g8[8]) {
    const uint2 w = pair_words(piece, j, lane);
    const std::uint32_t high = load_word(piece + 1024 + 4 * lane) >> (14 - 2 * j);
    const int unit = 2 * (j & 1);
    row_g[0] = static_cast<std::int8_t>(w.x >> (8 * unit));
    row_g8[0] = static_cast<std::int8_t>(w.x >> (8 * unit + 8));
    row_g[1] = static_cast<std::int8_t>(gather_bits(w.y >> unit));
    row_g8[1] = static_cast<std::int8_t>(gather_bits(w.y >> (unit + 1)));
    row_g[2] = static_cast<std::int8_t>(high & 3u),
    row_g8[2] = static_cast<std::int8_t>(high >> 16 & 3u);
  }
};

}  // namespace quantloom::kernels
