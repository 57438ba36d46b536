// Eight quants at once: a 64-bit word of eight bytes, the first weight's lowest. The integer views
// are written over such words, because a byte at a time costs a GPU three to five instructions a
// weight.
#pragma once

#include <cstdint>
#include <cstring>

#include "formats/format.h"

namespace quantloom::formats {

// `value` in each of the eight bytes.
constexpr std::uint64_t in_each_byte(std::uint32_t value) { return value * 0x0101010101010101u; }

QL_HOST_DEVICE inline std::uint64_t load8(const void* bytes) {
  std::uint64_t word;
  memcpy(&word, bytes, sizeof(word));
  return word;
}

QL_HOST_DEVICE inline std::uint32_t load4(const void* bytes) {
  std::uint32_t word;
  memcpy(&word, bytes, sizeof(word));
  return word;
}

// Each byte less `value`; bytes and value are 0..127, so that no borrow leaves a byte.
QL_HOST_DEVICE inline std::uint64_t subtract8(std::uint64_t word, std::uint32_t value) {
  return ((word | in_each_byte(0x80)) - in_each_byte(value)) ^ in_each_byte(0x80);
}

// 0x80 in byte i where bit i of `bits` (0..255) is set, else 0.
QL_HOST_DEVICE inline std::uint64_t spread8(std::uint32_t bits) {
  const std::uint32_t everywhere = bits * 0x01010101u;
  const std::uint32_t low = ((everywhere & 0x08040201u) + 0x7f7f7f7fu) & 0x80808080u;
  const std::uint32_t high = ((everywhere & 0x80402010u) + 0x7f7f7f7fu) & 0x80808080u;
  return static_cast<std::uint64_t>(high) << 32 | low;
}

// Byte c of the 16-byte table (`lower`: codes 0..7) for each byte's code c in its low four bits;
// the others are 0.
QL_HOST_DEVICE inline std::uint64_t lookup8(std::uint64_t codes, std::uint64_t lower,
                                            std::uint64_t upper) {
#if defined(__CUDA_ARCH__)
  std::uint32_t half[2];
  for (int h = 0; h < 2; ++h) {
    const auto code = static_cast<std::uint32_t>(codes >> (32 * h));
    // __byte_perm picks by nibbles: bring the four codes' lower three bits together.
    const std::uint32_t three = code & 0x07070707u;
    const std::uint32_t pairs = three | three >> 4;
    const std::uint32_t selector = __byte_perm(pairs, 0, 0x4420);
    const std::uint32_t below = __byte_perm(static_cast<std::uint32_t>(lower),
                                            static_cast<std::uint32_t>(lower >> 32), selector);
    const std::uint32_t above = __byte_perm(static_cast<std::uint32_t>(upper),
                                            static_cast<std::uint32_t>(upper >> 32), selector);
    const std::uint32_t chosen = ((code & 0x08080808u) >> 3) * 255u;
    half[h] = (above & chosen) | (below & ~chosen);
  }
  return static_cast<std::uint64_t>(half[1]) << 32 | half[0];
#else
  std::uint64_t values = 0;
  for (int i = 0; i < 8; ++i) {
    const auto code = static_cast<std::uint32_t>(codes >> (8 * i)) & 15u;
    const std::uint64_t half = (code & 8u) != 0 ? upper : lower;
    values |= ((half >> (8 * (code & 7u))) & 255u) << (8 * i);
  }
  return values;
#endif
}

QL_HOST_DEVICE inline void unpack8(std::uint64_t word, std::int8_t q[8]) {
  for (int i = 0; i < 8; ++i) q[i] = static_cast<std::int8_t>((word >> (8 * i)) & 255u);
}

}  // namespace quantloom::formats
