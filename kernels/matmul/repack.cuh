// Blocks to planes and back. One warp per piece; both directions are exact for every bit pattern.
#pragma once

#include "matmul/matmul.h"
#include "matmul/planes.h"

namespace quantloom::kernels {

struct RepackShape {
  std::int64_t first_row = 0;
  std::int64_t rows = 0;  // in this call
  int columns = 0;
  unsigned* largest = nullptr;  // bits of the float behind the planes; of a matrix, max |weight|
};

constexpr int repack_threads = 128;

// Calls fn(byte in the piece, byte in the block, row, block) for every byte of the spans.
template <class P, int index = 0, class Function>
__device__ void for_span_bytes(int n, int lane, Function&& fn) {
  if constexpr (index < P::span_count) {
    constexpr Span span = P::spans[index];
    constexpr int part_bytes = span.bytes / span.parts;
    const int total = n / P::block_groups * strip_rows * span.bytes;
    for (int i = lane; i < total; i += 32) {
      const int byte = i % part_bytes, row = i / part_bytes % strip_rows;
      const int part = i / part_bytes / strip_rows;
      fn(P::template span_start<index>(n) + i, span.offset + part % span.parts * part_bytes + byte,
         row, part / span.parts);
    }
    for_span_bytes<P, index + 1>(n, lane, fn);
  }
}

// Largest absolute weight that a group's scale and offset allow; infinities and NaN count as 0.
template <class F>
__device__ inline float largest_weight(const typename F::Block& block, int group) {
  const formats::Affine a = F::affine(block, group);
  constexpr int largest =
      -F::minimum_quant > F::maximum_quant ? -F::minimum_quant : F::maximum_quant;
  const float value = fabsf(a.scale) * largest + fabsf(a.offset);
  return value <= 3e38f ? value : 0.0f;
}

template <class P, bool inverse>
__global__ void __launch_bounds__(repack_threads)
    repack_kernel(const std::uint8_t* from, std::uint8_t* to, RepackShape shape) {
  using F = typename P::Format;
  using Block = typename F::Block;
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int pieces = (shape.columns + piece_columns - 1) / piece_columns;
  const std::int64_t task =
      static_cast<std::int64_t>(blockIdx.x) * (repack_threads / 32) + threadIdx.x / 32;
  const std::int64_t strip = task / pieces;
  const int p = static_cast<int>(task % pieces);
  if (strip * strip_rows >= shape.rows) return;
  const int n = min(piece_groups, shape.columns / 32 - p * piece_groups);
  const std::int64_t row_bytes = shape.columns / F::elements * F::bytes;
  const std::int64_t piece_at = (shape.first_row / strip_rows + strip) * strip_rows * row_bytes +
                                static_cast<std::int64_t>(p) * P::piece_bytes;
  const int rows_here = static_cast<int>(
      shape.rows - strip * strip_rows < strip_rows ? shape.rows - strip * strip_rows : strip_rows);
  // Blocks of the call's first row stand at the beginning of the block buffer.
  const std::int64_t blocks_at =
      strip * strip_rows * row_bytes + static_cast<std::int64_t>(p) * (P::piece_bytes / strip_rows);
  const auto block_at = [&](int row, int block) {
    return blocks_at + row * row_bytes + block * F::bytes;
  };

  if constexpr (!inverse) {
    std::uint8_t* piece = to + piece_at;
    if constexpr (P::quant_bytes > 0) {
      for (int j = 0; j < n; ++j) {
        std::int8_t q[2][8] = {};
        for (int half = 0; half < 2; ++half) {
          const int row = g + 8 * half;
          if (row >= rows_here) continue;
          const auto& block =
              *reinterpret_cast<const Block*>(from + block_at(row, j / P::block_groups));
          P::read_codes(block, j % P::block_groups * 4 + t, q[half]);
        }
        P::pack_quants(piece, n, j, lane, q[0], q[1]);
      }
    }
    // Row lane / 2, every second scale group.
    float largest = 0;
    if (lane / 2 < rows_here) {
      for (int i = lane % 2; i < n * 32 / F::group; i += 2) {
        constexpr int per_block = F::elements / F::group;
        const auto& block =
            *reinterpret_cast<const Block*>(from + block_at(lane / 2, i / per_block));
        largest = fmaxf(largest, largest_weight<F>(block, i % per_block));
      }
    }
    const unsigned bits = __reduce_max_sync(0xffffffffu, __float_as_uint(largest));
    if (lane == 0) atomicMax(shape.largest, bits);
    for_span_bytes<P>(n, lane, [&](int in_piece, int in_block, int row, int block) {
      piece[in_piece] = row < rows_here ? from[block_at(row, block) + in_block] : 0;
    });
  } else {
    const std::uint8_t* piece = from + piece_at;
    if constexpr (P::quant_bytes > 0) {
      // Blocks are zeroed first: several weights share a byte, and lanes of one row write in turn.
      for (int row = 0; row < rows_here; ++row) {
        for (int i = lane; i < n / P::block_groups * F::bytes; i += 32)
          to[block_at(row, 0) + i] = 0;
      }
      __syncwarp();
      for (int j = 0; j < n; ++j) {
        std::int8_t q[2][8];
        P::unpack_quants(piece, n, j, lane, q[0], q[1]);
        for (int turn = 0; turn < 4; ++turn) {
          if (t == turn) {
            for (int half = 0; half < 2; ++half) {
              const int row = g + 8 * half;
              if (row >= rows_here) continue;
              auto& block = *reinterpret_cast<Block*>(to + block_at(row, j / P::block_groups));
              const int k = j % P::block_groups * 4 + t;
              for (int i = 0; i < 8; ++i) P::write_code(block, k, i, q[half][i]);
            }
          }
          __syncwarp();
        }
      }
    }
    for_span_bytes<P>(n, lane, [&](int in_piece, int in_block, int row, int block) {
      if (row < rows_here) to[block_at(row, block) + in_block] = piece[in_piece];
    });
  }
}

template <class P, bool inverse>
MatmulStatus launch_repack(const void* from, void* to, const RepackShape& shape,
                           cudaStream_t stream) {
  const std::int64_t pieces = (shape.columns + piece_columns - 1) / piece_columns;
  const std::int64_t tasks = (shape.rows + strip_rows - 1) / strip_rows * pieces;
  const std::int64_t grid = (tasks + repack_threads / 32 - 1) / (repack_threads / 32);
  repack_kernel<P, inverse><<<static_cast<unsigned>(grid), repack_threads, 0, stream>>>(
      static_cast<const std::uint8_t*>(from), static_cast<std::uint8_t*>(to), shape);
  return cudaPeekAtLastError() == cudaSuccess ? MatmulStatus::done : MatmulStatus::cuda_error;
}

}  // namespace quantloom::kernels
