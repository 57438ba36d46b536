// The codebooks of the IQ1, IQ2 and IQ3 formats: sorted lists of the sign-free weight vectors that
// a format can represent. A file stores indices into them.
//
// The codes give a row as level numbers of 2 or 3 bits; here they are widened at compile time to
// one byte a weight, so that one load fetches a row: eight weights (IQ1, IQ2) or four (IQ3), first
// weight in the lowest byte. The largest is 16 KB. Device code reads a copy of its own in every .cu
// file that uses it.
#pragma once

#include <cstdint>

#include "formats/format.h"
#include "formats/packed.h"

namespace quantloom::formats {

namespace grid_codes {
#include "formats/iq1_grid_codes.inc"
#include "formats/iq2_grid_codes.inc"
#include "formats/iq3_grid_codes.inc"
}  // namespace grid_codes

template <class Row, int Count>
struct Grid {
  Row rows[Count];
};

// IQ1: levels -1, 0, 1 as signed bytes.
constexpr std::uint64_t widen_iq1(std::uint16_t code) {
  std::uint64_t row = 0;
  for (int i = 0; i < 8; ++i) {
    const std::uint64_t level = (code >> (2 * i)) & 3u;
    row |= ((level - 1u) & 255u) << (8 * i);
  }
  return row;
}

// IQ2: levels 8, 25, 43.
constexpr std::uint64_t widen_iq2(std::uint16_t code) {
  std::uint64_t row = 0;
  for (int i = 0; i < 8; ++i) {
    const std::uint64_t level = (code >> (2 * i)) & 3u;
    row |= (level == 0 ? 8u : level == 1 ? 25u : std::uint64_t{43}) << (8 * i);
  }
  return row;
}

// IQ3_XXS: levels 4, 12, 20, 28, 36, 44, 52, 62.
constexpr std::uint32_t widen_iq3_xxs(std::uint16_t code) {
  std::uint32_t row = 0;
  for (int i = 0; i < 4; ++i) {
    const std::uint32_t level = (code >> (3 * i)) & 7u;
    row |= (level == 7u ? 62u : 8u * level + 4u) << (8 * i);
  }
  return row;
}

// IQ3_S: levels 1, 3, 5, .. 15.
constexpr std::uint32_t widen_iq3_s(std::uint16_t code) {
  std::uint32_t row = 0;
  for (int i = 0; i < 4; ++i) row |= (2u * ((code >> (3 * i)) & 7u) + 1u) << (8 * i);
  return row;
}

template <class Row, int Count>
constexpr Grid<Row, Count> widen(const std::uint16_t (&codes)[Count], Row (*row)(std::uint16_t)) {
  Grid<Row, Count> grid{};
  for (int i = 0; i < Count; ++i) grid.rows[i] = row(codes[i]);
  return grid;
}

// Declares `name()`: a pointer to the rows, on the host and on the device alike.
#if defined(__CUDACC__)
#define QL_GRID(name, Row, count, codes, widen_row)                                    \
  inline constexpr Grid<Row, count> name##_host = widen<Row, count>(codes, widen_row); \
  static __device__ constexpr Grid<Row, count> name##_device =                         \
      widen<Row, count>(codes, widen_row);                                             \
  QL_HOST_DEVICE inline const Row* name() { return QL_GRID_SIDE(name).rows; }
#if defined(__CUDA_ARCH__)
#define QL_GRID_SIDE(name) name##_device
#else
#define QL_GRID_SIDE(name) name##_host
#endif
#else
#define QL_GRID(name, Row, count, codes, widen_row)                                    \
  inline constexpr Grid<Row, count> name##_host = widen<Row, count>(codes, widen_row); \
  inline const Row* name() { return name##_host.rows; }
#endif

QL_GRID(iq1_grid, std::uint64_t, 2048, grid_codes::iq1_codes, widen_iq1)
QL_GRID(iq2_xxs_grid, std::uint64_t, 256, grid_codes::iq2_xxs_codes, widen_iq2)
QL_GRID(iq2_xs_grid, std::uint64_t, 512, grid_codes::iq2_xs_codes, widen_iq2)
QL_GRID(iq2_s_grid, std::uint64_t, 1024, grid_codes::iq2_s_codes, widen_iq2)
QL_GRID(iq3_xxs_grid, std::uint32_t, 256, grid_codes::iq3_xxs_codes, widen_iq3_xxs)
QL_GRID(iq3_s_grid, std::uint32_t, 512, grid_codes::iq3_s_codes, widen_iq3_s)

#undef QL_GRID
#undef QL_GRID_SIDE

// Eight sign bits from the seven that IQ2_XXS, IQ2_XS and IQ3_XXS store: the number of minus signs
// in a row is even, so the eighth is their parity.
QL_HOST_DEVICE inline std::uint32_t signs_from_seven(std::uint32_t seven) {
  std::uint32_t parity = seven ^ (seven >> 4);
  parity ^= parity >> 2;
  parity ^= parity >> 1;
  return seven | (parity & 1u) << 7;
}

// q[i] = weight i of `row`, negative where bit i of `signs` (0..255) is set. Four at a time: no
// byte of a row is 0, so that ~x + 1 never carries into the next one.
QL_HOST_DEVICE inline void apply_signs(std::uint64_t row, std::uint32_t signs, std::int8_t q[8]) {
  const std::uint64_t negative = spread8(signs) >> 7;
  const auto low_one = static_cast<std::uint32_t>(negative);
  const auto high_one = static_cast<std::uint32_t>(negative >> 32);
  const std::uint32_t low = (static_cast<std::uint32_t>(row) ^ (low_one * 255u)) + low_one;
  const std::uint32_t high = (static_cast<std::uint32_t>(row >> 32) ^ (high_one * 255u)) + high_one;
  unpack8(static_cast<std::uint64_t>(high) << 32 | low, q);
}

}  // namespace quantloom::formats
