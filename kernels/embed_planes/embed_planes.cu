#include "embed_planes/embed_planes.h"

#include "formats/decode.h"
#include "matmul/codebook_planes.h"
#include "matmul/linear_planes.h"
#include "matmul/repack.cuh"

namespace quantloom::kernels {
namespace {

// One warp per piece of a row: its blocks come together in shared memory, as by repack_kernel's
// inverse, and are decoded there.
template <class P>
__global__ void __launch_bounds__(32)
    embed_kernel(const std::uint8_t* planes, std::int64_t rows, int columns,
                 const std::int32_t* tokens, float scale, float* out) {
  using F = typename P::Format;
  using Block = typename F::Block;
  __shared__ __align__(16) std::uint8_t blocks[P::piece_bytes / strip_rows];
  const int lane = threadIdx.x, g = lane / 4, t = lane % 4;
  const int token = tokens[blockIdx.x], p = static_cast<int>(blockIdx.y);
  const bool there = token >= 0 && token < rows;
  const int n = min(piece_groups, columns / 32 - p * piece_groups);
  float values[8];
  for (float& value : values) value = __int_as_float(0x7fc00000);
  if (there) {
    const int row = token % strip_rows;
    const std::int64_t row_bytes = columns / F::elements * F::bytes;
    const std::uint8_t* piece = planes + token / strip_rows * (strip_rows * row_bytes) +
                                static_cast<std::int64_t>(p) * P::piece_bytes;
    if constexpr (P::quant_bytes > 0) {
      for (int i = lane; i < n / P::block_groups * F::bytes; i += 32) blocks[i] = 0;
      __syncwarp();
      for (int j = 0; j < n; ++j) {
        std::int8_t q[2][8];
        P::unpack_quants(piece, n, j, lane, q[0], q[1]);
        auto& block = reinterpret_cast<Block*>(blocks)[j / P::block_groups];
        // Weights of several lanes share a byte: one lane at a time.
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
      if (of_row == row) blocks[block * F::bytes + in_block] = piece[in_piece];
    });
    __syncwarp();
    constexpr int eights = F::elements / 8;
    if (lane < 4 * n) {
      formats::decode8<F>(reinterpret_cast<const Block*>(blocks)[lane / eights], lane % eights,
                          values);
      for (float& value : values) value = formats::multiply(scale, value);
    }
  }
  if (lane >= 4 * n) return;
  auto* to = reinterpret_cast<float4*>(out + static_cast<std::int64_t>(blockIdx.x) * columns +
                                       p * piece_columns) +
             2 * lane;
  to[0] = {values[0], values[1], values[2], values[3]};
  to[1] = {values[4], values[5], values[6], values[7]};
}

}  // namespace

cudaError_t embed_planes(formats::Format format, const void* planes, std::int64_t rows,
                         std::int64_t columns, const std::int32_t* tokens, std::int64_t count,
                         float scale, float* out, cudaStream_t stream) {
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
          embed_kernel<Planes<F>><<<grid, 32, 0, stream>>>(static_cast<const std::uint8_t*>(planes),
                                                           rows, static_cast<int>(columns), tokens,
                                                           scale, out);
          return cudaGetLastError();
        }
      },
      [] { return cudaErrorInvalidValue; });
}

}  // namespace quantloom::kernels
