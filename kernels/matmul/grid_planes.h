// What the planes of the codebook formats (IQ1, IQ2, IQ3) share: units and tables.
//
// A unit is eight weights of one row: its grid indices, its signs, and one bit of its row's scale
// where the format keeps four bits of scale per 32 weights: unit t of group 4 * quad + j has bit j
// of the scale of group 4 * quad + t, so that the lane that needs a scale has its bits.
//
// Tables stand in shared memory in 256 rows of 256 bytes, copied side by side for the lanes, so
// that one byte permutation makes an address of an index byte, and random rows fall into few banks
// twice.
#pragma once

#include "formats/iq_grids.h"
#include "matmul/nibble_planes.h"

namespace quantloom::kernels {

constexpr int grid_table_bytes = 65536;

// Words of a table that stands in global memory in no more than its distinct entries.
template <int count>
struct GridWords {
  std::uint32_t words[count];
};

// Eight bytes of two bits to eight nibbles.
constexpr std::uint32_t nibbles_of_bytes(std::uint64_t bytes) {
  std::uint64_t x = bytes & 0x0303030303030303u;
  x = (x | x >> 4) & 0x00ff00ff00ff00ffu;
  x = (x | x >> 8) & 0x0000ffff0000ffffu;
  return static_cast<std::uint32_t>(x | x >> 16);
}

// Bit i to bit 4i.
QL_HOST_DEVICE constexpr std::uint32_t spread_bits(std::uint32_t bits) {
  std::uint32_t x = (bits | bits << 12) & 0x000f000fu;
  x = (x | x << 6) & 0x03030303u;
  return (x | x << 3) & 0x11111111u;
}

template <int count, class Row, class Word>
constexpr GridWords<count> grid_words(const formats::Grid<Row, count>& grid, Word&& word) {
  GridWords<count> made{};
  for (int i = 0; i < count; ++i) made.words[i] = word(grid.rows[i]);
  return made;
}

// Entry i: bit 4k + 2 set where weight k is negative, of the eight signs whose first seven are i.
constexpr GridWords<128> make_sign_words() {
  GridWords<128> made{};
  for (unsigned i = 0; i < 128; ++i) {
    unsigned parity = i ^ i >> 4;
    parity ^= parity >> 2;
    parity ^= parity >> 1;
    made.words[i] = spread_bits(i | (parity & 1u) << 7) << 2;
  }
  return made;
}
static __device__ constexpr GridWords<128> sign_words = make_sign_words();

// The entry in the row that byte `byte` of `codes` names; `in_row` is the offset in it.
template <int byte>
__device__ inline std::uint32_t grid_entry(const std::uint8_t* table, std::uint32_t codes,
                                           std::uint32_t in_row) {
  return load_word(table + permute(codes, in_row, 0x5504u | byte << 4));
}

// The same with the byte's number known at run time.
__device__ inline std::uint32_t grid_entry(const std::uint8_t* table, std::uint32_t codes, int byte,
                                           std::uint32_t in_row) {
  return load_word(table + permute(codes, in_row, 0x5504u | static_cast<std::uint32_t>(byte) << 4));
}

// The same for the offset in the upper byte of half `half` of in_rows, whose lower bytes are 0.
template <int half>
__device__ inline std::uint32_t entry_of(const std::uint8_t* table, std::uint32_t codes, int byte,
                                         std::uint32_t in_rows) {
  constexpr std::uint32_t offset = 0x4405u + 2u * half;
  return load_word(table + permute(codes, in_rows, offset | static_cast<std::uint32_t>(byte) << 4));
}

// The busiest pipe of the one-token kernels is the one for logic, which shifts and permutes too;
// these two are multiplications, on another. A compiler that knew the factors would not multiply.
__device__ inline std::uint32_t unknown_zero() {
  std::uint32_t lane;
  asm("mov.u32 %0, %%laneid;" : "=r"(lane));
  return lane >> 5;
}
// The same of a number whose range the compiler does not know: of two values that come from the
// lane's it found out (IQ3_S). With this one IQ2 is up to 3% slower.
__device__ inline std::uint32_t unbounded_zero() {
  std::uint32_t processor;
  asm("mov.u32 %0, %%smid;" : "=r"(processor));
  return processor >> 16;
}
// a | b of words without a common bit.
__device__ inline std::uint32_t join(std::uint32_t a, std::uint32_t b) {
  return a * (unknown_zero() + 1u) + b;
}
__device__ inline std::uint32_t upper_half(std::uint32_t w) {
  const std::uint32_t factor = unknown_zero() + 65536u;
  return static_cast<std::uint32_t>(static_cast<std::uint64_t>(w) * factor >> 32);
}

// 2^doublings * (the field of `bits` at `position` that `mask` leaves) + plus, exactly, without a
// conversion from an integer.
template <int position, int doublings = 0>
__device__ inline float field_value(std::uint32_t bits, std::uint32_t mask, float plus) {
  constexpr int exponent = 23 - position + doublings;
  constexpr std::uint32_t base = static_cast<std::uint32_t>(127 + exponent) << 23;
  return __uint_as_float((bits & mask << position) | base) +
         (plus - static_cast<float>(1 << exponent));
}

// affine() is called by the lane that has unit t of its row: 4 * (row % 8) + t. Where that is not
// said, words that quants() has read too are read again.
__device__ inline int own_lane() { return static_cast<int>(threadIdx.x & 31u); }

// P::table_word(row, column) is the word at byte 16 * column of a table row, four times.
//
// Formats of `bits` bits a unit, 256 weights a block. D reads and writes a unit's fields as codes.
template <class F, int bits, Span... spans_>
struct UnitPlanes : PieceLayout<F, 8 * bits, spans_...> {
  static_assert(F::elements == 256);
  static constexpr bool is_signed = true;
  static constexpr bool has_offset = false;
  static constexpr int table_bytes = grid_table_bytes;

  // Word `word` of the lane's `words` for two groups from group j / 2 * 2 on.
  template <int words>
  __device__ static std::uint32_t* pair_word(std::uint8_t* from, int j, int lane, int word) {
    return reinterpret_cast<std::uint32_t*>(from) + (j / 2 * 32 + lane) * words + word;
  }
  __device__ static uint2 pair_words(const std::uint8_t* piece, int j, int lane) {
    return reinterpret_cast<const uint2*>(piece)[j / 2 * 32 + lane];
  }
};

__device__ inline std::uint32_t gather_bits(std::uint32_t spread) {
  std::uint32_t x = spread & 0x11111111u;
  x = (x | x >> 3) & 0x03030303u;
  x = (x | x >> 6) & 0x000f000fu;
  return (x | x >> 12) & 0xffu;
}

// The group whose scale unit k of a row has a bit of, and which.
__device__ inline int scale_group_of_unit(int k) { return k / 16 * 4 + k % 4; }
__device__ inline int scale_bit_of_unit(int k) { return k / 4 % 4; }

}  // namespace quantloom::kernels
