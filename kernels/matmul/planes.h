// The GPU layout of a quantized matrix, at the file's own bits per weight.
//
// A matrix of rows x columns is cut into strips of 16 rows, and a strip along its columns into
// pieces of 256 (the last one may have fewer groups of 32). A piece is contiguous, pieces of a
// strip follow each other, strips too, so a strip takes exactly the bytes that its 16 rows take in
// the file and one bulk copy fetches a piece.
//
// Inside a piece of n groups, lane l = 4 * g + t of a warp owns of every group the weights
// 8t .. 8t + 7 of rows g and g + 8, in four registers, one signed or unsigned byte each:
//     a[0]: row g, weights 8t .. 8t + 3        a[1]: row g + 8, the same
//     a[2]: row g, weights 8t + 4 .. 8t + 7    a[3]: row g + 8, the same
// That is the A operand of mma.m16n8k32 with the columns of a group in the order that gives every
// lane eight neighbours (the B operand follows it), and, widened to 16 bits, of two m16n8k16 steps.
//
// Format traits P (Planes<F>) give
//     quants(piece, n, group, lane, a, table)
//         the four registers; table: the codebook in shared memory, of table_bytes
//     table_word(row, column)
//         where table_bytes is not 0: what load_table() puts there
//     quant_addends(piece, n, group, lane, a)
//         where addends is 2: twice four, whose bytes sum to those of quants(), or where
//         `subtracts` have them as differences
//     affine(piece, n, row, quad, t)
//         weight = scale * byte + offset for scale group 4 * quad + t of a row
//     unit(piece, n, row), integer_scale(piece, n, row, quad, t)
//         where has_integer_scales: their product is the scale, the integer at most 2^7
//     read_codes, write_code, pack_quants, unpack_quants
//         between block and planes, for repack
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "formats/list.h"
#include "matmul/geometry.h"
#include "matmul/store_quants.h"

namespace quantloom::kernels {

// Bytes of the block that are kept as they stand, in `parts` of equal size: an array
// [blocks][parts][16 rows][bytes].
struct Span {
  int offset = 0;
  int bytes = 0;
  int parts = 1;
};

template <class F>
struct Planes;

__device__ inline std::uint32_t load_word(const std::uint8_t* p) {
  return *reinterpret_cast<const std::uint32_t*>(p);
}

__device__ inline float load_half(const std::uint8_t* p) {
  return __half2float(*reinterpret_cast<const __half*>(p));
}

template <int by>
__device__ inline std::uint32_t shift_left(std::uint32_t w) {
  if constexpr (by >= 0) {
    return w << by;
  } else {
    return w >> -by;
  }
}

// A codebook on its way from global to shared memory: the reads are started before what else a
// block has to wait for, the writes follow when they have come.
template <class P>
struct TableLoad {
  static constexpr int units = P::table_bytes / 16, held = 8;
  std::uint32_t words[held];

  // Both by the first `threads` of a block.
  __device__ void read(int threads) {
    if constexpr (units > 0) {
#pragma unroll
      for (int i = 0; i < held; ++i) words[i] = word(threadIdx.x + i * threads);
    }
  }
  __device__ void write(std::uint8_t* table, int threads) const {
    if constexpr (units > 0) {
      auto* to = reinterpret_cast<uint4*>(table);
      const auto put = [&](int unit, std::uint32_t w) {
        if (unit < units) to[unit] = make_uint4(w, w, w, w);
      };
#pragma unroll
      for (int i = 0; i < held; ++i) put(threadIdx.x + i * threads, words[i]);
      for (int unit = threadIdx.x + held * threads; unit < units; unit += threads) {
        put(unit, word(unit));
      }
    }
  }

 private:
  __device__ static std::uint32_t word(int unit) {
    return unit < units ? P::table_word(unit / 16, unit % 16) : 0;
  }
};

template <class P>
__device__ inline void load_table(std::uint8_t* table, int threads) {
  TableLoad<P> load;
  load.read(threads);
  load.write(table, threads);
}

// Geometry common to all formats: first the packed quants, quant_bytes per group of 32 columns,
// then the spans.
template <class F, int quant_bytes_, Span... spans_>
struct PieceLayout {
  using Format = F;
  static constexpr int quant_bytes = quant_bytes_;
  static constexpr int span_count = sizeof...(spans_);
  static constexpr Span spans[span_count] = {spans_...};
  static constexpr int group = F::group;
  static constexpr float row8_factor = 1.0f;  // affine() of rows 8 .. 15 includes it
  static constexpr int row8_position = 0;     // of their bytes' lowest bit
  static constexpr bool has_integer_scales = false;
  static constexpr bool has_k_scales = false;  // those of formats/k_scales.h, in a row's span 0
  static constexpr int addends = 1;
  static constexpr bool subtracts = false;
  static constexpr int centre = 0;       // of the range of unsigned bytes (halves.cuh)
  static constexpr int table_bytes = 0;  // shared memory for a codebook (grid_planes.h)
  static constexpr int block_groups = F::elements / 32;
  static constexpr int piece_bytes = strip_rows * F::bytes * (piece_columns / F::elements);
  static_assert(quant_bytes * block_groups + strip_rows * (0 + ... + spans_.bytes) ==
                strip_rows * F::bytes);

  static constexpr int bytes_before(int index) {
    int before = 0;
    for (int i = 0; i < index; ++i) before += spans[i].bytes;
    return before;
  }

  // Start of a span's array in a piece of n groups.
  template <int index>
  __host__ __device__ static int span_start(int n) {
    constexpr int before = bytes_before(index);
    return n * quant_bytes + n / block_groups * strip_rows * before;
  }
  // The bytes of one row in part `part` (counted through the piece's blocks).
  template <int index>
  __device__ static const std::uint8_t* span(const std::uint8_t* piece, int n, int part, int row) {
    constexpr int bytes = spans[index].bytes / spans[index].parts;
    return piece + span_start<index>(n) + (part * strip_rows + row) * bytes;
  }
};

// Formats whose quants are plain integers of low_bits + high_bits bits. Signed ones stand in two's
// complement at the top of their byte (the factor 2^-shift goes into the scale), unsigned ones at
// the bottom.
template <class F, int low_bits, int high_bits, int bias, Span... spans_>
struct LinearPlanes : PieceLayout<F, 64 * (low_bits + high_bits), spans_...> {
  static constexpr int bits = low_bits + high_bits;
  static constexpr bool is_signed = F::minimum_quant == -(1 << (bits - 1));
  static constexpr int low_position = is_signed ? 8 - bits : 0;
  static constexpr float factor = 1.0f / (1 << low_position);
  static constexpr int low_bytes = 64 * low_bits;  // per group
  // Rows g + 8 of unsigned nibbles and pairs stay where they stand in the byte, which spares a
  // shift; affine() takes the factor back.
  static constexpr int row8_position = !is_signed && high_bits == 0 && low_bits < 8 ? low_bits : 0;
  static constexpr float row8_factor = 1.0f / (1 << row8_position);
  static constexpr bool has_offset = F::has_offset || bias != 0;
  static constexpr int centre = is_signed ? 0 : bias != 0 ? bias : 1 << (bits - 1);

  __device__ static float row_factor(int row) { return row < 8 ? 1.0f : row8_factor; }

  template <int r>
  __device__ static std::uint32_t high_part(std::uint32_t w) {
    constexpr int position = low_position + low_bits;
    constexpr std::uint32_t mask = ((1u << high_bits) - 1u) * (0x01010101u << position);
    return shift_left<position - high_bits * r>(w) & mask;
  }

  template <int r>
  __device__ static std::uint32_t low_part2(std::uint32_t w) {
    constexpr std::uint32_t mask = 0x03030303u << low_position;
    return shift_left<low_position - 2 * r>(w) & mask;
  }

  __device__ static void quants(const std::uint8_t* piece, int n, int j, int lane,
                                std::uint32_t a[4], const std::uint8_t* = nullptr) {
    if constexpr (low_bits == 8) {
      const uint4 w = *reinterpret_cast<const uint4*>(piece + j * low_bytes + lane * 16);
      a[0] = w.x, a[1] = w.y, a[2] = w.z, a[3] = w.w;
    } else if constexpr (low_bits == 4) {
      constexpr std::uint32_t mask = 0x0f0f0f0fu << low_position;
      const uint2 w = *reinterpret_cast<const uint2*>(piece + j * low_bytes + lane * 8);
      constexpr int shift8 = low_position - 4 + row8_position;
      a[0] = shift_left<low_position>(w.x) & mask;
      a[1] = shift_left<shift8>(w.x) & (mask << row8_position);
      a[2] = shift_left<low_position>(w.y) & mask;
      a[3] = shift_left<shift8>(w.y) & (mask << row8_position);
    } else {
      static_assert(low_bits == 2);
      const std::uint32_t w = load_word(piece + j * low_bytes + lane * 4);
      if constexpr (row8_position != 0) {
        a[0] = w & 0x03030303u, a[1] = w & 0x0c0c0c0cu;
        a[2] = (w >> 4) & 0x03030303u, a[3] = (w >> 4) & 0x0c0c0c0cu;
      } else {
        a[0] = low_part2<0>(w), a[1] = low_part2<1>(w), a[2] = low_part2<2>(w),
        a[3] = low_part2<3>(w);
      }
    }
    if constexpr (high_bits > 0) {
      const std::uint8_t* high = piece + n * low_bytes;
      std::uint32_t w;
      if constexpr (high_bits == 2) {
        w = load_word(high + j * 128 + lane * 4);
      } else {
        // Lanes 2i and 2i + 1 share a word: the low and the high nibbles of its bytes.
        w = load_word(high + j * 64 + (lane >> 1) * 4) >> (4 * (lane & 1));
      }
      a[0] |= high_part<0>(w), a[1] |= high_part<1>(w), a[2] |= high_part<2>(w),
          a[3] |= high_part<3>(w);
    }
  }

  __device__ static std::uint32_t code(std::int8_t q) {
    return static_cast<std::uint32_t>(q + bias) & ((1u << bits) - 1u);
  }

  __device__ static void read_codes(const typename F::Block& block, int k, std::int8_t q[8]) {
    F::quants8(block, k, q);
  }
  __device__ static void write_code(typename F::Block& block, int k, int i, int q) {
    store_quant(block, k, i, q);
  }

  // row_g, row_g8: the integers (quants8) of weights 8t .. 8t + 7 of the lane's two rows.
  __device__ static void pack_quants(std::uint8_t* piece, int n, int j, int lane,
                                     const std::int8_t row_g[8], const std::int8_t row_g8[8]) {
    std::uint32_t low[4] = {}, high[4] = {};
    for (int i = 0; i < 8; ++i) {
      const int r = i / 4 * 2, shift = 8 * (i % 4);
      low[r] |= (code(row_g[i]) & ((1u << low_bits) - 1u)) << shift;
      low[r + 1] |= (code(row_g8[i]) & ((1u << low_bits) - 1u)) << shift;
      high[r] |= (code(row_g[i]) >> low_bits) << shift;
      high[r + 1] |= (code(row_g8[i]) >> low_bits) << shift;
    }
    auto* words = reinterpret_cast<std::uint32_t*>(piece + j * low_bytes);
    if constexpr (low_bits == 8) {
      for (int r = 0; r < 4; ++r) words[lane * 4 + r] = low[r];
    } else if constexpr (low_bits == 4) {
      words[lane * 2] = low[0] | low[1] << 4;
      words[lane * 2 + 1] = low[2] | low[3] << 4;
    } else {
      words[lane] = low[0] | low[1] << 2 | low[2] << 4 | low[3] << 6;
    }
    if constexpr (high_bits == 2) {
      reinterpret_cast<std::uint32_t*>(piece + n * low_bytes + j * 128)[lane] =
          high[0] | high[1] << 2 | high[2] << 4 | high[3] << 6;
    } else if constexpr (high_bits == 1) {
      const std::uint32_t own = high[0] | high[1] << 1 | high[2] << 2 | high[3] << 3;
      const std::uint32_t next = __shfl_down_sync(0xffffffffu, own, 1);
      if ((lane & 1) == 0) {
        reinterpret_cast<std::uint32_t*>(piece + n * low_bytes + j * 64)[lane >> 1] =
            own | next << 4;
      }
    }
  }

  // The inverse of pack_quants.
  __device__ static void unpack_quants(const std::uint8_t* piece, int n, int j, int lane,
                                       std::int8_t row_g[8], std::int8_t row_g8[8]) {
    std::uint32_t a[4];
    quants(piece, n, j, lane, a);
    for (int i = 0; i < 8; ++i) {
      const int r = i / 4 * 2, shift = 8 * (i % 4);
      const auto byte = [&](int word) {
        const auto b = static_cast<std::uint8_t>(static_cast<std::uint8_t>(a[word] >> shift) >>
                                                 (word & 1 ? row8_position : 0));
        const int value = is_signed ? static_cast<std::int8_t>(b) >> low_position : b - bias;
        return static_cast<std::int8_t>(value);
      };
      row_g[i] = byte(r), row_g8[i] = byte(r + 1);
    }
  }
};

}  // namespace quantloom::kernels
