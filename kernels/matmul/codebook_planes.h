// Planes of the formats whose quants are looked up: four-bit tables in registers (IQ4, FP4), grids
// in shared memory (IQ1, IQ2, IQ3), and TQ1_0's base-3 digits.
#pragma once

#include "matmul/planes.h"

namespace quantloom::kernels {

using formats::Affine;

// Byte i of the result is the byte of b:a that nibble i of the selector's lower half names.
__device__ inline std::uint32_t permute(std::uint32_t a, std::uint32_t b, std::uint32_t selector) {
  std::uint32_t r;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(selector));
  return r;
}

// Nibble codes of a table of sixteen signed bytes, kept as codes: MXFP4 has two zeros, so values
// would lose a bit. Word 0 of a lane holds weights 8t .. 8t + 3 of row g in its lower and of row g
// + 8 in its upper half, word 1 the next four.
template <class F, std::uint64_t lower, std::uint64_t upper, Span... spans_>
struct NibblePlanes : PieceLayout<F, 256, spans_...> {
  static constexpr bool is_signed = true;
  static constexpr bool has_offset = false;

  __device__ static void look_up(std::uint32_t codes, std::uint32_t& low, std::uint32_t& high) {
    const std::uint32_t index = codes & 0x77777777u;
    const std::uint32_t half = ((codes & 0x88888888u) >> 1) | 0x32103210u;
    const auto word = [](std::uint64_t table, int i) {
      return static_cast<std::uint32_t>(table >> (32 * i));
    };
    low = permute(permute(word(lower, 0), word(lower, 1), index),
                  permute(word(upper, 0), word(upper, 1), index), half);
    high = permute(permute(word(lower, 0), word(lower, 1), index >> 16),
                   permute(word(upper, 0), word(upper, 1), index >> 16), half >> 16);
  }

  __device__ static void quants(const std::uint8_t* piece, int, int j, int lane, std::uint32_t a[4],
                                const std::uint8_t* = nullptr) {
    const uint2 w = *reinterpret_cast<const uint2*>(piece + j * 256 + lane * 8);
    look_up(w.x, a[0], a[1]);
    look_up(w.y, a[2], a[3]);
  }

  // Where the nibbles of weights 8k .. 8k + 7 stand in the block.
  __device__ static int nibble_byte(int k) {
    if constexpr (F::format == formats::Format::nvfp4) return 8 * (k / 2);
    return 16 * (k / 4) + 8 * (k & 1);
  }
  __device__ static int nibble_shift(int k) {
    if constexpr (F::format == formats::Format::nvfp4) return 4 * (k & 1);
    return k % 4 < 2 ? 0 : 4;
  }
  __device__ static void read_codes(const typename F::Block& block, int k, std::int8_t code[8]) {
    for (int i = 0; i < 8; ++i) {
      code[i] =
          static_cast<std::int8_t>((block.quants[nibble_byte(k) + i] >> nibble_shift(k)) & 15);
    }
  }
  __device__ static void write_code(typename F::Block& block, int k, int i, int code) {
    block.quants[nibble_byte(k) + i] |= static_cast<std::uint8_t>(code << nibble_shift(k));
  }
  __device__ static void pack_quants(std::uint8_t* piece, int, int j, int lane,
                                     const std::int8_t row_g[8], const std::int8_t row_g8[8]) {
    std::uint32_t words[2] = {};
    for (int i = 0; i < 8; ++i) {
      words[i / 4] |= static_cast<std::uint32_t>(row_g[i]) << (4 * (i % 4)) |
                      static_cast<std::uint32_t>(row_g8[i]) << (4 * (i % 4) + 16);
    }
    *reinterpret_cast<uint2*>(piece + j * 256 + lane * 8) = make_uint2(words[0], words[1]);
  }
  __device__ static void unpack_quants(const std::uint8_t* piece, int, int j, int lane,
                                       std::int8_t row_g[8], std::int8_t row_g8[8]) {
    const auto* words = reinterpret_cast<const std::uint32_t*>(piece + j * 256 + lane * 8);
    for (int i = 0; i < 8; ++i) {
      row_g[i] = static_cast<std::int8_t>((words[i / 4] >> (4 * (i % 4))) & 15u);
      row_g8[i] = static_cast<std::int8_t>((words[i / 4] >> (4 * (i % 4) + 16)) & 15u);
    }
  }
};

// The values of formats/iq4.h and formats/fp4.h.
constexpr std::uint64_t iq4_lower = 0xf6eaddcfbfad9881u, iq4_upper = 0x7159453526190d01u;
constexpr std::uint64_t fp4_lower = 0x0c08060403020100u, fp4_upper = 0xf4f8fafcfdfeff00u;

template <>
struct Planes<formats::IQ4_NL>
    : NibblePlanes<formats::IQ4_NL, iq4_lower, iq4_upper, Span{0, 2, 1}> {
  __device__ static Affine affine(const std::uint8_t* piece, int n, int row, int quad, int t) {
    return {load_half(span<0>(piece, n, 4 * quad + t, row)), 0.0f};
  }
};

template <>
struct Planes<formats::IQ4_XS>
    : NibblePlanes<formats::IQ4_XS, iq4_lower, iq4_upper, Span{0, 8, 1}> {
  __device__ static Affine affine(const std::uint8_t* piece, int n, int row, int quad, int t) {
    const uint2 w = *reinterpret_cast<const uint2*>(span<0>(piece, n, 0, row));
    const std::uint32_t low = w.y >> (16 * quad + 4 * t), high = w.x >> (16 + 8 * quad + 2 * t);
    const int scale = static_cast<int>((low & 15u) | (high & 3u) << 4) - 32;
    const float d = __half2float(__ushort_as_half(static_cast<unsigned short>(w.x)));
    return {d * static_cast<float>(scale), 0.0f};
  }
};

template <>
struct Planes<formats::MXFP4> : NibblePlanes<formats::MXFP4, fp4_lower, fp4_upper, Span{0, 1, 1}> {
  __device__ static Affine affine(const std::uint8_t* piece, int n, int row, int quad, int t) {
    const std::uint32_t e = *span<0>(piece, n, 4 * quad + t, row);
    return {__uint_as_float(e < 2 ? 0x00200000u << e : (e - 1) << 23), 0.0f};
  }
};

template <>
struct Planes<formats::NVFP4> : NibblePlanes<formats::NVFP4, fp4_lower, fp4_upper, Span{0, 4, 2}> {
  __device__ static Affine affine(const std::uint8_t* piece, int n, int row, int quad, int t) {
    const std::uint32_t code = span<0>(piece, n, 2 * quad + (t >> 1), row)[t & 1];
    const std::uint32_t exponent = (code >> 3) & 15u, mantissa = code & 7u;
    const float normal = __uint_as_float((exponent + 119u) << 23 | mantissa << 20);
    const float scale = exponent == 0 ? static_cast<float>(mantissa) * 0x1p-10f : normal;
    return {code == 0x7f ? 0.0f : scale, 0.0f};
  }
};

// A codebook in shared memory, every entry `copies` times side by side: random reads of 32 lanes
// fall into few banks of one copy, and with a copy per lane into none twice.
template <int entries, int copies, class Entry>
__device__ inline void fill_table(std::uint32_t* words, Entry&& entry) {
  const int lane = threadIdx.x % 32, warps = blockDim.x / 32;
  for (int base = threadIdx.x / 32 * 32; base < entries; base += warps * 32) {
    const std::uint32_t value = entry(base + lane);
#pragma unroll 4
    for (int i = 0; i < copies; ++i) {
      words[base * copies + i * 32 + lane] =
          __shfl_sync(0xffffffffu, value, i * (32 / copies) + lane / copies);
    }
  }
}

template <int copies>
__device__ inline const std::uint32_t* own_copy(const std::uint8_t* table, int lane) {
  return reinterpret_cast<const std::uint32_t*>(table) + lane % copies;
}

// Formats whose fields stay as they are, a row's after each other: D::unit gives eight weights of
// one row.
template <class D, class F, Span... spans_>
struct UnitPlanes : PieceLayout<F, 0, spans_...> {
  static constexpr bool is_signed = true;
  static constexpr bool has_offset = false;

  __device__ static void quants(const std::uint8_t* piece, int n, int j, int lane,
                                std::uint32_t a[4], const std::uint8_t* table) {
    const int g = lane >> 2, t = lane & 3;
    const uint2 u = D::unit(piece, n, j, g, t, table), v = D::unit(piece, n, j, g + 8, t, table);
    a[0] = u.x, a[1] = v.x, a[2] = u.y, a[3] = v.y;
  }
};

__device__ inline std::uint32_t load_short(const std::uint8_t* p) {
  return *reinterpret_cast<const std::uint16_t*>(p);
}

// Bit i to bit 4i + 2.
__device__ inline std::uint32_t spread_signs(std::uint32_t signs) {
  std::uint32_t x = signs << 2;
  x = (x | x << 12) & 0x003c003cu;
  x = (x | x << 6) & 0x0c0c0c0cu;
  return (x | x << 3) & 0x44444444u;
}

// IQ2: a grid row as eight nibbles of level 0 .. 2; with the sign as bit 2 each nibble selects one
// of +-8, 25, 43.
__device__ inline uint2 iq2_unit(std::uint32_t levels, std::uint32_t spread) {
  const std::uint32_t selector = levels | spread;
  return {permute(0x002b1908u, 0x00d5e7f8u, selector),
          permute(0x002b1908u, 0x00d5e7f8u, selector >> 16)};
}

// Bytes 8, 25, 43 shifted by 4 are their levels; then eight bytes to eight nibbles.
__device__ inline std::uint32_t iq2_levels(std::uint64_t row) {
  std::uint64_t x = (row >> 4) & 0x0f0f0f0f0f0f0f0fu;
  x = (x | x >> 4) & 0x00ff00ff00ff00ffu;
  x = (x | x >> 8) & 0x0000ffff0000ffffu;
  return static_cast<std::uint32_t>(x | x >> 16);
}

// The grid and, for the formats with seven stored signs, all their spread signs.
template <int entries_, int copies_, bool seven_signs>
struct Iq2Table {
  static constexpr int entries = entries_, copies = copies_, sign_copies = 16;
  static constexpr int bytes = 4 * (entries * copies + (seven_signs ? 128 * sign_copies : 0));
  __device__ static void load(const std::uint64_t* grid, std::uint8_t* table) {
    auto* words = reinterpret_cast<std::uint32_t*>(table);
    fill_table<entries, copies>(words, [&](int i) { return iq2_levels(grid[i]); });
    if constexpr (seven_signs) {
      fill_table<128, sign_copies>(words + entries * copies, [](int i) {
        return spread_signs(formats::signs_from_seven(static_cast<std::uint32_t>(i)));
      });
    }
  }
  __device__ static std::uint32_t levels(const std::uint8_t* table, std::uint32_t index) {
    return own_copy<copies>(table, threadIdx.x % 32)[index * copies];
  }
  __device__ static std::uint32_t signs(const std::uint8_t* table, std::uint32_t seven) {
    return own_copy<sign_copies>(table + 4 * entries * copies,
                                 threadIdx.x % 32)[seven * sign_copies];
  }
};

// Scale nibbles of groups of 16, (nibble + 1/2) / 4 times d.
template <class P, int scales, int d>
__device__ inline Affine iq2_affine(const std::uint8_t* piece, int n, int row, int quad, int t) {
  const int byte = P::template span<scales>(piece, n, 0, row)[2 * quad + (t >> 1)];
  const int scale = (byte >> (4 * (t & 1))) & 15;
  return {
      load_half(P::template span<d>(piece, n, 0, row)) * (static_cast<float>(scale) + 0.5f) * 0.25f,
      0.0f};
}

template <>
struct Planes<formats::IQ2_XXS>
    : UnitPlanes<Planes<formats::IQ2_XXS>, formats::IQ2_XXS, Span{2, 64, 8}, Span{0, 2, 1}> {
  using Table = Iq2Table<256, 32, true>;
  static constexpr int table_bytes = Table::bytes;
  __device__ static void load_table(std::uint8_t* t) { Table::load(formats::iq2_xxs_grid(), t); }
  __device__ static uint2 unit(const std::uint8_t* piece, int n, int j, int row, int t,
                               const std::uint8_t* table) {
    const std::uint8_t* unit = span<0>(piece, n, j, row);
    return iq2_unit(Table::levels(table, unit[t]),
                    Table::signs(table, (load_word(unit + 4) >> (7 * t)) & 127u));
  }
  __device__ static Affine affine(const std::uint8_t* piece, int n, int row, int quad, int t) {
    const std::uint32_t scale = load_word(span<0>(piece, n, 4 * quad + t, row) + 4) >> 28;
    return {load_half(span<1>(piece, n, 0, row)) *
                (static_cast<float>(static_cast<int>(scale)) + 0.5f) * 0.25f,
            0.0f};
  }
};

template <>
struct Planes<formats::IQ2_XS> : UnitPlanes<Planes<formats::IQ2_XS>, formats::IQ2_XS,
                                            Span{2, 64, 8}, Span{66, 8, 1}, Span{0, 2, 1}> {
  using Table = Iq2Table<512, 16, true>;
  static constexpr int table_bytes = Table::bytes;
  __device__ static void load_table(std::uint8_t* t) { Table::load(formats::iq2_xs_grid(), t); }
  __device__ static uint2 unit(const std::uint8_t* piece, int n, int j, int row, int t,
                               const std::uint8_t* table) {
    const std::uint32_t w = load_short(span<0>(piece, n, j, row) + 2 * t);
    return iq2_unit(Table::levels(table, w & 511u), Table::signs(table, w >> 9));
  }
  __device__ static Affine affine(const std::uint8_t* piece, int n, int row, int quad, int t) {
    return iq2_affine<Planes, 1, 2>(piece, n, row, quad, t);
  }
};

template <>
struct Planes<formats::IQ2_S>
    : UnitPlanes<Planes<formats::IQ2_S>, formats::IQ2_S, Span{2, 32, 8}, Span{34, 32, 8},
                 Span{66, 8, 8}, Span{74, 8, 1}, Span{0, 2, 1}> {
  using Table = Iq2Table<1024, 8, false>;
  static constexpr int table_bytes = Table::bytes;
  __device__ static void load_table(std::uint8_t* t) { Table::load(formats::iq2_s_grid(), t); }
  __device__ static uint2 unit(const std::uint8_t* piece, int n, int j, int row, int t,
                               const std::uint8_t* table) {
    const std::uint32_t high = *span<2>(piece, n, j, row);
    const std::uint32_t index = span<0>(piece, n, j, row)[t] | ((high >> (2 * t)) & 3u) << 8;
    return iq2_unit(Table::levels(table, index), spread_signs(span<1>(piece, n, j, row)[t]));
  }
  __device__ static Affine affine(const std::uint8_t* piece, int n, int row, int quad, int t) {
    return iq2_affine<Planes, 3, 4>(piece, n, row, quad, t);
  }
};

// Four bytes of magnitudes, negative where the bit is set. No byte is 0, so ~x + 1 never carries.
__device__ inline std::uint32_t apply_four_signs(std::uint32_t bytes, std::uint32_t signs) {
  const std::uint32_t ones = ((signs & 15u) * 0x00204081u) & 0x01010101u;
  return (bytes ^ ones * 255u) + ones;
}

template <int entries_, int copies_>
struct WordTable {
  static constexpr int entries = entries_, copies = copies_, bytes = 4 * entries * copies;
  __device__ static std::uint32_t at(const std::uint8_t* table, std::uint32_t index) {
    return own_copy<copies>(table, threadIdx.x % 32)[index * copies];
  }
};

template <>
struct Planes<formats::IQ3_XXS> : UnitPlanes<Planes<formats::IQ3_XXS>, formats::IQ3_XXS,
                                             Span{2, 64, 8}, Span{66, 32, 8}, Span{0, 2, 1}> {
  using Table = WordTable<256, 32>;
  static constexpr int table_bytes = Table::bytes;
  __device__ static void load_table(std::uint8_t* t) {
    fill_table<256, 32>(reinterpret_cast<std::uint32_t*>(t),
                        [](int i) { return formats::iq3_xxs_grid()[i]; });
  }
  __device__ static uint2 unit(const std::uint8_t* piece, int n, int j, int row, int t,
                               const std::uint8_t* table) {
    const std::uint8_t* indices = span<0>(piece, n, j, row) + 2 * t;
    const std::uint32_t seven = (load_word(span<1>(piece, n, j, row)) >> (7 * t)) & 127u;
    // The eighth sign makes their number even.
    const std::uint32_t signs = seven | (static_cast<std::uint32_t>(__popc(seven)) & 1u) << 7;
    return {apply_four_signs(Table::at(table, indices[0]), signs),
            apply_four_signs(Table::at(table, indices[1]), signs >> 4)};
  }
  __device__ static Affine affine(const std::uint8_t* piece, int n, int row, int quad, int t) {
    const std::uint32_t scale = load_word(span<1>(piece, n, 4 * quad + t, row)) >> 28;
    return {load_half(span<2>(piece, n, 0, row)) *
                (static_cast<float>(static_cast<int>(scale)) + 0.5f) * 0.5f,
            0.0f};
  }
};

template <>
struct Planes<formats::IQ3_S>
    : UnitPlanes<Planes<formats::IQ3_S>, formats::IQ3_S, Span{2, 64, 8}, Span{66, 8, 8},
                 Span{74, 32, 8}, Span{106, 4, 1}, Span{0, 2, 1}> {
  using Table = WordTable<512, 16>;
  static constexpr int table_bytes = Table::bytes;
  __device__ static void load_table(std::uint8_t* t) {
    fill_table<512, 16>(reinterpret_cast<std::uint32_t*>(t),
                        [](int i) { return formats::iq3_s_grid()[i]; });
  }
  __device__ static uint2 unit(const std::uint8_t* piece, int n, int j, int row, int t,
                               const std::uint8_t* table) {
    const std::uint32_t indices = load_short(span<0>(piece, n, j, row) + 2 * t);
    const std::uint32_t high = static_cast<std::uint32_t>(*span<1>(piece, n, j, row)) >> (2 * t);
    const std::uint32_t signs = span<2>(piece, n, j, row)[t];
    return {apply_four_signs(Table::at(table, (indices & 255u) | (high & 1u) << 8), signs),
            apply_four_signs(Table::at(table, indices >> 8 | (high & 2u) << 7), signs >> 4)};
  }
  __device__ static Affine affine(const std::uint8_t* piece, int n, int row, int quad, int t) {
    const std::uint32_t word = load_word(span<3>(piece, n, 0, row)) >> (16 * quad + 4 * t);
    return {load_half(span<4>(piece, n, 0, row)) *
                static_cast<float>(static_cast<int>(2 * (word & 15u) + 1)),
            0.0f};
  }
};

// IQ1: a grid row as eight nibbles of level 0 .. 2 that select 8 * (level - 1) + shift.
__device__ inline uint2 iq1_unit(std::uint32_t levels, bool negative_shift) {
  const std::uint32_t values = negative_shift ? 0x0007fff7u : 0x000901f9u;
  return {permute(values, 0u, levels), permute(values, 0u, levels >> 16)};
}

using Iq1Table = WordTable<2048, 4>;

// Bytes -1, 0, 1 plus one are the levels; then eight bytes to eight nibbles.
__device__ inline void load_iq1_table(std::uint8_t* table) {
  fill_table<2048, Iq1Table::copies>(reinterpret_cast<std::uint32_t*>(table), [](int i) {
    const std::uint64_t row = formats::iq1_grid()[i];
    std::uint32_t levels = 0;
#pragma unroll
    for (int b = 0; b < 8; ++b) {
      levels |= ((static_cast<std::uint32_t>(row >> (8 * b)) + 1u) & 3u) << (4 * b);
    }
    return levels;
  });
}

template <>
struct Planes<formats::IQ1_S> : UnitPlanes<Planes<formats::IQ1_S>, formats::IQ1_S, Span{2, 32, 8},
                                           Span{34, 16, 8}, Span{0, 2, 1}> {
  static constexpr int table_bytes = Iq1Table::bytes;
  __device__ static void load_table(std::uint8_t* t) { load_iq1_table(t); }
  __device__ static uint2 unit(const std::uint8_t* piece, int n, int j, int row, int t,
                               const std::uint8_t* table) {
    const std::uint32_t packed = load_short(span<1>(piece, n, j, row));
    const std::uint32_t index = span<0>(piece, n, j, row)[t] | ((packed >> (3 * t)) & 7u) << 8;
    return iq1_unit(Iq1Table::at(table, index), (packed & 0x8000u) != 0);
  }
  __device__ static Affine affine(const std::uint8_t* piece, int n, int row, int quad, int t) {
    const std::uint32_t packed = load_short(span<1>(piece, n, 4 * quad + t, row));
    const int scale = static_cast<int>((packed >> 12) & 7u);
    return {load_half(span<2>(piece, n, 0, row)) * static_cast<float>(2 * scale + 1) * 0.125f,
            0.0f};
  }
};

template <>
struct Planes<formats::IQ1_M> : UnitPlanes<Planes<formats::IQ1_M>, formats::IQ1_M, Span{0, 32, 8},
                                           Span{32, 16, 8}, Span{48, 8, 1}> {
  static constexpr int table_bytes = Iq1Table::bytes;
  __device__ static void load_table(std::uint8_t* t) { load_iq1_table(t); }
  __device__ static uint2 unit(const std::uint8_t* piece, int n, int j, int row, int t,
                               const std::uint8_t* table) {
    const std::uint32_t packed = load_short(span<1>(piece, n, j, row)) >> (4 * t);
    const std::uint32_t index = span<0>(piece, n, j, row)[t] | (packed & 7u) << 8;
    return iq1_unit(Iq1Table::at(table, index), (packed & 8u) != 0);
  }
  __device__ static Affine affine(const std::uint8_t* piece, int n, int row, int quad, int t) {
    const uint2 w = *reinterpret_cast<const uint2*>(span<2>(piece, n, 0, row));
    const std::uint32_t d = ((w.x >> 12) & 0xfu) | ((w.x >> 24) & 0xf0u) | ((w.y >> 4) & 0xf00u) |
                            ((w.y >> 16) & 0xf000u);
    const std::uint32_t word = quad < 2 ? w.x : w.y;
    const int scale = static_cast<int>((word >> (16 * (quad & 1) + 3 * t)) & 7u);
    return {__half2float(__ushort_as_half(static_cast<unsigned short>(d))) *
                static_cast<float>(2 * scale + 1) * 0.125f,
            0.0f};
  }
};

// TQ1_0: bytes are trits plus one; the digits of a byte belong to different groups.
template <>
struct Planes<formats::TQ1_0> : UnitPlanes<Planes<formats::TQ1_0>, formats::TQ1_0, Span{0, 32, 1},
                                           Span{32, 16, 1}, Span{48, 4, 1}, Span{52, 2, 1}> {
  static constexpr bool is_signed = false;
  static constexpr bool has_offset = true;

  __device__ static std::uint32_t digits(std::uint32_t bytes, std::uint32_t power) {
    const std::uint32_t even = ((bytes & 0x00ff00ffu) * power & 0x00ff00ffu) * 3u;
    const std::uint32_t odd = (((bytes >> 8) & 0x00ff00ffu) * power & 0x00ff00ffu) * 3u;
    return ((even >> 8) & 0x00030003u) | (odd & 0x03000300u);
  }
  __device__ static std::uint32_t power_of_three(int digit) {
    return digit == 0 ? 1u : digit == 1 ? 3u : digit == 2 ? 9u : digit == 3 ? 27u : 81u;
  }
  __device__ static uint2 unit(const std::uint8_t* piece, int n, int j, int row, int t,
                               const std::uint8_t*) {
    if (j < 5) {
      const uint2 w = *reinterpret_cast<const uint2*>(span<0>(piece, n, 0, row) + 8 * t);
      return {digits(w.x, power_of_three(j)), digits(w.y, power_of_three(j))};
    }
    const uint2 w = *reinterpret_cast<const uint2*>(span<1>(piece, n, 0, row) + 8 * (t & 1));
    const std::uint32_t power = power_of_three(2 * (j - 5) + (t >> 1));
    if (j < 7 || t < 2) return {digits(w.x, power), digits(w.y, power)};
    const std::uint32_t rest = load_word(span<2>(piece, n, 0, row));
    return {digits(rest, t == 2 ? 1u : 9u), digits(rest, t == 2 ? 3u : 27u)};
  }
  __device__ static Affine affine(const std::uint8_t* piece, int n, int row, int, int) {
    const float d = load_half(span<3>(piece, n, 0, row));
    return {d, -d};
  }
};

}  // namespace quantloom::kernels
