// Planes of IQ1_S and IQ1_M. A grid row is looked up as eight nibbles of level 0 .. 2. Per two
// groups a lane has a word of four index bytes (row g, row g + 8, and the next group's), and per
// four groups one of eight nibbles (row g, row g + 8 of each group) with three upper bits of an
// index and a fourth bit.
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
  // Code 0 is the index's lower byte, code 1 the nibble.
  __device__ static void pack_quants(std::uint8_t* piece, int, int j, int lane,
                                     const std::int8_t row_g[8], const std::int8_t row_g8[8]) {
    std::uint8_t* bytes = piece + (j / 2 * 32 + lane) * 4 + 2 * (j & 1);
    bytes[0] = static_cast<std::uint8_t>(row_g[0]), bytes[1] = static_cast<std::uint8_t>(row_g8[0]);
    piece[nibbles_at + (j / 4 * 32 + lane) * 4 + j % 4] =
        static_cast<std::uint8_t>(row_g[1] | row_g8[1] << 4);
  }
  __device__ static void unpack_quants(const std::uint8_t* piece, int, int j, int lane,
                                       std::int8_t row_g[8], std::int8_t row_g8[8]) {
    const std::uint32_t index = indices(piece, j, lane) >> (16 * (j & 1));
    const std::uint32_t nibble = nibbles(piece, j, lane) >> (8 * (j & 3));
    row_g[0] = static_cast<std::int8_t>(index), row_g8[0] = static_cast<std::int8_t>(index >> 8);
    row_g[1] = static_cast<std::int8_t>(nibble & 15u);
    row_g8[1] = static_cast<std::int8_t>(nibble >> 4 & 15u);
  }
};

// The fourth bit is one of the group's scale, on top of which is the sign of its shift, +-1/8: an
// offset. It is the nibble's lowest.
template <>
struct Planes<formats::IQ1_S> : Iq1Planes<formats::IQ1_S, Span{0, 2, 1}> {
  static constexpr bool has_offset = true;
  __device__ static void quants(const std::uint8_t* piece, int, int j, int lane, std::uint32_t a[4],
                                const std::uint8_t* table) {
    const std::uint32_t w = indices(piece, j, lane), own = 4u * (lane & 7);
    const std::uint32_t byte = nibbles(piece, j, lane) >> (8 * (j & 3));
    const std::uint32_t first = grid_entry(table, w, 2 * (j & 1), (byte << 4 & 224u) | own);
    const std::uint32_t second = grid_entry(table, w, 2 * (j & 1) + 1, (byte & 224u) | own);
    constexpr std::uint32_t values = 0x000100ffu;
    a[0] = permute(values, 0u, first), a[2] = permute(values, 0u, first >> 16);
    a[1] = permute(values, 0u, second), a[3] = permute(values, 0u, second >> 16);
  }
  __device__ static Affine affine(const std::uint8_t* piece, int n, int row, int quad, int t) {
    const int lane = 4 * (row & 7) + t;
    const std::uint32_t bits = nibbles(piece, 4 * quad, lane) >> (row & 8 ? 4 : 0) & 0x01010101u;
    const std::uint32_t nibble = bits * 0x01020408u >> 24;
    const float scale = load_half(span<0>(piece, n, 0, row)) *
                        static_cast<float>(static_cast<int>(2 * (nibble & 7u) + 1));
    return {scale, nibble & 8u ? scale * -0.125f : scale * 0.125f};
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

// The fourth bit is the sign of the unit's shift, the nibble's highest: nibbles select 8 * (level -
// 1) + 1 or, with bit 2 set, - 1.
template <>
struct Planes<formats::IQ1_M> : Iq1Planes<formats::IQ1_M, Span{48, 8, 1}> {
  __device__ static void quants(const std::uint8_t* piece, int, int j, int lane, std::uint32_t a[4],
                                const std::uint8_t* table) {
    const std::uint32_t w = indices(piece, j, lane), own = 4u * (lane & 7);
    const std::uint32_t all = nibbles(piece, j, lane);
    const std::uint32_t byte = all >> (8 * (j & 3));
    // All bits of a word set where the highest bit of a byte is: the permutation's sign mode.
    const std::uint32_t replicate = 0x8888u + 0x1111u * static_cast<std::uint32_t>(j & 3);
    const std::uint32_t first = grid_entry(table, w, 2 * (j & 1), (byte << 5 & 224u) | own) |
                                (permute(all << 4, 0u, replicate) & 0x44444444u);
    const std::uint32_t second = grid_entry(table, w, 2 * (j & 1) + 1, (byte << 1 & 224u) | own) |
                                 (permute(all, 0u, replicate) & 0x44444444u);
    const auto values = [](std::uint32_t s) { return permute(0x000901f9u, 0x0007fff7u, s); };
    a[0] = values(first), a[2] = values(first >> 16);
    a[1] = values(second), a[3] = values(second >> 16);
  }
  __device__ static Affine affine(const std::uint8_t* piece, int n, int row, int quad, int t) {
    const uint2 w = *reinterpret_cast<const uint2*>(span<0>(piece, n, 0, row));
    const std::uint32_t d = ((w.x >> 12) & 0xfu) | ((w.x >> 24) & 0xf0u) | ((w.y >> 4) & 0xf00u) |
                            ((w.y >> 16) & 0xf000u);
    const std::uint32_t word = quad < 2 ? w.x : w.y;
    const int scale = static_cast<int>((word >> (16 * (quad & 1) + 3 * t)) & 7u);
    return {__half2float(__ushort_as_half(static_cast<unsigned short>(d))) *
                static_cast<float>(2 * scale + 1) * 0.125f,
            0.0f};
  }
  __device__ static void read_codes(const formats::IQ1_M::Block& block, int k, std::int8_t q[8]) {
    q[0] = static_cast<std::int8_t>(block.indices[k]);
    q[1] = static_cast<std::int8_t>(block.high_bits[k / 2] >> (4 * (k % 2)) & 15);
  }
  __device__ static void write_code(formats::IQ1_M::Block& block, int k, int i, int q) {
    if (i == 0) block.indices[k] = static_cast<std::uint8_t>(q);
    if (i == 1) block.high_bits[k / 2] |= static_cast<std::uint8_t>((q & 15) << (4 * (k % 2)));
  }
};

}  // namespace quantloom::kernels
