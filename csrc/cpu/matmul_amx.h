// Products of many tokens on AMX tiles of bfloat16. Weights are unpacked to values, scale and
// offset included, so that a sum runs over all columns inside the tiles; with int8 tiles every
// group of 32 would have to leave them to be scaled, which costs more than the multiplication
// itself.
//
// In exact, values and activations are each split into a high and a low bfloat16 (16 bits of
// significand) and three of the four products are summed in float32.
#pragma once

#include <cstdint>

#include "cpu/kernels.h"
#include "cpu/simd_avx512.h"
#include "cpu/unpack_avx512.h"

namespace quantloom::cpu {
namespace {

constexpr int tile_side = 16;     // rows of a tile; tokens of a tile
constexpr int tile_values = 512;  // of bfloat16
constexpr int chunk_columns = 512;
constexpr int chunk_tiles = chunk_columns / tile_columns;

// All eight tiles are 16 rows of 64 bytes.
class TileScope {
 public:
  TileScope() {
    struct alignas(64) {
      std::uint8_t palette = 1;
      std::uint8_t start_row = 0;
      std::uint8_t reserved[14] = {};
      std::uint16_t bytes_per_row[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } config;
    static_assert(sizeof(config) == 64);
    // GCC 12's intrinsic tells the compiler of 8 of the 64 bytes (GCC bug 114098).
    asm volatile("ldtilecfg %0" : : "m"(config));
  }
  ~TileScope() { asm volatile("tilerelease"); }
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;
};

// 32 floats as bfloat16; in exact cut off, with the rest rounded into `low`.
template <bool exact>
inline void split(__m512 first, __m512 second, std::uint16_t* high, std::uint16_t* low) {
  if constexpr (exact) {
    const __m512 mask = _mm512_castsi512_ps(_mm512_set1_epi32(static_cast<int>(0xffff0000u)));
    const __m512 first_high = _mm512_and_ps(first, mask);
    const __m512 second_high = _mm512_and_ps(second, mask);
    _mm512_storeu_si512(low, (__m512i)_mm512_cvtne2ps_pbh(_mm512_sub_ps(second, second_high),
                                                          _mm512_sub_ps(first, first_high)));
    first = first_high;
    second = second_high;
  }
  _mm512_storeu_si512(high, (__m512i)_mm512_cvtne2ps_pbh(second, first));
}

// Tokens begin .. end - 1, begin a multiple of 16, to tiles of 16 pairs of columns x 16 tokens x 2.
template <bool exact>
bool prepare_tiles(std::int64_t begin, std::int64_t end, const Activations& out) {
  const std::int64_t column_tiles = (out.columns + tile_columns - 1) / tile_columns;
  const int tokens = static_cast<int>(end - begin);
  __m512 poison = _mm512_setzero_ps();
  alignas(64) std::uint16_t high[tile_side][tile_columns];
  alignas(64) std::uint16_t low[tile_side][tile_columns];
  for (std::int64_t tile = 0; tile < column_tiles; ++tile) {
    const std::int64_t column = tile * tile_columns;
    const std::int64_t left = out.columns - column;
    const auto present = static_cast<std::uint32_t>(left >= 32 ? 0xffffffffu : (1u << left) - 1u);
    for (int t = 0; t < tile_side; ++t) {
      __m512 first = _mm512_setzero_ps();
      __m512 second = _mm512_setzero_ps();
      if (t < tokens) {
        const float* x = out.values + (begin + t) * out.columns + column;
        first = _mm512_maskz_loadu_ps(static_cast<__mmask16>(present), x);
        second = _mm512_maskz_loadu_ps(static_cast<__mmask16>(present >> 16), x + 16);
        poison = _mm512_fmadd_ps(_mm512_add_ps(first, second), _mm512_setzero_ps(), poison);
      }
      split<exact>(first, second, high[t], low[t]);
    }
    std::uint16_t* to = out.tiles + (begin / tile_side * column_tiles + tile) * tile_values;
    for (int plane = 0; plane < (exact ? 2 : 1); ++plane) {
      __m512 v[16];
      for (int t = 0; t < tile_side; ++t) v[t] = _mm512_load_ps(plane == 0 ? high[t] : low[t]);
      Avx512::transpose(v);
      for (int pair = 0; pair < tile_side; ++pair) {
        _mm512_store_ps(to + plane * out.tile_plane + pair * tile_columns, v[pair]);
      }
    }
  }
  return _mm512_reduce_add_ps(poison) == 0.0f;
}

// `columns` (a multiple of 32 but at the end of a row) of one row to its place in a line of tiles.
template <class F, bool exact>
void unpack_values(const typename F::Block* row, std::int64_t column, std::int64_t columns,
                   std::uint16_t* high, std::uint16_t* low) {
  if constexpr (F::quantized) {
    Unpack512<F> unpack;
    for (std::int64_t at = 0; at < columns; at += span) {
      unpack.load(row + (column + at) / F::elements, columns - at);
      alignas(64) float scales[16];
      alignas(64) float offsets[16];
      _mm512_store_ps(scales, unpack.scales());
      if constexpr (F::has_offset) _mm512_store_ps(offsets, unpack.offsets());
      for (int c = 0; c < 4; ++c) {
        alignas(64) std::int8_t q[64];
        _mm512_store_si512(
            q, _mm512_sub_epi8(unpack.quants(c), _mm512_set1_epi8(static_cast<char>(zero_of<F>))));
        for (int half = 0; half < 2; ++half) {
          __m512 v[2];
          for (int i = 0; i < 2; ++i) {
            const int group = 4 * c + 2 * half + i;
            const __m512 value = Avx512::load_int8(q + 32 * half + 16 * i);
            v[i] = F::has_offset ? _mm512_fmadd_ps(value, _mm512_set1_ps(scales[group]),
                                                   _mm512_set1_ps(offsets[group]))
                                 : _mm512_mul_ps(value, _mm512_set1_ps(scales[group]));
          }
          const std::int64_t tile = at / tile_columns + 2 * c + half;
          split<exact>(v[0], v[1], high + tile * tile_values, low + tile * tile_values);
        }
      }
    }
  } else {
    for (std::int64_t at = 0; at < columns; at += tile_columns) {
      alignas(64) typename F::Block part[tile_columns] = {};
      const std::int64_t left = columns - at < tile_columns ? columns - at : tile_columns;
      for (std::int64_t i = 0; i < left; ++i) part[i] = row[column + at + i];
      const std::int64_t tile = at / tile_columns * tile_values;
      split<exact>(load_floats<Avx512, F>(part), load_floats<Avx512, F>(part + 16), high + tile,
                   low + tile);
    }
  }
}

// sums [R][T] tiles += weights x activations over `tiles` tiles of columns.
template <int R, int T, bool exact>
inline void multiply_tiles(const std::uint16_t* weights, std::int64_t weight_plane,
                           const std::uint16_t* x, std::int64_t x_step, std::int64_t x_plane,
                           int tiles, float* sums, std::int64_t row_step) {
  constexpr int row_bytes = 64;
  const auto at = [&](int r, int t) { return sums + r * row_step + t * 256; };
  _tile_loadd(0, at(0, 0), row_bytes);
  if (T == 2) _tile_loadd(1, at(0, 1), row_bytes);
  if (R == 2) _tile_loadd(2, at(1, 0), row_bytes);
  if (R == 2 && T == 2) _tile_loadd(3, at(1, 1), row_bytes);
  for (int tile = 0; tile < tiles; ++tile) {
    const std::uint16_t* w = weights + tile * tile_values;
    const std::uint16_t* a = x + tile * tile_values;
    _tile_loadd(4, w, row_bytes);
    if (R == 2) _tile_loadd(5, w + chunk_tiles * tile_values, row_bytes);
    _tile_loadd(6, a, row_bytes);
    if (T == 2) _tile_loadd(7, a + x_step, row_bytes);
    _tile_dpbf16ps(0, 4, 6);
    if (T == 2) _tile_dpbf16ps(1, 4, 7);
    if (R == 2) _tile_dpbf16ps(2, 5, 6);
    if (R == 2 && T == 2) _tile_dpbf16ps(3, 5, 7);
    if constexpr (exact) {
      _tile_loadd(4, w + weight_plane, row_bytes);
      if (R == 2) _tile_loadd(5, w + weight_plane + chunk_tiles * tile_values, row_bytes);
      _tile_dpbf16ps(0, 4, 6);
      if (T == 2) _tile_dpbf16ps(1, 4, 7);
      if (R == 2) _tile_dpbf16ps(2, 5, 6);
      if (R == 2 && T == 2) _tile_dpbf16ps(3, 5, 7);
      _tile_loadd(6, a + x_plane, row_bytes);
      if (T == 2) _tile_loadd(7, a + x_plane + x_step, row_bytes);
      _tile_loadd(4, w, row_bytes);
      if (R == 2) _tile_loadd(5, w + chunk_tiles * tile_values, row_bytes);
      _tile_dpbf16ps(0, 4, 6);
      if (T == 2) _tile_dpbf16ps(1, 4, 7);
      if (R == 2) _tile_dpbf16ps(2, 5, 6);
      if (R == 2 && T == 2) _tile_dpbf16ps(3, 5, 7);
    }
  }
  _tile_stored(0, at(0, 0), row_bytes);
  if (T == 2) _tile_stored(1, at(0, 1), row_bytes);
  if (R == 2) _tile_stored(2, at(1, 0), row_bytes);
  if (R == 2 && T == 2) _tile_stored(3, at(1, 1), row_bytes);
}

template <class F, bool exact>
void matmul_amx(const ops::Weight& weight, const Activations& x, std::int64_t first_row,
                std::int64_t rows, float* out, std::int64_t out_stride, void* scratch) {
  const std::int64_t column_tiles = (weight.columns + tile_columns - 1) / tile_columns;
  const auto row_tiles = static_cast<int>((rows + tile_side - 1) / tile_side);
  const auto token_tiles = static_cast<int>((x.tokens + tile_side - 1) / tile_side);
  const std::int64_t blocks_per_row = weight.columns / F::elements;
  const auto* blocks =
      static_cast<const typename F::Block*>(weight.blocks) + first_row * blocks_per_row;

  constexpr std::int64_t row_tile = chunk_tiles * tile_values;
  auto* values = static_cast<std::uint16_t*>(scratch);  // [plane][row tile][column tile]
  constexpr std::int64_t plane = tile_rows / tile_side * row_tile;
  auto* sums = reinterpret_cast<float*>(values + (exact ? 2 : 1) * plane);  // [row][token tile]
  const std::int64_t sum_row = token_tiles * 256;
  __builtin_memset(sums, 0, static_cast<std::size_t>(row_tiles * sum_row) * sizeof(float));

  const TileScope scope;
  for (std::int64_t column = 0; column < weight.columns; column += chunk_columns) {
    const std::int64_t left = weight.columns - column;
    const std::int64_t columns = left < chunk_columns ? left : chunk_columns;
    const auto tiles = static_cast<int>((columns + tile_columns - 1) / tile_columns);
    for (std::int64_t r = 0; r < row_tiles * tile_side; ++r) {
      // Rows past the end repeat the last one; their sums are not used.
      const typename F::Block* row = blocks + (r < rows ? r : rows - 1) * blocks_per_row;
      std::uint16_t* to = values + r / tile_side * row_tile + r % tile_side * tile_columns;
      unpack_values<F, exact>(row, column, columns, to, to + plane);
    }
    // The intrinsics do not say that they read and write memory.
    asm volatile("" : : : "memory");
    const std::uint16_t* chunk = x.tiles + column / tile_columns * tile_values;
    const std::int64_t x_step = column_tiles * tile_values;
    for (int t = 0; t < token_tiles; t += 2) {
      for (int r = 0; r < row_tiles; r += 2) {
        const bool two_rows = r + 1 < row_tiles;
        const bool two_tokens = t + 1 < token_tiles;
        const auto multiply =
            two_rows ? (two_tokens ? multiply_tiles<2, 2, exact> : multiply_tiles<2, 1, exact>)
                     : (two_tokens ? multiply_tiles<1, 2, exact> : multiply_tiles<1, 1, exact>);
        multiply(values + r * row_tile, plane, chunk + t * x_step, x_step, x.tile_plane, tiles,
                 sums + r * sum_row + t * 256, sum_row);
      }
    }
  }

  asm volatile("" : : : "memory");
  for (int t = 0; t < token_tiles; ++t) {
    for (int r = 0; r < row_tiles; ++r) {
      __m512 v[16];
      for (int i = 0; i < 16; ++i) v[i] = _mm512_load_ps(sums + r * sum_row + t * 256 + i * 16);
      Avx512::transpose(v);
      const std::int64_t present = rows - r * tile_side;
      const auto mask = static_cast<__mmask16>(present >= 16 ? 0xffff : (1 << present) - 1);
      for (std::int64_t i = 0; i < 16 && t * tile_side + i < x.tokens; ++i) {
        _mm512_mask_storeu_ps(out + (t * tile_side + i) * out_stride + r * tile_side, mask, v[i]);
      }
    }
  }
}

}  // namespace
}  // namespace quantloom::cpu
