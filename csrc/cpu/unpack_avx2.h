// Unpacks 256 weights of one row with AVX2 into a small buffer: quants as unsigned bytes in logical
// order, scales and offsets as floats, one per 16 weights; value = scale * (quant - zero) + offset.
#pragma once

#include <cstdint>
#include <cstring>
#include <limits>

#include "cpu/multiply_plain.h"

namespace quantloom::cpu {
namespace {

inline __m256i load_32(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline __m128i load_16(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
inline __m256i low_nibbles(__m256i v) { return _mm256_and_si256(v, _mm256_set1_epi8(15)); }
inline __m256i high_nibbles(__m256i v) { return low_nibbles(_mm256_srli_epi16(v, 4)); }
inline void put(SpanView& view, int at, __m256i u) {
  _mm256_store_si256(reinterpret_cast<__m256i*>(view.q + at), u);
}

// The lower and then the upper nibbles of 16 bytes.
inline __m256i nibbles_in_order(const std::uint8_t* bytes) {
  const __m128i v = load_16(bytes);
  return low_nibbles(_mm256_set_m128i(_mm_srli_epi16(v, 4), v));
}

// Sixteen bytes as floats, times `factor`.
inline void put_factors(__m128i bytes, bool is_signed, float factor, float* out) {
  for (int half = 0; half < 2; ++half) {
    const __m128i part = half == 0 ? bytes : _mm_unpackhi_epi64(bytes, bytes);
    const __m256i words = is_signed ? _mm256_cvtepi8_epi32(part) : _mm256_cvtepu8_epi32(part);
    _mm256_store_ps(out + 8 * half,
                    _mm256_mul_ps(_mm256_cvtepi32_ps(words), _mm256_set1_ps(factor)));
  }
}

// 16 where bit i of the four bytes is set, for weight i of 32.
inline __m256i fifth_bits(const std::uint8_t bits[4]) {
  std::int32_t word;
  std::memcpy(&word, bits, 4);
  const __m256i bytes = _mm256_shuffle_epi8(
      _mm256_set1_epi32(word),
      _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303));
  const __m256i each = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201u));
  const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, each), each);
  return _mm256_and_si256(set, _mm256_set1_epi8(16));
}

// `value` where bit `bit` of each of 32 bytes is set.
inline __m256i where_bit(__m256i bytes, int bit, int value) {
  const __m256i mask = _mm256_set1_epi8(static_cast<char>(1 << bit));
  const __m256i set = _mm256_cmpeq_epi8(_mm256_and_si256(bytes, mask), mask);
  return _mm256_and_si256(set, _mm256_set1_epi8(static_cast<char>(value)));
}

// Formats without an unpacking of their own go through the integer view.
template <class F>
struct Unpack256 {
  static void load(const typename F::Block* blocks, std::int64_t columns, SpanView& view) {
    view_span<F>(blocks, columns, view);
    const __m256i zero = _mm256_set1_epi8(static_cast<char>(zero_of<F>));
    for (int i = 0; i < span; i += 32) put(view, i, _mm256_add_epi8(load_32(view.q + i), zero));
  }
};

// Eight floats, each twice.
inline void put_twice(__m256 v, float* out) {
  const __m256 low = _mm256_unpacklo_ps(v, v);
  const __m256 high = _mm256_unpackhi_ps(v, v);
  _mm256_store_ps(out, _mm256_permute2f128_ps(low, high, 0x20));
  _mm256_store_ps(out + 8, _mm256_permute2f128_ps(low, high, 0x31));
}

template <class Block>
inline __m256 eight_halves(const Block* blocks, std::uint16_t Block::* half) {
  alignas(16) std::uint16_t halves[8];
  for (int i = 0; i < 8; ++i) halves[i] = blocks[i].*half;
  return _mm256_cvtph_ps(load_16(halves));
}

// Formats of 32 weights a block, with D::quants(block); a shorter end of a row is filled up with
// zeros.
template <class D, class Block>
struct UnpackBlocks {
  static void load(const Block* blocks, std::int64_t columns, SpanView& view) {
    Block padded[8];
    if (columns < span) {
      std::memset(padded, 0, sizeof(padded));
      std::memcpy(padded, blocks, static_cast<std::size_t>(columns / 32) * sizeof(Block));
      blocks = padded;
    }
    for (int b = 0; b < 8; ++b) put(view, 32 * b, D::quants(blocks[b]));
    D::put_scales(blocks, view);
  }
  static void put_scales(const Block* blocks, SpanView& view) {
    put_twice(eight_halves(blocks, &Block::scale), view.scales);
  }
};

template <>
struct Unpack256<formats::Q4_0> : UnpackBlocks<Unpack256<formats::Q4_0>, formats::Q4_0::Block> {
  static __m256i quants(const formats::Q4_0::Block& block) {
    return nibbles_in_order(block.quants);
  }
};

template <>
struct Unpack256<formats::Q4_1> : UnpackBlocks<Unpack256<formats::Q4_1>, formats::Q4_1::Block> {
  static __m256i quants(const formats::Q4_1::Block& block) {
    return nibbles_in_order(block.quants);
  }
  static void put_scales(const formats::Q4_1::Block* blocks, SpanView& view) {
    put_twice(eight_halves(blocks, &formats::Q4_1::Block::scale), view.scales);
    put_twice(eight_halves(blocks, &formats::Q4_1::Block::offset), view.offsets);
  }
};

template <>
struct Unpack256<formats::Q5_0> : UnpackBlocks<Unpack256<formats::Q5_0>, formats::Q5_0::Block> {
  static __m256i quants(const formats::Q5_0::Block& block) {
    return _mm256_or_si256(nibbles_in_order(block.quants), fifth_bits(block.high_bits));
  }
};

template <>
struct Unpack256<formats::Q5_1> : UnpackBlocks<Unpack256<formats::Q5_1>, formats::Q5_1::Block> {
  static __m256i quants(const formats::Q5_1::Block& block) {
    return _mm256_or_si256(nibbles_in_order(block.quants), fifth_bits(block.high_bits));
  }
  static void put_scales(const formats::Q5_1::Block* blocks, SpanView& view) {
    put_twice(eight_halves(blocks, &formats::Q5_1::Block::scale), view.scales);
    put_twice(eight_halves(blocks, &formats::Q5_1::Block::offset), view.offsets);
  }
};

template <>
struct Unpack256<formats::Q8_0> : UnpackBlocks<Unpack256<formats::Q8_0>, formats::Q8_0::Block> {
  static __m256i quants(const formats::Q8_0::Block& block) {
    return _mm256_xor_si256(load_32(block.quants), _mm256_set1_epi8(-128));
  }
};

// The sixteen values of a codebook, made unsigned, in both halves.
template <class F>
inline __m256i codebook_256() {
  typename F::Block block = {};
  for (int i = 0; i < 8; ++i) block.quants[i] = static_cast<std::uint8_t>(i | (i + 8) << 4);
  alignas(16) std::int8_t values[16];
  F::quants8(block, 0, values);
  F::quants8(block, 2, values + 8);
  for (std::int8_t& value : values) value = static_cast<std::int8_t>(value + zero_of<F>);
  return _mm256_broadcastsi128_si256(load_16(values));
}

template <>
struct Unpack256<formats::IQ4_NL>
    : UnpackBlocks<Unpack256<formats::IQ4_NL>, formats::IQ4_NL::Block> {
  static __m256i quants(const formats::IQ4_NL::Block& block) {
    return _mm256_shuffle_epi8(codebook_256<formats::IQ4_NL>(), nibbles_in_order(block.quants));
  }
};

template <>
struct Unpack256<formats::MXFP4> : UnpackBlocks<Unpack256<formats::MXFP4>, formats::MXFP4::Block> {
  static __m256i quants(const formats::MXFP4::Block& block) {
    return _mm256_shuffle_epi8(codebook_256<formats::MXFP4>(), nibbles_in_order(block.quants));
  }
  static void put_scales(const formats::MXFP4::Block* blocks, SpanView& view) {
    for (int b = 0; b < 8; ++b) {
      view.scales[2 * b] = view.scales[2 * b + 1] = formats::MXFP4::affine(blocks[b], 0).scale;
    }
  }
};

// Scales and minima of Q4_K and Q5_K, formats/k_scales.h: each twice.
template <class Block>
inline void put_k_scales(const Block& block, SpanView& view) {
  const __m128i head = load_16(&block);
  const __m128i scale_low =
      _mm_shuffle_epi8(head, _mm_setr_epi8(4, 4, 5, 5, 6, 6, 7, 7, 12, 12, 13, 13, 14, 14, 15, 15));
  const __m128i minimum_low = _mm_shuffle_epi8(
      head, _mm_setr_epi8(8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13, 14, 14, 15, 15));
  const __m128i scale_high =
      _mm_shuffle_epi8(head, _mm_setr_epi8(-1, -1, -1, -1, -1, -1, -1, -1, 4, 4, 5, 5, 6, 6, 7, 7));
  const __m128i minimum_high = _mm_shuffle_epi8(
      head, _mm_setr_epi8(-1, -1, -1, -1, -1, -1, -1, -1, 8, 8, 9, 9, 10, 10, 11, 11));
  const __m128i mask = _mm_set_epi64x(0x0f0f0f0f0f0f0f0f, 0x3f3f3f3f3f3f3f3f);
  const __m128i upper = _mm_set1_epi8(0x30);
  const __m128i scales = _mm_or_si128(_mm_and_si128(scale_low, mask),
                                      _mm_and_si128(_mm_srli_epi16(scale_high, 2), upper));
  const __m128i shifted = _mm_blend_epi16(minimum_low, _mm_srli_epi16(minimum_low, 4), 0xf0);
  const __m128i minima = _mm_or_si128(_mm_and_si128(shifted, mask),
                                      _mm_and_si128(_mm_srli_epi16(minimum_high, 2), upper));
  put_factors(scales, false, _cvtsh_ss(block.scale), view.scales);
  put_factors(minima, false, -_cvtsh_ss(block.minimum_scale), view.offsets);
}

template <>
struct Unpack256<formats::Q4_K> {
  static void load(const formats::Q4_K::Block* block, std::int64_t /*columns*/, SpanView& view) {
    for (int c = 0; c < 4; ++c) {
      const __m256i bytes = load_32(block->quants + 32 * c);
      put(view, 64 * c, low_nibbles(bytes));
      put(view, 64 * c + 32, high_nibbles(bytes));
    }
    put_k_scales(*block, view);
  }
};

template <>
struct Unpack256<formats::Q5_K> {
  static void load(const formats::Q5_K::Block* block, std::int64_t /*columns*/, SpanView& view) {
    const __m256i high = load_32(block->high_bits);
    for (int c = 0; c < 4; ++c) {
      const __m256i bytes = load_32(block->quants + 32 * c);
      put(view, 64 * c, _mm256_or_si256(low_nibbles(bytes), where_bit(high, 2 * c, 16)));
      put(view, 64 * c + 32, _mm256_or_si256(high_nibbles(bytes), where_bit(high, 2 * c + 1, 16)));
    }
    put_k_scales(*block, view);
  }
};

template <>
struct Unpack256<formats::Q6_K> {
  static void load(const formats::Q6_K::Block* block, std::int64_t /*columns*/, SpanView& view) {
    const __m256i mask = _mm256_set1_epi8(0x30);
    for (int half = 0; half < 2; ++half) {
      const __m256i a = load_32(block->low_bits + 64 * half);
      const __m256i b = load_32(block->low_bits + 64 * half + 32);
      const __m256i high = load_32(block->high_bits + 32 * half);
      const auto at = 128 * half;
      put(view, at,
          _mm256_or_si256(low_nibbles(a), _mm256_and_si256(_mm256_slli_epi16(high, 4), mask)));
      put(view, at + 32,
          _mm256_or_si256(low_nibbles(b), _mm256_and_si256(_mm256_slli_epi16(high, 2), mask)));
      put(view, at + 64, _mm256_or_si256(high_nibbles(a), _mm256_and_si256(high, mask)));
      put(view, at + 96,
          _mm256_or_si256(high_nibbles(b), _mm256_and_si256(_mm256_srli_epi16(high, 2), mask)));
    }
    put_factors(load_16(block->scales), true, _cvtsh_ss(block->scale), view.scales);
  }
};

// 32 weights of two bits at `shift` of 32 bytes.
inline __m256i two_bits(__m256i bytes, int shift) {
  return _mm256_and_si256(_mm256_srl_epi16(bytes, _mm_cvtsi32_si128(shift)), _mm256_set1_epi8(3));
}

template <>
struct Unpack256<formats::Q2_K> {
  static void load(const formats::Q2_K::Block* block, std::int64_t /*columns*/, SpanView& view) {
    for (int i = 0; i < 8; ++i) {
      put(view, 32 * i, two_bits(load_32(block->quants + 32 * (i / 4)), 2 * (i % 4)));
    }
    const __m128i packed = load_16(block->scales);
    const __m128i mask = _mm_set1_epi8(15);
    put_factors(_mm_and_si128(packed, mask), false, _cvtsh_ss(block->scale), view.scales);
    put_factors(_mm_and_si128(_mm_srli_epi16(packed, 4), mask), false,
                -_cvtsh_ss(block->minimum_scale), view.offsets);
  }
};

template <>
struct Unpack256<formats::Q3_K> {
  static void load(const formats::Q3_K::Block* block, std::int64_t /*columns*/, SpanView& view) {
    const __m256i high = load_32(block->high_bits);
    for (int i = 0; i < 8; ++i) {
      const __m256i low = two_bits(load_32(block->low_bits + 32 * (i / 4)), 2 * (i % 4));
      put(view, 32 * i, _mm256_or_si256(low, where_bit(high, i, 4)));
    }
    std::uint64_t low = 0;
    std::uint32_t bits = 0;
    std::memcpy(&low, block->scales, 8);
    std::memcpy(&bits, block->scales + 8, 4);
    constexpr std::uint64_t nibble = 0x0f0f0f0f0f0f0f0f;
    constexpr std::uint32_t pair = 0x03030303;
    const std::uint64_t first = (low & nibble) | static_cast<std::uint64_t>(bits & pair) << 4 |
                                static_cast<std::uint64_t>((bits >> 2) & pair) << 36;
    const std::uint64_t second = ((low >> 4) & nibble) |
                                 static_cast<std::uint64_t>((bits >> 4) & pair) << 4 |
                                 static_cast<std::uint64_t>((bits >> 6) & pair) << 36;
    const __m128i bytes =
        _mm_sub_epi8(_mm_set_epi64x(static_cast<long long>(second), static_cast<long long>(first)),
                     _mm_set1_epi8(32));
    put_factors(bytes, true, _cvtsh_ss(block->scale), view.scales);
  }
};

template <>
struct Unpack256<formats::IQ4_XS> {
  static void load(const formats::IQ4_XS::Block* block, std::int64_t /*columns*/, SpanView& view) {
    const __m256i table = codebook_256<formats::IQ4_XS>();
    for (int i = 0; i < 8; ++i) {
      put(view, 32 * i, _mm256_shuffle_epi8(table, nibbles_in_order(block->quants + 16 * i)));
    }
    std::uint32_t low = 0;
    std::memcpy(&low, block->scales_low, 4);
    const std::uint64_t six =
        _pdep_u64(low, 0x0f0f0f0f0f0f0f0fu) | _pdep_u64(block->scales_high, 0x3030303030303030u);
    const __m128i bytes =
        _mm_sub_epi8(_mm_cvtsi64_si128(static_cast<long long>(six)), _mm_set1_epi8(32));
    put_factors(_mm_unpacklo_epi8(bytes, bytes), true, _cvtsh_ss(block->scale), view.scales);
  }
};

}  // namespace
}  // namespace quantloom::cpu
