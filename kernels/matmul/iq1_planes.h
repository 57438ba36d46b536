// Planes of IQ1_S and IQ1_M. A grid row is looked up as eight nibbles of level 0 .. 2. Per two
// groups a lane has a word of four index bytes (row g, row g + 8, and the next group's), and per
// four groups one of eight nibbles with three upper bits of an index above a fourth bit: row g's in
// the lower half, the first group's on top. So one shift by the group brings both rows' bits to
// where an address has them. Above a lane's own bits, they leave the eight copies of an entry in
// eight banks: between them, four reads of a warp would more often meet in one.
#pragma once

#include "matmul/grid_planes.h"

namespace quantloom::kernels {

// Bytes -1, 0, 1 plus one are the levels; without their upper bits no sum carries.
constexpr std::uint32_t iq1_levels(std::uint64_t row) {
  return nibbles_of_bytes((row & 0x0303030303030303u) + 0x0101010101010101u);
}
static __device__ constexpr auto iq1_words = grid_words(formats::iq1_grid_host, iq1_levels);

template <class F, Span... spans_>
struct Iq1Planes : UnitPlanes<F, 12, spans_...> {
  static constexpr int nibbles_at = 512;
  __device__ static std::uint32_t table_word(int row, int column) {
    return iq1_words.words[row + column / 2 * 256];
  }
  __device__ static std::uint32_t indices(const std::uint8_t* piece, int j, int lane) {
    return load_word(piece + (j / 2 * 32 + lane) * 4);
  }
  __device__ static std::uint32_t nibbles(const std::uint8_t* piece, int j, int lane) {
    return load_word(piece + nibbles_at + (j / 4 * 32 + lane) * 4);
  }
  // The nibbles of group j on top of each half.
  __device__ static std::uint32_t top_nibbles(const std::uint8_t* piece, int j, int lane) {
    return nibbles(piece, j, lane) << (4 * (j & 3));
  }
  __device__ static std::uint32_t in_rows(std::uint32_t top, int lane) {
    return (top & 0xe000e000u) | 0x04000400u * (lane & 7);
  }
  // Code 0 is the index's lower byte, code 1 the nibble.
  __device__ static void pack_quants(std::uint8_t* piece, int, int j, int lane,
                                     const std::int8_t row_g[8], const std::int8_t row_g8[8]) {
    std::uint8_t* bytes = piece + (j / 2 * 32 + lane) * 4 + 2 * (j & 1);
    bytes[0] = static_cast<std::uint8_t>(row_g[0]), bytes[1] = static_cast<std::uint8_t>(row_g8[0]);
    auto& nibbles = reinterpret_cast<std::uint32_t*>(piece + nibbles_at)[j / 4 * 32 + lane];
    if (j % 4 == 0) nibbles = 0;
    nibbles |= static_cast<std::uint32_t>(row_g[1] | row_g8[1] << 16) << (12 - 4 * (j % 4));
  }
  __device__ static void unpack_quants(const std::uint8_t* piece, int, int j, int lane,
                                       std::int8_t row_g[8], std::int8_t row_g8[8]) {
    const std::uint32_t index = indices(piece, j, lane) >> (16 * (j & 1));
    const std::uint32_t nibble = nibbles(piece, j, lane) >> (12 - 4 * (j & 3));
    row_g[0] = static_cast<std::int8_t>(index), row_g8[0] = static_cast<std::int8_t>(index >> 8);
    row_g[1] = static_cast<std::int8_t>(nibble & 15u);
    row_g8[1] = static_cast<std::int8_t>(nibble >> 16 & 15u);
  }
};

// The fourth bit is one of the group's scale, on top of which is the sign of its shift, +-1/8: an
// offset.
template <>
struct Planes<formats::IQ1_S> : Iq1Planes<formats::IQ1_S, Span{0, 2, 1}> {
  static constexpr bool has_offset = true;
  __device__ static void quants(const std::uint8_t* piece, int, int j, int lane, std::uint32_t a[4],
                                const std::uint8_t* table) {
    const std::uint32_t w = indices(piece, j, lane);
    const std::uint32_t in_row = in_rows(top_nibbles(piece, j, lane), lane);
    const std::uint32_t first = entry_of<0>(table, w, 2 * (j & 1), in_row);
    const std::uint32_t second = entry_of<1>(table, w, 2 * (j & 1) + 1, in_row);
    constexpr std::uint32_t values = 0x000100ffu;
    a[0] = permute(values, 0u, first), a[2] = permute(values, 0u, upper_half(first));
    a[1] = permute(values, 0u, second), a[3] = permute(values, 0u, upper_half(second));
  }
  static constexpr bool has_integer_scales = true;
  __device__ static float unit(const std::uint8_t* piece, int n, int row) {
    return load_half(span<0>(piece, n, 0, row));
  }
  // The fourth bits next to each other, from bit 12 on: no two products meet.
  __device__ static std::uint32_t fourth_bits(const std::uint8_t* piece, int row, int quad) {
    const std::uint32_t both = nibbles(piece, 4 * quad, own_lane());
    return ((row & 8 ? upper_half(both) : both) & 0x1111u) * 0x8421u;
  }
  __device__ static int integer_scale(const std::uint8_t* piece, int, int row, int quad, int) {
    return static_cast<int>((fourth_bits(piece, row, quad) >> 11 & 14u) + 1);
  }
  __device__ static Affine affine(const std::uint8_t* piece, int n, int row, int quad, int) {
    const std::uint32_t bits = fourth_bits(piece, row, quad);
    const float scale = load_half(span<0>(piece, n, 0, row)) * field_value<12, 1>(bits, 7u, 1.0f);
    const std::uint32_t sign = bits << 16 & 0x80000000u;
    return {scale, __uint_as_float(__float_as_uint(scale * 0.125f) ^ sign)};
  }
  __device__ static void read_codes(const formats::IQ1_S::Block& block, int k, std::int8_t q[8]) {
    const int scale = block.high_bits[scale_group_of_unit(k)] >> 12;
    q[0] = static_cast<std::int8_t>(block.indices[k]);
    q[1] = static_cast<std::int8_t>((block.high_bits[k / 4] >> (3 * (k % 4)) & 7) << 1 |
                                    (scale >> scale_bit_of_unit(k) & 1));
  }
  __device__ static void write_code(formats::IQ1_S::Block& block, int k, int i, int q) {
    if (i == 0) block.indices[k] = static_cast<std::uint8_t>(q);
    if (i != 1) return;
    block.high_bits[k / 4] |= static_cast<std::uint16_t>((q >> 1 & 7) << (3 * (k % 4)));
    block.high_bits[scale_group_of_unit(k)] |=
        static_cast<std::uint16_t>((q & 1) << (12 + scale_bit_of_unit(k)));
  }
};

// The fourth bit is the sign of the unit's shift: nibbles select 8 * (level - 1) + 1 or, with bit 2
// set, - 1.
template <>
struct Planes<formats::IQ1_M> : Iq1Planes<formats::IQ1_M, Span{48, 8, 1}> {
  __device__ static void quants(const std::uint8_t* piece, int, int j, int lane, std::uint32_t a[4],
                                const std::uint8_t* table) {
    const std::uint32_t w = indices(piece, j, lane), top = top_nibbles(piece, j, lane);
    const std::uint32_t in_row = in_rows(top, lane);
    // All bits of a word set where the highest bit of a byte is: the permutation's sign mode.
    const std::uint32_t signs = top * (unknown_zero() + 8u);
    const std::uint32_t first =
        entry_of<0>(table, w, 2 * (j & 1), in_row) | (permute(signs, 0u, 0x9999u) & 0x44444444u);
    const std::uint32_t second = entry_of<1>(table, w, 2 * (j & 1) + 1, in_row) |
                                 (permute(signs, 0u, 0xbbbbu) & 0x44444444u);
    const auto values = [](std::uint32_t s) { return permute(0x000901f9u, 0x0007fff7u, s); };
    a[0] = values(first), a[2] = values(upper_half(first));
    a[1] = values(second), a[3] = values(upper_half(second));
  }
  static constexpr bool has_integer_scales = true;
  __device__ static uint2 word(const std::uint8_t* piece, int n, int row) {
    return *reinterpret_cast<const uint2*>(span<0>(piece, n, 0, row));
  }
  __device__ static float d(const uint2& w) {
    // The upper nibbles of the 16-bit words: of bytes, then next to each other in bytes 0 and 2.
    const std::uint32_t nibbles = permute(w.x, w.y, 0x7531u) & 0xf0f0f0f0u;
    const std::uint32_t bits = permute(__umulhi(nibbles, 0x11000000u), 0u, 0x4420u);
    return __half2float(__ushort_as_half(static_cast<unsigned short>(bits)));
  }
  // The three bits are the lowest of the half that the lowest bit of `quad` names.
  __device__ static std::uint32_t bits(const uint2& w, int quad, int t) {
    return (quad & 2 ? w.y : w.x) >> (3 * t);
  }
  __device__ static float unit(const std::uint8_t* piece, int n, int row) {
    return d(word(piece, n, row)) * 0.125f;
  }
  __device__ static int integer_scale(const std::uint8_t* piece, int n, int row, int quad, int t) {
    const std::uint32_t three = bits(word(piece, n, row), quad, t) >> (16 * (quad & 1)) & 7u;
    return static_cast<int>(2 * three + 1);
  }
  __device__ static Affine affine(const std::uint8_t* piece, int n, int row, int quad, int t) {
    const uint2 w = word(piece, n, row);
    const std::uint32_t b = bits(w, quad, t);
    const float scale = quad & 1 ? field_value<16, 1>(b, 7u, 1.0f) : field_value<0, 1>(b, 7u, 1.0f);
    return {d(w) * scale * 0.125f, 0.0f};
  }
  __device__ static void read_codes(const formats::IQ1_M::Block& block, int k, std::int8_t q[8]) {
    q[0] = static_cast<std::int8_t>(block.indices[k]);
    const int nibble = block.high_bits[k / 2] >> (4 * (k % 2)) & 15;
    q[1] = static_cast<std::int8_t>((nibble << 1 | nibble >> 3) & 15);
  }
  __device__ static void write_code(formats::IQ1_M::Block& block, int k, int i, int q) {
    if (i == 0) block.indices[k] = static_cast<std::uint8_t>(q);
    if (i == 1) {
      block.high_bits[k / 2] |=
          static_cast<std::uint8_t>(((q >> 1 & 7) | (q & 1) << 3) << (4 * (k % 2)));
    }
  }
};

}  // namespace quantloom::kernels
