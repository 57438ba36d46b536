// Many tokens: each warp holds 16 query rows; the four warps of a block walk the same positions, so
// that the cache is read once from L2 and three times from L1. Rows are (token, head of the group),
// all on one KV head.
#include "transformer/attention.cuh"
#include "transformer/attention_tile.cuh"

namespace quantloom::kernels {
namespace {

constexpr int warps = 4;
constexpr int warp_rows = 16;
constexpr int block_rows = warps * warp_rows;

template <int head_size, bool q8_0>
__global__ void __launch_bounds__(32 * warps) prefill(Attention a) {
  const int lane = threadIdx.x % 32;
  const int kv_head = blockIdx.y;
  const int per_kv_head = a.heads / a.cache.kv_heads;
  const int rows = a.tokens * per_kv_head;
  // The last rows see the most positions: they start first.
  const int block_row = (gridDim.x - 1 - blockIdx.x) * block_rows;
  const int warp_row = block_row + (threadIdx.x / 32) * warp_rows;
  if (warp_row >= rows) return;
  const std::int64_t first = *a.first;

  const int row[2] = {warp_row + lane / 4, warp_row + lane / 4 + 8};
  std::int64_t position[2];
  std::int64_t oldest[2];
  for (int half = 0; half < 2; ++half) {
    position[half] = first + row[half] / per_kv_head;
    oldest[half] = a.window > 0 ? position[half] - a.window + 1 : 0;
  }
  const auto at_row = [&](auto* base, int half) {
    const std::int64_t token = row[half] / per_kv_head;
    const int head = kv_head * per_kv_head + row[half] % per_kv_head;
    return row[half] < rows ? base + (token * a.heads + head) * head_size : nullptr;
  };
  std::uint32_t q[head_size / 16][4];
  load_queries<head_size, false>(q, a.soft_cap > 0 ? a.scale : a.scale * log2_e,
                                 [&](int half) { return at_row(a.q, half); });

  const std::int64_t end = first + (min(warp_row + warp_rows, rows) - 1) / per_kv_head + 1;
  std::int64_t begin = 0;
  if (a.window > 0) {
    const std::int64_t seen = first + block_row / per_kv_head - a.window + 1;
    begin = max(std::int64_t{0}, seen) / tile_positions * tile_positions;
  }
  AttentionTile<head_size, q8_0> tile;
  const std::int64_t open = first + warp_row / per_kv_head + 1;  // every row sees what is below
  CachedTile<head_size, q8_0> cached;
  const auto nothing = [] {};
  for (std::int64_t at = begin; at < end; at += tile_positions) {
    const int here = static_cast<int>(at);
    cached.load_keys(a.cache, kv_head, here, static_cast<int>(end - 1));
    cached.load_values(a.cache, kv_head, here, static_cast<int>(end - 1));
    if (a.window == 0 && at + tile_positions <= open) {
      tile.template step<false>(
          q, cached, here, a.soft_cap, log2_e, [](int, int) { return true; }, nothing, nothing);
    } else {
      tile.template step<false>(
          q, cached, here, a.soft_cap, log2_e,
          [&](int half, int p) { return p <= position[half] && p >= oldest[half]; }, nothing,
          nothing);
    }
  }
  tile.finish();
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float* out = at_row(a.out, half);
    if (out == nullptr) continue;
    const float inverse = 1.0f / tile.mass[half];
    tile.template for_each_output<false>(
        half, [&](int dimension, float value) { out[dimension] = value * inverse; });
  }
}

template <int head_size>
cudaError_t launch(const Attention& a, cudaStream_t stream) {
  const std::int64_t rows = std::int64_t{a.tokens} * (a.heads / a.cache.kv_heads);
  const dim3 grid(static_cast<unsigned>((rows + block_rows - 1) / block_rows), a.cache.kv_heads);
  if (a.cache.type == CacheType::q8_0) {
    prefill<head_size, true><<<grid, 32 * warps, 0, stream>>>(a);
  } else {
    prefill<head_size, false><<<grid, 32 * warps, 0, stream>>>(a);
  }
  return cudaGetLastError();
}

}  // namespace

cudaError_t attention_prefill(const Attention& arguments, cudaStream_t stream) {
  switch (arguments.cache.head_size) {
    case 32:
      return launch<32>(arguments, stream);
    case 64:
      return launch<64>(arguments, stream);
    case 96:
      return launch<96>(arguments, stream);
    case 128:
      return launch<128>(arguments, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace quantloom::kernels
