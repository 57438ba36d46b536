// Planes of the formats whose quants are looked up in a table of sixteen values, in registers.
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

  // Where a code's fourth bit is set, a permutation repeats the sign of the byte that the others
  // name. So both halves of the table can be asked without a choice between the answers, where all
  // signs of a half are alike: one half answers with the value, the other with 0 or -1. The upper
  // half is asked for values larger by one where the lower ones are negative (IQ4), and for minus
  // the values where the lower ones are just those (FP4).
  static constexpr int addends = 2;
  static constexpr std::uint64_t signs = 0x8080808080808080u, ones = 0x0101010101010101u;
  static constexpr bool subtracts = (lower & signs) == 0;
  static constexpr std::uint64_t second = subtracts ? lower : upper + ones;
  static_assert((second & signs) == 0 &&
                (subtracts ? upper == ((signs - lower) ^ signs) : (lower & signs) == signs));

  __device__ static void quant_addends(const std::uint8_t* piece, int, int j, int lane,
                                       std::uint32_t a[2][4]) {
    const uint2 w = *reinterpret_cast<const uint2*>(piece + j * 256 + lane * 8);
    const auto ask = [&](std::uint64_t half, std::uint32_t codes, std::uint32_t& low,
                         std::uint32_t& high) {
      const auto of_four = [&](std::uint32_t four) {
        return permute(static_cast<std::uint32_t>(half), static_cast<std::uint32_t>(half >> 32),
                       four);
      };
      low = of_four(codes), high = of_four(codes >> 16);
    };
    ask(lower, w.x, a[0][0], a[0][1]);
    ask(lower, w.y, a[0][2], a[0][3]);
    ask(second, w.x ^ 0x88888888u, a[1][0], a[1][1]);
    ask(second, w.y ^ 0x88888888u, a[1][2], a[1][3]);
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
  static constexpr bool has_integer_scales = true;
  __device__ static uint2 word(const std::uint8_t* piece, int n, int row) {
    return *reinterpret_cast<const uint2*>(span<0>(piece, n, 0, row));
  }
  __device__ static float unit(const std::uint8_t* piece, int n, int row) {
    return __half2float(__ushort_as_half(static_cast<unsigned short>(word(piece, n, row).x)));
  }
  __device__ static int integer_scale(const std::uint8_t* piece, int n, int row, int quad, int t) {
    const uint2 w = word(piece, n, row);
    const std::uint32_t low = w.y >> (16 * quad + 4 * t), high = w.x >> (16 + 8 * quad + 2 * t);
    return static_cast<int>((low & 15u) | (high & 3u) << 4) - 32;
  }
  __device__ static Affine affine(const std::uint8_t* piece, int n, int row, int quad, int t) {
    return {unit(piece, n, row) * static_cast<float>(integer_scale(piece, n, row, quad, t)), 0.0f};
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

}  // namespace quantloom::kernels
