// Unpacks 256 weights of one row with AVX-512: their quants as unsigned bytes, 64 at a time in
// logical order, and their scales and offsets, one float per 16 weights.
//
//   load(blocks, columns)  columns left in the row from `blocks` on; what lies past them is zero
//   quants(c)              q + zero of weights 64c .. 64c + 63
//   scales(), offsets()    per 16 weights; value = scale * q + offset
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>

#include "cpu/multiply_plain.h"

namespace quantloom::cpu {
namespace {

// Formats without an unpacking of their own go through the integer view.
template <class F>
struct Unpack512 {
  SpanView view;

  void load(const typename F::Block* blocks, std::int64_t columns) {
    view_span<F>(blocks, columns, view);
  }
  __m512i quants(int c) const {
    return _mm512_add_epi8(_mm512_load_si512(view.q + 64 * c),
                           _mm512_set1_epi8(static_cast<char>(zero_of<F>)));
  }
  __m512 scales() const { return _mm512_load_ps(view.scales); }
  __m512 offsets() const { return _mm512_load_ps(view.offsets); }
};

inline __m512 half_in_all(std::uint16_t half) {
  return _mm512_cvtph_ps(_mm256_set1_epi16(static_cast<short>(half)));
}

// Eight floats, each twice.
inline __m512 twice(__m256 v) {
  const __m512i index = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
  return _mm512_permutexvar_ps(index, _mm512_castps256_ps512(v));
}

// The lower and then the upper nibbles of 32 bytes.
inline __m512i nibbles_of_32(const std::uint8_t* bytes) {
  const __m512i both =
      _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes)));
  const __m512i shift = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi16(4), 1);
  return _mm512_and_si512(_mm512_srlv_epi16(both, shift), _mm512_set1_epi8(15));
}

// The lower and then the upper nibbles of 16 bytes, of `a` and then of `b`.
inline __m512i nibbles_of_16(const std::uint8_t* a, const std::uint8_t* b) {
  const __m512i first =
      _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(a)));
  const __m512i both = _mm512_mask_broadcast_i32x4(
      first, 0xff00, _mm_loadu_si128(reinterpret_cast<const __m128i*>(b)));
  const __m512i shift = _mm512_set_epi64(0x0004000400040004, 0x0004000400040004, 0, 0,
                                         0x0004000400040004, 0x0004000400040004, 0, 0);
  return _mm512_and_si512(_mm512_srlv_epi16(both, shift), _mm512_set1_epi8(15));
}

// Eight blocks of 32; a shorter end of a row is copied and filled up with zeros.
template <class F>
struct EightBlocks {
  const typename F::Block* blocks;
  typename F::Block padded[8];

  void load(const typename F::Block* source, std::int64_t columns) {
    blocks = source;
    if (columns >= span) return;
    std::memset(padded, 0, sizeof(padded));
    std::memcpy(padded, source, static_cast<std::size_t>(columns / 32) * sizeof(padded[0]));
    blocks = padded;
  }
  // The halves that each block begins with.
  __m512 scales() const {
    const __m128i halves =
        _mm_setr_epi16(static_cast<short>(blocks[0].scale), static_cast<short>(blocks[1].scale),
                       static_cast<short>(blocks[2].scale), static_cast<short>(blocks[3].scale),
                       static_cast<short>(blocks[4].scale), static_cast<short>(blocks[5].scale),
                       static_cast<short>(blocks[6].scale), static_cast<short>(blocks[7].scale));
    return twice(_mm256_cvtph_ps(halves));
  }
  __m512 offsets() const { return _mm512_setzero_ps(); }
  // Scale and offset, where each block begins with both.
  __m512 pairs() const {
    std::uint32_t words[8];
    for (int i = 0; i < 8; ++i) std::memcpy(words + i, blocks + i, sizeof(words[0]));
    const __m256i all = _mm256_setr_epi32(static_cast<int>(words[0]), static_cast<int>(words[1]),
                                          static_cast<int>(words[2]), static_cast<int>(words[3]),
                                          static_cast<int>(words[4]), static_cast<int>(words[5]),
                                          static_cast<int>(words[6]), static_cast<int>(words[7]));
    return _mm512_cvtph_ps(all);
  }
  // The fifth bits of blocks 2c and 2c + 1.
  __mmask64 fifth_bits(int c) const {
    std::uint32_t bits[2];
    std::memcpy(bits, blocks[2 * c].high_bits, 4);
    std::memcpy(bits + 1, blocks[2 * c + 1].high_bits, 4);
    return _cvtu64_mask64(bits[0] | static_cast<std::uint64_t>(bits[1]) << 32);
  }
};

template <>
struct Unpack512<formats::Q4_0> : EightBlocks<formats::Q4_0> {
  __m512i quants(int c) const {
    return nibbles_of_16(blocks[2 * c].quants, blocks[2 * c + 1].quants);
  }
};

template <>
struct Unpack512<formats::Q4_1> : EightBlocks<formats::Q4_1> {
  __m512i quants(int c) const {
    return nibbles_of_16(blocks[2 * c].quants, blocks[2 * c + 1].quants);
  }
  __m512 scales() const { return _mm512_moveldup_ps(pairs()); }
  __m512 offsets() const { return _mm512_movehdup_ps(pairs()); }
};

template <>
struct Unpack512<formats::Q5_0> : EightBlocks<formats::Q5_0> {
  __m512i quants(int c) const {
    const __m512i low = nibbles_of_16(blocks[2 * c].quants, blocks[2 * c + 1].quants);
    return _mm512_mask_add_epi8(low, fifth_bits(c), low, _mm512_set1_epi8(16));
  }
};

template <>
struct Unpack512<formats::Q5_1> : EightBlocks<formats::Q5_1> {
  __m512i quants(int c) const {
    const __m512i low = nibbles_of_16(blocks[2 * c].quants, blocks[2 * c + 1].quants);
    return _mm512_mask_add_epi8(low, fifth_bits(c), low, _mm512_set1_epi8(16));
  }
  __m512 scales() const { return _mm512_moveldup_ps(pairs()); }
  __m512 offsets() const { return _mm512_movehdup_ps(pairs()); }
};

template <>
struct Unpack512<formats::Q8_0> : EightBlocks<formats::Q8_0> {
  __m512i quants(int c) const {
    const __m256i a = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(blocks[2 * c].quants));
    const __m256i b =
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(blocks[2 * c + 1].quants));
    return _mm512_xor_si512(_mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1),
                            _mm512_set1_epi8(-128));
  }
};

// The sixteen values of a codebook, made unsigned, in every 128 bits.
template <class F>
inline __m512i codebook() {
  typename F::Block block = {};
  for (int i = 0; i < 8; ++i) block.quants[i] = static_cast<std::uint8_t>(i | (i + 8) << 4);
  alignas(16) std::int8_t values[16];
  F::quants8(block, 0, values);
  F::quants8(block, 2, values + 8);
  for (std::int8_t& value : values) value = static_cast<std::int8_t>(value + zero_of<F>);
  return _mm512_broadcast_i32x4(_mm_load_si128(reinterpret_cast<const __m128i*>(values)));
}

template <>
struct Unpack512<formats::IQ4_NL> : EightBlocks<formats::IQ4_NL> {
  __m512i table;
  Unpack512() : table(codebook<formats::IQ4_NL>()) {}

  __m512i quants(int c) const {
    return _mm512_shuffle_epi8(table,
                               nibbles_of_16(blocks[2 * c].quants, blocks[2 * c + 1].quants));
  }
};

template <>
struct Unpack512<formats::MXFP4> : EightBlocks<formats::MXFP4> {
  __m512i table;
  Unpack512() : table(codebook<formats::MXFP4>()) {}

  __m512i quants(int c) const {
    return _mm512_shuffle_epi8(table,
                               nibbles_of_16(blocks[2 * c].quants, blocks[2 * c + 1].quants));
  }
  __m512 scales() const {
    alignas(32) float values[8];
    for (int i = 0; i < 8; ++i) values[i] = formats::MXFP4::affine(blocks[i], 0).scale;
    return twice(_mm256_load_ps(values));
  }
};

template <class F>
struct OneBlock {
  const typename F::Block* block;
  void load(const typename F::Block* source, std::int64_t /*columns*/) { block = source; }
  __m512 offsets() const { return _mm512_setzero_ps(); }
};

// Q4_K and Q5_K begin with the same 16 bytes: d, dmin and the twelve of formats/k_scales.h.
template <class F>
struct KBlock : OneBlock<F> {
  __m512 scale;
  __m512 offset;

  void load(const typename F::Block* source, std::int64_t /*columns*/) {
    this->block = source;
    const __m128i head = _mm_loadu_si128(reinterpret_cast<const __m128i*>(source));
    const __m256i both = _mm256_broadcastsi128_si256(head);
    // Each twice: scales in the lower 16 bytes, minima in the upper.
    const __m256i lower_from =
        _mm256_setr_epi8(4, 4, 5, 5, 6, 6, 7, 7, 12, 12, 13, 13, 14, 14, 15, 15,  //
                         8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13, 14, 14, 15, 15);
    const __m256i upper_from =
        _mm256_setr_epi8(-1, -1, -1, -1, -1, -1, -1, -1, 4, 4, 5, 5, 6, 6, 7, 7,  //
                         -1, -1, -1, -1, -1, -1, -1, -1, 8, 8, 9, 9, 10, 10, 11, 11);
    const __m256i shift = _mm256_setr_epi64x(0, 0, 0, 0x0004000400040004);
    const __m256i mask = _mm256_setr_epi64x(0x3f3f3f3f3f3f3f3f, 0x0f0f0f0f0f0f0f0f,
                                            0x3f3f3f3f3f3f3f3f, 0x0f0f0f0f0f0f0f0f);
    const __m256i lower =
        _mm256_and_si256(_mm256_srlv_epi16(_mm256_shuffle_epi8(both, lower_from), shift), mask);
    const __m256i upper = _mm256_srli_epi16(_mm256_shuffle_epi8(both, upper_from), 2);
    const __m256i six = _mm256_ternarylogic_epi32(lower, upper, _mm256_set1_epi8(0x30), 0xf8);
    const __m128 factors = _mm_cvtph_ps(
        _mm_xor_si128(head, _mm_cvtsi32_si128(std::numeric_limits<std::int32_t>::min())));
    scale = _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm256_castsi256_si128(six))),
                          _mm512_broadcastss_ps(factors));
    offset =
        _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm256_extracti128_si256(six, 1))),
                      _mm512_broadcastss_ps(_mm_movehdup_ps(factors)));
  }
  __m512 scales() const { return scale; }
  __m512 offsets() const { return offset; }
};

template <>
struct Unpack512<formats::Q4_K> : KBlock<formats::Q4_K> {
  __m512i quants(int c) const { return nibbles_of_32(block->quants + 32 * c); }
};

// 32 bytes in both halves, with `low` tested in the first and `high` in the second.
inline __mmask64 bits_of_32(const std::uint8_t* bytes, int low, int high) {
  const __m512i both =
      _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes)));
  const __m512i tested = _mm512_inserti64x4(_mm512_set1_epi8(static_cast<char>(1 << low)),
                                            _mm256_set1_epi8(static_cast<char>(1 << high)), 1);
  return _mm512_test_epi8_mask(both, tested);
}

template <>
struct Unpack512<formats::Q5_K> : KBlock<formats::Q5_K> {
  __m512i quants(int c) const {
    const __m512i low = nibbles_of_32(block->quants + 32 * c);
    return _mm512_mask_add_epi8(low, bits_of_32(block->high_bits, 2 * c, 2 * c + 1), low,
                                _mm512_set1_epi8(16));
  }
};

// 32 bytes shifted right by `low` in the first half and by `high` in the second.
inline __m512i shifted_32(const std::uint8_t* bytes, int low, int high) {
  const __m512i both =
      _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes)));
  const __m512i shift = _mm512_inserti64x4(_mm512_set1_epi16(static_cast<short>(low)),
                                           _mm256_set1_epi16(static_cast<short>(high)), 1);
  return _mm512_srlv_epi16(both, shift);
}

template <>
struct Unpack512<formats::Q2_K> : OneBlock<formats::Q2_K> {
  __m512i quants(int c) const {
    const int shift = 4 * (c & 1);
    return _mm512_and_si512(shifted_32(block->quants + 32 * (c / 2), shift, shift + 2),
                            _mm512_set1_epi8(3));
  }
  __m512i packed() const {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(block->scales)));
  }
  __m512 scales() const {
    const __m512i low = _mm512_and_si512(packed(), _mm512_set1_epi32(15));
    return _mm512_mul_ps(_mm512_cvtepi32_ps(low), half_in_all(block->scale));
  }
  __m512 offsets() const {
    const auto negative = static_cast<std::uint16_t>(block->minimum_scale ^ 0x8000u);
    const __m512i high = _mm512_srli_epi32(packed(), 4);
    return _mm512_mul_ps(_mm512_cvtepi32_ps(high), half_in_all(negative));
  }
};

template <>
struct Unpack512<formats::Q3_K> : OneBlock<formats::Q3_K> {
  __m512i quants(int c) const {
    const int shift = 4 * (c & 1);
    const __m512i low = _mm512_and_si512(
        shifted_32(block->low_bits + 32 * (c / 2), shift, shift + 2), _mm512_set1_epi8(3));
    return _mm512_mask_add_epi8(low, bits_of_32(block->high_bits, 2 * c, 2 * c + 1), low,
                                _mm512_set1_epi8(4));
  }
  __m512 scales() const {
    std::uint64_t low = 0;
    std::uint32_t high = 0;
    std::memcpy(&low, block->scales, 8);
    std::memcpy(&high, block->scales + 8, 4);
    const auto upper = [](std::uint32_t bits) { return (bits & 0x03030303u) << 4; };
    const std::uint64_t first = (low & 0x0f0f0f0f0f0f0f0fu) | upper(high) |
                                static_cast<std::uint64_t>(upper(high >> 2)) << 32;
    const std::uint64_t second = ((low >> 4) & 0x0f0f0f0f0f0f0f0fu) | upper(high >> 4) |
                                 static_cast<std::uint64_t>(upper(high >> 6)) << 32;
    const __m128i bytes =
        _mm_sub_epi8(_mm_set_epi64x(static_cast<long long>(second), static_cast<long long>(first)),
                     _mm_set1_epi8(32));
    return _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)),
                         half_in_all(block->scale));
  }
};

template <>
struct Unpack512<formats::Q6_K> : OneBlock<formats::Q6_K> {
  __m512i quants(int c) const {
    const int half = c / 2;
    const __m512i low = _mm512_loadu_si512(block->low_bits + 64 * half);
    const std::uint8_t* high = block->high_bits + 32 * half;
    __m512i four;
    __m512i two;
    if (c % 2 == 0) {
      const __m512i both =
          _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(high)));
      const __m512i shift = _mm512_inserti64x4(_mm512_set1_epi16(4), _mm256_set1_epi16(2), 1);
      four = _mm512_and_si512(low, _mm512_set1_epi8(15));
      two = _mm512_sllv_epi16(both, shift);
    } else {
      four = _mm512_and_si512(_mm512_srli_epi16(low, 4), _mm512_set1_epi8(15));
      two = shifted_32(high, 0, 2);
    }
    constexpr int a_or_b_and_c = 0xf8;
    return _mm512_ternarylogic_epi32(four, two, _mm512_set1_epi8(0x30), a_or_b_and_c);
  }
  __m512 scales() const {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(block->scales));
    return _mm512_mul_ps(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)),
                         half_in_all(block->scale));
  }
};

template <>
struct Unpack512<formats::IQ4_XS> : OneBlock<formats::IQ4_XS> {
  __m512i table;
  Unpack512() : table(codebook<formats::IQ4_XS>()) {}

  __m512i quants(int c) const {
    return _mm512_shuffle_epi8(table,
                               nibbles_of_16(block->quants + 32 * c, block->quants + 32 * c + 16));
  }
  __m512 scales() const {
    std::uint32_t low = 0;
    std::memcpy(&low, block->scales_low, 4);
    const std::uint64_t six =
        _pdep_u64(low, 0x0f0f0f0f0f0f0f0fu) | _pdep_u64(block->scales_high, 0x3030303030303030u);
    const __m256i words = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<long long>(six)));
    const __m256 scales = _mm256_cvtepi32_ps(_mm256_sub_epi32(words, _mm256_set1_epi32(32)));
    return _mm512_mul_ps(twice(scales), half_in_all(block->scale));
  }
};

}  // namespace
}  // namespace quantloom::cpu
