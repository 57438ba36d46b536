// Planes of TQ1_0: five base-3 digits (trit plus one) a byte, most significant first.
#pragma once

#include "matmul/nibble_planes.h"

namespace quantloom::kernels {

// The bytes stay as they are. Groups 0 .. 4 are the five digits of bytes 0 .. 31 of a row: lane (g,
// t) has bytes 8t .. 8t + 7 of rows g and g + 8. Groups 5 .. 7 are the digits of bytes 32 .. 47,
// which lanes t and t + 2 share, and of the last four.
template <>
struct Planes<formats::TQ1_0> : PieceLayout<formats::TQ1_0, 104, Span{52, 2, 1}> {
  static constexpr bool is_signed = false;
  static constexpr bool has_offset = true;
  static constexpr int centre = 1;
  static constexpr int shared_at = 512, rest_at = 768;

  __device__ static std::uint32_t power_of_three(int n) {
    return n == 0 ? 1u : n == 1 ? 3u : n == 2 ? 9u : n == 3 ? 27u : n == 4 ? 81u : 243u;
  }
  // Even and odd bytes in 16-bit lanes.
  __device__ static uint2 widen(std::uint32_t bytes) {
    return {bytes & 0x00ff00ffu, permute(bytes, 0u, 0x4341u)};
  }
  // floor(byte * factor / 256) of each byte, factor at most 243.
  __device__ static std::uint32_t upper(uint2 wide, std::uint32_t factor) {
    return permute(wide.x * factor, wide.y * factor, 0x7351u);
  }
  // The first n + 1 digits less three times the first n: no byte of the result borrows.
  __device__ static std::uint32_t digit(std::uint32_t bytes, int n) {
    const uint2 wide = widen(bytes);
    const std::uint32_t all = upper(wide, power_of_three(n + 1));
    return n == 0 ? all : all - 3u * upper(wide, power_of_three(n));
  }
  // Digit n where `power` is 3^n, known at run time.
  __device__ static std::uint32_t digit_at(std::uint32_t bytes, std::uint32_t power) {
    uint2 wide = widen(bytes);
    wide.x = wide.x * power & 0x00ff00ffu, wide.y = wide.y * power & 0x00ff00ffu;
    return upper(wide, 3u);
  }
  __device__ static void quants(const std::uint8_t* piece, int, int j, int lane, std::uint32_t a[4],
                                const std::uint8_t* = nullptr) {
    if (j < 5) {
      const uint4 w = *reinterpret_cast<const uint4*>(piece + 16 * lane);
      a[0] = digit(w.x, j), a[1] = digit(w.y, j), a[2] = digit(w.z, j), a[3] = digit(w.w, j);
      return;
    }
    const int g = lane >> 2, t = lane & 3;
    uint4 w = *reinterpret_cast<const uint4*>(piece + shared_at + (2 * g + (t & 1)) * 16);
    std::uint32_t first = t < 2 ? 1u : 3u;
    if (j == 6) first *= 9u;
    std::uint32_t second = first;
    if (j == 7) {
      const uint2 rest = *reinterpret_cast<const uint2*>(piece + rest_at + 8 * g);
      if (t >= 2) w = make_uint4(rest.x, rest.y, rest.x, rest.y);
      first = t < 2 ? 81u : t == 2 ? 1u : 9u;
      second = t < 2 ? 81u : t == 2 ? 3u : 27u;
    }
    a[0] = digit_at(w.x, first), a[1] = digit_at(w.y, first);
    a[2] = digit_at(w.z, second), a[3] = digit_at(w.w, second);
  }
  __device__ static Affine affine(const std::uint8_t* piece, int n, int row, int, int) {
    const float d = load_half(span<0>(piece, n, 0, row));
    return {d, -d};
  }

  // Where the bytes stand whose first digits are weights 8k .. 8k + 7, and how many there are.
  __device__ static int bytes_at(int k) { return k < 4 ? 8 * k : k < 22 ? 32 + 8 * (k - 20) : 48; }
  __device__ static int byte_count(int k) {
    return k < 4 || k == 20 || k == 21 ? 8 : k == 24 ? 4 : 0;
  }
  __device__ static void read_codes(const formats::TQ1_0::Block& block, int k, std::int8_t q[8]) {
    const auto* bytes = reinterpret_cast<const std::int8_t*>(&block) + bytes_at(k);
    for (int i = 0; i < byte_count(k); ++i) q[i] = bytes[i];
  }
  __device__ static void write_code(formats::TQ1_0::Block& block, int k, int i, int q) {
    if (i < byte_count(k)) {
      reinterpret_cast<std::uint8_t*>(&block)[bytes_at(k) + i] = static_cast<std::uint8_t>(q);
    }
  }
  // Where byte i of a row is in the piece: words of four bytes, row g's before row g + 8's.
  __device__ static int place(int j, int lane, int row8, int i) {
    const int g = lane >> 2, t = lane & 3;
    const int word = 4 * (row8 + 2 * (i / 4)) + i % 4;
    return j == 0   ? 16 * lane + word
           : j == 5 ? shared_at + (2 * g + t) * 16 + word
                    : rest_at + 8 * g + word;
  }
  __device__ static void pack_quants(std::uint8_t* piece, int, int j, int lane,
                                     const std::int8_t row_g[8], const std::int8_t row_g8[8]) {
    for (int i = 0; i < byte_count(4 * j + lane % 4); ++i) {
      piece[place(j, lane, 0, i)] = static_cast<std::uint8_t>(row_g[i]);
      piece[place(j, lane, 1, i)] = static_cast<std::uint8_t>(row_g8[i]);
    }
  }
  __device__ static void unpack_quants(const std::uint8_t* piece, int, int j, int lane,
                                       std::int8_t row_g[8], std::int8_t row_g8[8]) {
    for (int i = 0; i < byte_count(4 * j + lane % 4); ++i) {
      row_g[i] = static_cast<std::int8_t>(piece[place(j, lane, 0, i)]);
      row_g8[i] = static_cast<std::int8_t>(piece[place(j, lane, 1, i)]);
    }
  }
};

}  // namespace quantloom::kernels
