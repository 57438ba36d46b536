// Planes of IQ3_XXS and IQ3_S. A lane's indices are a word per group: two bytes of row g (of
// weights 8t .. 8t + 3 and of the next four), two of row g + 8. A grid row is four magnitudes; a
// selector of nibbles takes byte i or, where the weight is negative, byte i of the negated row.
#pragma once

#include "matmul/grid_planes.h"

namespace quantloom::kernels {

// No byte is 0, so that no subtraction borrows; which is a multiplication, as join() is.
__device__ inline std::uint32_t iq3_values(std::uint32_t magnitudes, std::uint32_t selector) {
  return permute(magnitudes, magnitudes * (unbounded_zero() - 1u) + 0x01010100u, selector);
}

// 0x3210 in a register: with two constants the selection below would take two instructions.
__device__ inline std::uint32_t straight_selector() { return unbounded_zero() + 0x3210u; }

template <class F, int bits, Span... spans_>
struct Iq3Planes : UnitPlanes<F, bits, spans_...> {
  static constexpr int signs_at = 1024;
  __device__ static std::uint32_t indices(const std::uint8_t* piece, int j, int lane) {
    const uint2 pair = Iq3Planes::pair_words(piece, j, lane);
    return j & 1 ? pair.y : pair.x;
  }
  __device__ static std::uint32_t signs(const std::uint8_t* piece, int j, int lane) {
    return load_word(piece + signs_at + (j / 2 * 32 + lane) * 4);
  }
  __device__ static void pack_indices(std::uint8_t* piece, int j, int lane,
                                      const std::int8_t row_g[8], const std::int8_t row_g8[8]) {
    const auto byte = [](std::int8_t q) { return static_cast<std::uint32_t>(q) & 255u; };
    *Iq3Planes::template pair_word<2>(piece, j, lane, j & 1) =
        byte(row_g[0]) | byte(row_g[1]) << 8 | byte(row_g8[0]) << 16 | byte(row_g8[1]) << 24;
  }
  __device__ static void unpack_indices(const std::uint8_t* piece, int j, int lane,
                                        std::int8_t row_g[8], std::int8_t row_g8[8]) {
    const std::uint32_t w = indices(piece, j, lane);
    row_g[0] = static_cast<std::int8_t>(w), row_g[1] = static_cast<std::int8_t>(w >> 8);
    row_g8[0] = static_cast<std::int8_t>(w >> 16), row_g8[1] = static_cast<std::int8_t>(w >> 24);
  }
};

// Sign bytes of two groups are a word; the upper bit of each is one of a scale. Table rows: the
// grid in the lower half, selectors of seven signs in the upper one.
template <>
struct Planes<formats::IQ3_XXS> : Iq3Planes<formats::IQ3_XXS, 24, Span{0, 2, 1}> {
  __device__ static std::uint32_t table_word(int row, int column) {
    return column < 8 ? formats::iq3_xxs_grid()[row] : 0x32103210u | sign_words.words[row & 127];
  }
  __device__ static void quants(const std::uint8_t* piece, int, int j, int lane, std::uint32_t a[4],
                                const std::uint8_t* table) {
    const std::uint32_t w = indices(piece, j, lane), s = signs(piece, j, lane), in_row = 4u * lane;
    const std::uint32_t first = grid_entry(table + 128, s, 2 * (j & 1), in_row);
    const std::uint32_t second = grid_entry(table + 128, s, 2 * (j & 1) + 1, in_row);
    a[0] = iq3_values(grid_entry<0>(table, w, in_row), first);
    a[2] = iq3_values(grid_entry<1>(table, w, in_row), first >> 16);
    a[1] = iq3_values(grid_entry<2>(table, w, in_row), second);
    a[3] = iq3_values(grid_entry<3>(table, w, in_row), second >> 16);
  }
  static constexpr bool has_integer_scales = true;
  __device__ static float unit(const std::uint8_t* piece, int n, int row) {
    return load_half(span<0>(piece, n, 0, row)) * 0.25f;
  }
  __device__ static int integer_scale(const std::uint8_t* piece, int, int row, int quad, int t) {
    const int lane = 4 * (row & 7) + t, shift = row & 8 ? 15 : 7;
    const std::uint32_t low = (signs(piece, 4 * quad, lane) >> shift) & 0x00010001u;
    const std::uint32_t high = (signs(piece, 4 * quad + 2, lane) >> shift) & 0x00010001u;
    const std::uint32_t bits = low + 4 * high;
    return static_cast<int>(2 * ((bits | bits >> 15) & 15u) + 1);
  }
  __device__ static Affine affine(const std::uint8_t* piece, int n, int row, int quad, int t) {
    return {unit(piece, n, row) * static_cast<float>(integer_scale(piece, n, row, quad, t)), 0.0f};
  }
  __device__ static void read_codes(const formats::IQ3_XXS::Block& block, int k, std::int8_t q[8]) {
    const std::uint16_t* words = block.signs_and_scale + k / 4 * 2;
    const std::uint32_t seven =
        (words[0] | static_cast<std::uint32_t>(words[1]) << 16) >> (7 * (k % 4)) & 127u;
    const int scale = block.signs_and_scale[2 * scale_group_of_unit(k) + 1] >> 12;
    q[0] = static_cast<std::int8_t>(block.indices[2 * k]);
    q[1] = static_cast<std::int8_t>(block.indices[2 * k + 1]);
    q[2] = static_cast<std::int8_t>(
        seven | static_cast<std::uint32_t>(scale >> scale_bit_of_unit(k) & 1) << 7);
  }
  __device__ static void write_code(formats::IQ3_XXS::Block& block, int k, int i, int q) {
    if (i < 2) block.indices[2 * k + i] = static_cast<std::uint8_t>(q);
    if (i != 2) return;
    std::uint16_t* words = block.signs_and_scale + k / 4 * 2;
    const std::uint32_t seven = static_cast<std::uint32_t>(q & 127) << (7 * (k % 4));
    words[0] |= static_cast<std::uint16_t>(seven),
        words[1] |= static_cast<std::uint16_t>(seven >> 16);
    block.signs_and_scale[2 * scale_group_of_unit(k) + 1] |=
        static_cast<std::uint16_t>((q >> 7 & 1) << (12 + scale_bit_of_unit(k)));
  }
  __device__ static void pack_quants(std::uint8_t* piece, int, int j, int lane,
                                     const std::int8_t row_g[8], const std::int8_t row_g8[8]) {
    pack_indices(piece, j, lane, row_g, row_g8);
    piece[signs_at + (j / 2 * 32 + lane) * 4 + 2 * (j & 1)] = static_cast<std::uint8_t>(row_g[2]);
    piece[signs_at + (j / 2 * 32 + lane) * 4 + 2 * (j & 1) + 1] =
        static_cast<std::uint8_t>(row_g8[2]);
  }
  __device__ static void unpack_quants(const std::uint8_t* piece, int, int j, int lane,
                                       std::int8_t row_g[8], std::int8_t row_g8[8]) {
    unpack_indices(piece, j, lane, row_g, row_g8);
    const std::uint32_t s = signs(piece, j, lane) >> (16 * (j & 1));
    row_g[2] = static_cast<std::int8_t>(s), row_g8[2] = static_cast<std::int8_t>(s >> 8);
  }
};

// Signs of two groups are a word, of group j in half j % 2: bit 4i + r is of weight i of register r
// (planes.h). Behind them, per piece, a word with the indices' ninth bits: those of group 0 on top
// of bytes 1 and 3 (row g) and of bytes 0 and 2 (row g + 8), the next groups' below.
template <>
struct Planes<formats::IQ3_S> : Iq3Planes<formats::IQ3_S, 26, Span{106, 4, 1}, Span{0, 2, 1}> {
  static constexpr int high_at = 1536;
  __device__ static std::uint32_t table_word(int row, int column) {
    return formats::iq3_s_grid()[row + column / 8 * 256];
  }
  __device__ static void quants(const std::uint8_t* piece, int, int j, int lane, std::uint32_t a[4],
                                const std::uint8_t* table) {
    const std::uint32_t w = indices(piece, j, lane);
    const std::uint32_t high = load_word(piece + high_at + 4 * lane) << j;
    const auto in_rows = [&](std::uint32_t top) {
      return (top & 0x80008000u) | 0x04000400u * lane;
    };
    const std::uint32_t of_g = in_rows(high), of_g8 = in_rows(high << 8);
    const std::uint32_t s = j & 1 ? signs(piece, j, lane) >> 16 : signs(piece, j, lane);
    const std::uint32_t straight = straight_selector();
    const auto selector = [&](std::uint32_t bits) { return (bits & 0x4444u) | straight; };
    a[0] = iq3_values(entry_of<0>(table, w, 0, of_g), selector(s << 2));
    a[2] = iq3_values(entry_of<1>(table, w, 1, of_g), selector(s));
    a[1] = iq3_values(entry_of<0>(table, w, 2, of_g8), selector(s << 1));
    a[3] = iq3_values(entry_of<1>(table, w, 3, of_g8), selector(s >> 1));
  }
  static constexpr bool has_integer_scales = true;
  __device__ static float unit(const std::uint8_t* piece, int n, int row) {
    return load_half(span<1>(piece, n, 0, row));
  }
  __device__ static int integer_scale(const std::uint8_t* piece, int n, int row, int quad, int t) {
    const std::uint32_t word = load_word(span<0>(piece, n, 0, row)) >> (16 * quad + 4 * t);
    return static_cast<int>(2 * (word & 15u) + 1);
  }
  __device__ static Affine affine(const std::uint8_t* piece, int n, int row, int quad, int t) {
    return {unit(piece, n, row) * static_cast<float>(integer_scale(piece, n, row, quad, t)), 0.0f};
  }
  __device__ static void read_codes(const formats::IQ3_S::Block& block, int k, std::int8_t q[8]) {
    q[0] = static_cast<std::int8_t>(block.indices[2 * k]);
    q[1] = static_cast<std::int8_t>(block.indices[2 * k + 1]);
    q[2] = static_cast<std::int8_t>(block.signs[k]);
    q[3] = static_cast<std::int8_t>(block.high_bits[k / 4] >> (2 * (k % 4)) & 3);
  }
  __device__ static void write_code(formats::IQ3_S::Block& block, int k, int i, int q) {
    if (i < 2) block.indices[2 * k + i] = static_cast<std::uint8_t>(q);
    if (i == 2) block.signs[k] = static_cast<std::uint8_t>(q);
    if (i == 3) block.high_bits[k / 4] |= static_cast<std::uint8_t>((q & 3) << (2 * (k % 4)));
  }
  // A row's two ninth bits, 16 places apart.
  __device__ static std::uint32_t spread_two(std::int8_t bits) {
    return (static_cast<std::uint32_t>(bits) & 1u) | (static_cast<std::uint32_t>(bits) & 2u) << 15;
  }
  __device__ static std::int8_t gather_two(std::uint32_t bits) {
    return static_cast<std::int8_t>((bits & 1u) | (bits >> 15 & 2u));
  }
  // Eight signs of a row as they stand in a word's half, for row g.
  __device__ static std::uint32_t spread_row(std::int8_t signs) {
    const std::uint32_t x = spread_bits(static_cast<std::uint32_t>(signs) & 255u);
    return (x & 0xffffu) | x >> 16 << 2;
  }
  __device__ static std::int8_t gather_row(std::uint32_t half) {
    return static_cast<std::int8_t>(gather_bits((half & 0x1111u) | (half >> 2 & 0x1111u) << 16));
  }
  __device__ static void pack_quants(std::uint8_t* piece, int, int j, int lane,
                                     const std::int8_t row_g[8], const std::int8_t row_g8[8]) {
    pack_indices(piece, j, lane, row_g, row_g8);
    reinterpret_cast<std::uint16_t*>(piece + signs_at)[(j / 2 * 32 + lane) * 2 + (j & 1)] =
        static_cast<std::uint16_t>(spread_row(row_g[2]) | spread_row(row_g8[2]) << 1);
    auto& high = reinterpret_cast<std::uint32_t*>(piece + high_at)[lane];
    if (j == 0) high = 0;
    high |= (spread_two(row_g[3]) << 8 | spread_two(row_g8[3])) << (7 - j);
  }
  __device__ static void unpack_quants(const std::uint8_t* piece, int, int j, int lane,
                                       std::int8_t row_g[8], std::int8_t row_g8[8]) {
    unpack_indices(piece, j, lane, row_g, row_g8);
    const std::uint32_t s = signs(piece, j, lane) >> (16 * (j & 1));
    const std::uint32_t high = load_word(piece + high_at + 4 * lane) >> (7 - j);
    row_g[2] = gather_row(s), row_g8[2] = gather_row(s >> 1);
    row_g[3] = gather_two(high >> 8), row_g8[3] = gather_two(high);
  }
};

}  // namespace quantloom::kernels
