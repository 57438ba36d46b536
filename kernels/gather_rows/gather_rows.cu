#include "gather_rows/gather_rows.h"

#include "matmul/codebook_planes.h"
#include "matmul/linear_planes.h"
#include "matmul/repack.cuh"

namespace quantloom::kernels {
namespace {

// One warp per piece of a row; as repack_kernel's inverse, but for one row of the strip.
template <class P>
__global__ void __launch_bounds__(32)
    gather_kernel(const std::uint8_t* planes, std::int64_t rows, int columns,
                  const std::int32_t* tokens, std::uint8_t* blocks, std::int32_t* row_numbers) {
  using F = typename P::Format;
  const int lane = threadIdx.x, g = lane / 4, t = lane % 4;
  const int token = tokens[blockIdx.x];
  const int p = static_cast<int>(blockIdx.y);
  const bool there = token >= 0 && token < rows;
  if (lane == 0 && p == 0) row_numbers[blockIdx.x] = there ? static_cast<int>(blockIdx.x) : -1;
  if (!there) return;
  const int row = token % strip_rows;
  const int n = min(piece_groups, columns / 32 - p * piece_groups);
  const std::int64_t row_bytes = columns / F::elements * F::bytes;
  const std::uint8_t* piece = planes + token / strip_rows * (strip_rows * row_bytes) +
                              static_cast<std::int64_t>(p) * P::piece_bytes;
  std::uint8_t* to = blocks + blockIdx.x * row_bytes +
                     static_cast<std::int64_t>(p) * (P::piece_bytes / strip_rows);
  if constexpr (P::quant_bytes > 0) {
    for (int i = lane; i < n / P::block_groups * F::bytes; i += 32) to[i] = 0;
    __syncwarp();
    for (int j = 0; j < n; ++j) {
      std::int8_t q[2][8];
      P::unpack_quants(piece, n, j, lane, q[0], q[1]);
      auto& block = *reinterpret_cast<typename F::Block*>(to + j / P::block_groups * F::bytes);
      for (int turn = 0; turn < 4; ++turn) {
        if (t == turn && g == row % 8) {
          const int k = j % P::block_groups * 4 + t;
          for (int i = 0; i < 8; ++i) P::write_code(block, k, i, q[row / 8][i]);
        }
        __syncwarp();
      }
    }
  }
  for_span_bytes<P>(n, lane, [&](int in_piece, int in_block, int of_row, int block) {
    if (of_row == row) to[block * F::bytes + in_block] = piece[in_piece];
  });
}

}  // namespace

cudaError_t gather_rows(formats::Format format, const void* planes, std::int64_t rows,
                        std::int64_t columns, const std::int32_t* tokens, std::int64_t count,
                        void* blocks, std::int32_t* row_numbers, cudaStream_t stream) {
  return formats::visit_format(
      format,
      [&]<class F>(F) {
        if constexpr (!F::quantized) {
          return cudaErrorInvalidValue;
        } else {
          if (columns < 1 || columns % F::elements != 0) return cudaErrorInvalidValue;
          if (count == 0) return cudaSuccess;
          const std::int64_t pieces = (columns + piece_columns - 1) / piece_columns;
          const dim3 grid(static_cast<unsigned>(count), static_cast<unsigned>(pieces));
          gather_kernel<Planes<F>><<<grid, 32, 0, stream>>>(
              static_cast<const std::uint8_t*>(planes), rows, static_cast<int>(columns), tokens,
              static_cast<std::uint8_t*>(blocks), row_numbers);
          return cudaGetLastError();
        }
      },
      [] { return cudaErrorInvalidValue; });
}

}  // namespace quantloom::kernels
