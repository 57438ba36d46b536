// Few tokens against a long cache: the cache is split over blocks (flash decoding, Dao et al.
// 2023), each of four warps that take 16 positions in turn. The block that finishes last adds the
// parts in their order.
#include "transformer/attention.cuh"
#include "transformer/attention_tile.cuh"
#include "transformer/overlap.cuh"
#include "transformer/reduce.cuh"

namespace quantloom::kernels {
namespace {

constexpr int warps = 4;
constexpr int step_positions = warps * tile_positions;

template <int head_size, bool q8_0>
__global__ void __launch_bounds__(32 * warps) decode(Attention a, int row_groups) {
  __shared__ float sums[warps][rows_per_partial][head_size];
  __shared__ float2 peaks[warps][rows_per_partial];
  __shared__ float shrinks[rows_per_partial][partial_slots];
  __shared__ bool last_block;
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int kv_head = blockIdx.y / row_groups;
  const int first_row = (blockIdx.y % row_groups) * rows_per_partial;
  const int per_kv_head = a.heads / a.cache.kv_heads;
  const int rows = a.tokens * per_kv_head;
  wait_for_previous();
  const std::int64_t first = *a.first;

  // The positions that any row of this block sees, cut into equal parts of whole steps.
  const int last_row = min(first_row + rows_per_partial, rows) - 1;
  const std::int64_t end = first + last_row / per_kv_head + 1;
  std::int64_t begin = 0;
  if (a.window > 0) begin = max(std::int64_t{0}, first + first_row / per_kv_head - a.window + 1);
  const std::int64_t share = (end - begin + gridDim.x - 1) / gridDim.x;
  const std::int64_t part = (share + step_positions - 1) / step_positions * step_positions;
  const int parts = static_cast<int>((end - begin + part - 1) / part);
  if (static_cast<int>(blockIdx.x) >= parts) return;
  const std::int64_t from = begin + blockIdx.x * part;
  const std::int64_t to = min(end, from + part);

  const int row = first_row + lane / 4;
  const int token = row / per_kv_head;
  const int head = kv_head * per_kv_head + row % per_kv_head;
  const std::int64_t position = first + token;
  const std::int64_t oldest = a.window > 0 ? position - a.window + 1 : 0;
  constexpr float log2_e = 1.44269504088896341f;
  std::uint32_t q[head_size / 16][4];
  load_queries<head_size, true>(q, a.soft_cap > 0 ? a.scale : a.scale * log2_e, [&](int) {
    return row < rows ? a.q + (std::int64_t{token} * a.heads + head) * head_size : nullptr;
  });

  AttentionTile<head_size, q8_0> tile;
  for (std::int64_t at = from + warp * tile_positions; at < to; at += step_positions) {
    tile.template step<true>(
        q, a.cache, kv_head, at, end - 1, a.soft_cap, log2_e,
        [&](int, std::int64_t p) { return p < to && p <= position && p >= oldest; });
  }
  tile.finish();
  if (lane % 4 == 0) peaks[warp][lane / 4] = {tile.peak[0], tile.mass[0]};
  tile.template for_each_output<true>(
      0, [&](int dimension, float value) { sums[warp][lane / 4][dimension] = value; });
  __syncthreads();

  const auto write_out = [&](int r, int dimension, float value) {
    const int target = first_row + r;
    if (target >= rows) return;
    a.out[(std::int64_t{target / per_kv_head} * a.heads + kv_head * per_kv_head +
           target % per_kv_head) *
              head_size +
          dimension] = value;
  };
  const PartialSpace space = partial_space(a.workspace);
  const std::int64_t slot = std::int64_t{blockIdx.y} * gridDim.x;
  for (int i = threadIdx.x; i < rows_per_partial * head_size; i += 32 * warps) {
    const int r = i / head_size;
    const int dimension = i % head_size;
    float top = -INFINITY;
    for (int w = 0; w < warps; ++w) top = fmaxf(top, peaks[w][r].x);
    const float origin = top == -INFINITY ? 0.0f : top;
    float sum = 0;
    float mass = 0;
    for (int w = 0; w < warps; ++w) {
      const float shrink = exp2f(peaks[w][r].x - origin);
      sum += shrink * sums[w][r][dimension];
      mass += shrink * peaks[w][r].y;
    }
    if (parts == 1) {
      write_out(r, dimension, sum / mass);
    } else {
      space.sums[(slot + blockIdx.x) * rows_per_partial * head_size + i] = sum;
      if (dimension == 0) space.peaks[(slot + blockIdx.x) * rows_per_partial + r] = {top, mass};
    }
  }
  if (parts == 1) return;

  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last_block = atomicAdd(&space.counters[blockIdx.y], 1) == parts - 1;
  __syncthreads();
  if (!last_block) return;
  __threadfence();
  // A warp has two rows: first the parts' weights, then the sums, many loads under way at once.
  constexpr int own = rows_per_partial / warps;
  constexpr int columns = head_size / 32;
  float total[own][columns] = {};
  float mass[own] = {};
#pragma unroll
  for (int k = 0; k < own; ++k) {
    const int r = warp + k * warps;
    float top = -INFINITY;
    for (int p = lane; p < parts; p += 32) {
      top = fmaxf(top, __ldcg(&space.peaks[(slot + p) * rows_per_partial + r].x));
    }
    top = warp_max(top);
    const float origin = top == -INFINITY ? 0.0f : top;
    for (int p = lane; p < parts; p += 32) {
      const float2 peak = __ldcg(&space.peaks[(slot + p) * rows_per_partial + r]);
      const float shrink = exp2f(peak.x - origin);
      shrinks[r][p] = shrink;
      mass[k] += shrink * peak.y;
    }
    mass[k] = warp_sum(mass[k]);
  }
  __syncwarp();
#pragma unroll 4
  for (int p = 0; p < parts; ++p) {
#pragma unroll
    for (int k = 0; k < own; ++k) {
      const int r = warp + k * warps;
      const float* from = space.sums + ((slot + p) * rows_per_partial + r) * head_size + lane;
#pragma unroll
      for (int c = 0; c < columns; ++c) total[k][c] += shrinks[r][p] * __ldcg(from + 32 * c);
    }
  }
#pragma unroll
  for (int k = 0; k < own; ++k) {
#pragma unroll
    for (int c = 0; c < columns; ++c) {
      write_out(warp + k * warps, lane + 32 * c, total[k][c] / mass[k]);
    }
  }
  if (threadIdx.x == 0) space.counters[blockIdx.y] = 0;
}

template <int head_size>
cudaError_t launch(const Attention& a, cudaStream_t stream) {
  const int rows = a.tokens * (a.heads / a.cache.kv_heads);
  const int row_groups = (rows + rows_per_partial - 1) / rows_per_partial;
  const int pairs = a.cache.kv_heads * row_groups;
  if (pairs > counter_slots) return cudaErrorInvalidValue;
  std::int64_t splits = partial_slots / pairs;
  const std::int64_t steps = (a.bound + step_positions - 1) / step_positions;
  splits = splits < steps ? splits : steps;
  const dim3 grid(static_cast<unsigned>(splits < 1 ? 1 : splits), pairs);
  if (a.cache.type == CacheType::q8_0) {
    return launch_overlapped(decode<head_size, true>, grid, 32 * warps, 0, stream, a, row_groups);
  }
  return launch_overlapped(decode<head_size, false>, grid, 32 * warps, 0, stream, a, row_groups);
}

}  // namespace

cudaError_t attention_decode(const Attention& arguments, cudaStream_t stream) {
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
