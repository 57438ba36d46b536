#include "matmul/activations.cuh"

#include "matmul/planes.h"

namespace quantloom::kernels {
namespace {

constexpr int warps_per_block = 4;

// A warp per token and piece, eight columns a lane.
template <int scale_group>
__global__ void __launch_bounds__(32 * warps_per_block)
    fixed_point_kernel(const float* x, int columns, int pieces, int tokens, int tiles,
                       FixedPoint to) {
#if defined(QL_TENSOR_STEPS)
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
#endif
  constexpr unsigned all = 0xffffffffu;
  const int lane = threadIdx.x % 32;
  const int task = blockIdx.x * warps_per_block + threadIdx.x / 32;
  const int piece = task % pieces, token = task / pieces;
  if (token >= tokens) return;
  const int column = piece * piece_columns + lane * 8;
  float v[8] = {};
  if (column < columns) {
    const auto* from =
        reinterpret_cast<const float4*>(x + static_cast<std::int64_t>(token) * columns + column);
    const float4 a = from[0], b = from[1];
    v[0] = a.x, v[1] = a.y, v[2] = a.z, v[3] = a.w, v[4] = b.x, v[5] = b.y, v[6] = b.z, v[7] = b.w;
  }
  // As integers the absolute values are ordered, with NaN above infinity above everything.
  unsigned bits = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) bits = max(bits, __float_as_uint(fabsf(v[i])));
  const float largest = __uint_as_float(__reduce_max_sync(all, bits));
  const float inverse = largest > 1e-34f ? 32512.0f * __frcp_rn(largest) : 0.0f;
  // An infinity or NaN gives q = 0 and an infinite or NaN step, so every sum with it is NaN.
  const float step = largest <= 1e-34f ? 0.0f : largest * (1.0f / 32512.0f);
  std::uint32_t high[2] = {}, low[2] = {};
  int sum = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int q = __float2int_rn(v[i] * inverse);
    sum += q;
    // The low byte of q itself is q - 256 * high.
    high[i / 4] |= (static_cast<std::uint32_t>((q + 128) >> 8) & 255u) << (8 * (i % 4));
    low[i / 4] |= (static_cast<std::uint32_t>(q) & 255u) << (8 * (i % 4));
  }
  const int tile = token / 4, in_tile = token % 4;
  std::uint8_t* values =
      to.values +
      ((static_cast<std::int64_t>(piece) * piece_groups + lane / 4) * tiles + tile) * 256 +
      in_tile * 64 + lane % 4 * 8;
  *reinterpret_cast<uint2*>(values) = make_uint2(high[0], high[1]);
  *reinterpret_cast<uint2*>(values + 32) = make_uint2(low[0], low[1]);
  if (lane == 0) to.steps[(piece * tiles + tile) * 4 + in_tile] = step;
  if (to.sums == nullptr) return;
  constexpr int lanes = scale_group / 8;
#pragma unroll
  for (int i = 1; i < lanes; i *= 2) sum += __shfl_xor_sync(all, sum, i);
  if (lane % lanes == 0) {
    to.sums[((piece * (32 / lanes) + lane / lanes) * tiles + tile) * 4 + in_tile] =
        static_cast<float>(sum);
  }
#endif
}

}  // namespace

void prepare_fixed_point(const float* x, int columns, int tokens, int tiles, int scale_group,
                         const FixedPoint& to, bool overlap, cudaStream_t stream) {
  const int pieces = (columns + piece_columns - 1) / piece_columns;
  cudaLaunchConfig_t config{};
  config.gridDim =
      dim3(static_cast<unsigned>((pieces * tokens + warps_per_block - 1) / warps_per_block));
  config.blockDim = dim3(32 * warps_per_block);
  config.stream = stream;
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &attribute;
  config.numAttrs = overlap ? 1 : 0;
  cudaLaunchKernelEx(&config, scale_group == 32 ? fixed_point_kernel<32> : fixed_point_kernel<16>,
                     x, columns, pieces, tokens, tiles, to);
}

}  // namespace quantloom::kernels
