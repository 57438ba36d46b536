// Unpack512 of the formats whose quants are rows of a codebook with signs: a load per 8 or 4
// weights, and the signs as one mask of 64 bits.
#pragma once

#include <cstdint>
#include <cstring>

#include "cpu/unpack_avx512.h"

namespace quantloom::cpu {
namespace {

template <class T>
inline T load_word(const void* from) {
  T word;
  std::memcpy(&word, from, sizeof(word));
  return word;
}

// Eight groups of seven sign bits, four in each argument, as bytes; the eighth makes their number
// even.
inline std::uint64_t signs_of_seven(std::uint32_t first, std::uint32_t second) {
  constexpr std::uint64_t seven = 0x7f7f7f7f;
  const std::uint64_t signs = _pdep_u64(first, seven) | _pdep_u64(second, seven) << 32;
  std::uint64_t parity = signs ^ (signs >> 4);
  parity ^= parity >> 2;
  parity ^= parity >> 1;
  return signs | (parity & 0x0101010101010101u) << 7;
}

// D::row(k): weights 8k .. 8k + 7 without signs; D::signs(c): bit i is the sign of weight 64c + i.
template <class D, class F>
struct GridBlock : OneBlock<F> {
  __m512i quants(int c) const {
    const D& self = static_cast<const D&>(*this);
    const __m512i rows = _mm512_set_epi64(
        static_cast<long long>(self.row(8 * c + 7)), static_cast<long long>(self.row(8 * c + 6)),
        static_cast<long long>(self.row(8 * c + 5)), static_cast<long long>(self.row(8 * c + 4)),
        static_cast<long long>(self.row(8 * c + 3)), static_cast<long long>(self.row(8 * c + 2)),
        static_cast<long long>(self.row(8 * c + 1)), static_cast<long long>(self.row(8 * c)));
    const __m512i zero = _mm512_set1_epi8(static_cast<char>(zero_of<F>));
    return _mm512_mask_sub_epi8(_mm512_add_epi8(rows, zero), _cvtu64_mask64(self.signs(c)), zero,
                                rows);
  }
  // (code + 1 / 2) * step * d
  __m512 half_steps(__m512 codes, float step) const {
    const __m512 steps = _mm512_set1_ps(step);
    const __m512 factors = _mm512_fmadd_ps(codes, steps, _mm512_set1_ps(0.5f * step));
    return _mm512_mul_ps(factors, half_in_all(this->block->scale));
  }
  // Sixteen nibbles, the lower of each byte first.
  static __m512 nibble_codes(const std::uint8_t bytes[8]) {
    const __m128i packed = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes));
    const __m128i mask = _mm_set1_epi8(15);
    const __m128i codes = _mm_unpacklo_epi8(_mm_and_si128(packed, mask),
                                            _mm_and_si128(_mm_srli_epi16(packed, 4), mask));
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(codes));
  }
};

template <>
struct Unpack512<formats::IQ2_XXS> : GridBlock<Unpack512<formats::IQ2_XXS>, formats::IQ2_XXS> {
  std::uint64_t row(int k) const {
    return formats::iq2_xxs_grid()[(block->quants[k / 4 * 4 + k % 4 / 2] >> (8 * (k % 2))) & 255];
  }
  std::uint64_t signs(int c) const {
    return signs_of_seven(load_word<std::uint32_t>(block->quants + 8 * c + 2),
                          load_word<std::uint32_t>(block->quants + 8 * c + 6));
  }
  __m512 scales() const {
    const __m512i codes = _mm512_srli_epi64(_mm512_loadu_si512(block->quants), 60);
    return half_steps(twice(_mm256_cvtepi32_ps(_mm512_cvtepi64_epi32(codes))), 0.25f);
  }
};

template <>
struct Unpack512<formats::IQ2_XS> : GridBlock<Unpack512<formats::IQ2_XS>, formats::IQ2_XS> {
  std::uint64_t row(int k) const { return formats::iq2_xs_grid()[block->quants[k] & 511]; }
  std::uint64_t signs(int c) const {
    constexpr std::uint64_t upper_seven = 0xfe00fe00fe00fe00;
    const auto part = [&](int i) {
      return static_cast<std::uint32_t>(
          _pext_u64(load_word<std::uint64_t>(block->quants + 8 * c + i), upper_seven));
    };
    return signs_of_seven(part(0), part(4));
  }
  __m512 scales() const { return half_steps(nibble_codes(block->scales), 0.25f); }
};

template <>
struct Unpack512<formats::IQ2_S> : GridBlock<Unpack512<formats::IQ2_S>, formats::IQ2_S> {
  std::uint64_t row(int k) const {
    const int high = (block->high_bits[k / 4] >> (2 * (k % 4))) & 3;
    return formats::iq2_s_grid()[block->indices[k] | high << 8];
  }
  std::uint64_t signs(int c) const { return load_word<std::uint64_t>(block->signs + 8 * c); }
  __m512 scales() const { return half_steps(nibble_codes(block->scales), 0.25f); }
};

template <>
struct Unpack512<formats::IQ3_XXS> : GridBlock<Unpack512<formats::IQ3_XXS>, formats::IQ3_XXS> {
  std::uint64_t row(int k) const {
    const std::uint64_t upper = formats::iq3_xxs_grid()[block->indices[2 * k + 1]];
    return formats::iq3_xxs_grid()[block->indices[2 * k]] | upper << 32;
  }
  std::uint64_t signs(int c) const {
    return signs_of_seven(load_word<std::uint32_t>(block->signs_and_scale + 4 * c),
                          load_word<std::uint32_t>(block->signs_and_scale + 4 * c + 2));
  }
  __m512 scales() const {
    const __m256i words =
        _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block->signs_and_scale));
    return half_steps(twice(_mm256_cvtepi32_ps(_mm256_srli_epi32(words, 28))), 0.5f);
  }
};

template <>
struct Unpack512<formats::IQ3_S> : GridBlock<Unpack512<formats::IQ3_S>, formats::IQ3_S> {
  std::uint64_t row(int k) const {
    const int high = block->high_bits[k / 4] >> (2 * (k % 4));
    const std::uint64_t lower = formats::iq3_s_grid()[block->indices[2 * k] | (high & 1) << 8];
    const std::uint64_t upper = formats::iq3_s_grid()[block->indices[2 * k + 1] | (high & 2) << 7];
    return lower | upper << 32;
  }
  std::uint64_t signs(int c) const { return load_word<std::uint64_t>(block->signs + 8 * c); }
  __m512 scales() const {
    const std::uint64_t codes =
        _pdep_u64(load_word<std::uint32_t>(block->scales), 0x0f0f0f0f0f0f0f0fu);
    const __m256i words = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<long long>(codes)));
    return half_steps(twice(_mm256_cvtepi32_ps(words)), 2.0f);
  }
};

template <>
struct Unpack512<formats::TQ2_0> : OneBlock<formats::TQ2_0> {
  __m512i quants(int c) const {
    const int shift = 4 * (c & 1);
    return _mm512_and_si512(shifted_32(block->quants + 32 * (c / 2), shift, shift + 2),
                            _mm512_set1_epi8(3));
  }
  __m512 scales() const { return half_in_all(block->scale); }
};

}  // namespace
}  // namespace quantloom::cpu
