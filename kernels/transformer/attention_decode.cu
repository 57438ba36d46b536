// Few tokens against a long cache: the cache is split over blocks (flash decoding, Dao et al.
// 2023), each of eight warps that take 16 positions in turn. The block that finishes last adds the
// parts in their order.
#include "device/overlap.cuh"
#include "transformer/attention.cuh"
#include "transformer/attention_tile.cuh"
#include "transformer/reduce.cuh"

namespace quantloom::kernels {
namespace {

constexpr int warps = 8;
constexpr int threads = 32 * warps;
constexpr int step_positions = warps * tile_positions;
constexpr int most_parts = 132;
static_assert(most_parts <= partial_slots);

// The rows of one block: up to rows_per_partial of a kv head's (token, query head) pairs, and the
// positions that any of them sees, cut into equal parts of whole steps.
struct Share {
  int kv_head, per_kv_head, first_row, rows, first, begin, end, from, to, parts;

  __device__ Share(const Attention& a, int row_groups) {
    kv_head = blockIdx.y / row_groups;
    per_kv_head = a.heads / a.cache.kv_heads;
    first_row = (blockIdx.y % row_groups) * rows_per_partial;
    rows = min(rows_per_partial, a.tokens * per_kv_head - first_row);
    first = *a.first;
    end = first + (first_row + rows - 1) / per_kv_head + 1;
    begin = 0;
    if (a.window > 0) {
      const std::int64_t oldest = first + first_row / per_kv_head - a.window + 1;
      begin = oldest > 0 ? static_cast<int>(oldest) : 0;
    }
    const int length = end - begin;
    const unsigned share = (static_cast<unsigned>(length) + gridDim.x - 1) / gridDim.x;
    const int part =
        static_cast<int>((share + step_positions - 1) / step_positions) * step_positions;
    parts = (length + part - 1) / part;
    from = begin + static_cast<int>(blockIdx.x) * part;
    to = min(end, from + part);
  }
  // The row's head of q and out.
  __device__ std::int64_t head(const Attention& a, int r) const {
    const int row = first_row + r;
    return std::int64_t{row / per_kv_head} * a.heads + kv_head * per_kv_head + row % per_kv_head;
  }
};

// Peak, mass and sums of a warp's or block's share of the positions.
template <int head_size>
struct Shared {
  float4 sums[warps][rows_per_partial][head_size / 4];
  float2 peaks[warps][rows_per_partial];
  float shrinks[rows_per_partial][most_parts];
  float masses[rows_per_partial];
  bool is_last;
};

__device__ inline void add_scaled(float4& sum, float scale, const float4& x) {
  sum.x += scale * x.x;
  sum.y += scale * x.y;
  sum.z += scale * x.z;
  sum.w += scale * x.w;
}

// Tiles under way in registers besides the one in use. The float16 tile leaves room for none: its
// keys and values are read anew as soon as each is used.
template <bool q8_0>
constexpr int tiles_ahead = q8_0 ? 2 : 1;

template <int head_size, bool q8_0>
__device__ void attend(const Attention& a, const Share& s, Shared<head_size>& shared) {
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  const int r = lane / 4;
  constexpr int ahead = tiles_ahead<q8_0>;
  CachedTile<head_size, q8_0> cached[ahead];
  const int start = s.from + warp * tile_positions;
  const int last = s.end - 1;
#pragma unroll
  for (int i = 0; i < ahead; ++i) {
    cached[i].load_keys(a.cache, s.kv_head, start + i * step_positions, last);
    cached[i].load_values(a.cache, s.kv_head, start + i * step_positions, last);
  }
  std::uint32_t q[head_size / 16][4];
  load_queries<head_size, true>(q, a.soft_cap > 0 ? a.scale : a.scale * log2_e, [&](int) {
    return r < s.rows ? a.q + s.head(a, r) * head_size : nullptr;
  });
  const int position = s.first + (s.first_row + r) / s.per_kv_head;
  const int newest = min(position, s.to - 1);
  const int oldest = a.window > 0 ? static_cast<int>(position - a.window + 1) : 0;

  AttentionTile<head_size, q8_0> tile;
  for (int at = start; at < s.to; at += ahead * step_positions) {
#pragma unroll
    for (int i = 0; i < ahead; ++i) {
      const int here = at + i * step_positions;
      const int next = here + ahead * step_positions;
      if (here >= s.to) break;
      tile.template step<true>(
          q, cached[i], here, a.soft_cap, log2_e,
          [&](int, int p) { return p <= newest && p >= oldest; },
          [&] {
            if (next < s.to) cached[i].load_keys(a.cache, s.kv_head, next, last);
          },
          [&] {
            if (next < s.to) cached[i].load_values(a.cache, s.kv_head, next, last);
          });
    }
  }
  tile.finish();
  if (lane % 4 == 0) shared.peaks[warp][r] = {tile.peak[0], tile.mass[0]};
  float* sums = reinterpret_cast<float*>(shared.sums[warp][r]);
  tile.template for_each_output<true>(0,
                                      [&](int dimension, float value) { sums[dimension] = value; });
}

template <int head_size, bool q8_0>
__global__ void __launch_bounds__(threads, 1)
    decode(const __grid_constant__ Attention a, int row_groups) {
  extern __shared__ float4 dynamic[];
  Shared<head_size>& shared = *reinterpret_cast<Shared<head_size>*>(dynamic);
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32;
  wait_for_previous();
  const Share s(a, row_groups);
  if (static_cast<int>(blockIdx.x) >= s.parts) return;
  attend<head_size, q8_0>(a, s, shared);
  __syncthreads();

  constexpr int columns = head_size / 4;
  const PartialSpace space = partial_space(a.workspace);
  const int slot = blockIdx.y * gridDim.x;
  const auto write_out = [&](int r, int column, const float4& sum, float mass) {
    const float inverse = 1.0f / mass;
    reinterpret_cast<float4*>(a.out + s.head(a, r) * head_size)[column] =
        make_float4(sum.x * inverse, sum.y * inverse, sum.z * inverse, sum.w * inverse);
  };
  for (int i = threadIdx.x; i < s.rows * columns; i += threads) {
    const int r = i / columns;
    float top = -INFINITY;
    for (int w = 0; w < warps; ++w) top = fmaxf(top, shared.peaks[w][r].x);
    const float origin = top == -INFINITY ? 0.0f : top;
    float4 sum = {};
    float mass = 0;
    for (int w = 0; w < warps; ++w) {
      const float shrink = exp2f(shared.peaks[w][r].x - origin);
      add_scaled(sum, shrink, shared.sums[w][r][i % columns]);
      mass += shrink * shared.peaks[w][r].y;
    }
    if (s.parts == 1) {
      write_out(r, i % columns, sum, mass);
    } else {
      const std::int64_t row =
          std::int64_t{slot + static_cast<int>(blockIdx.x)} * rows_per_partial + r;
      __stcg(reinterpret_cast<float4*>(space.sums + row * head_size) + i % columns, sum);
      if (i % columns == 0) __stcg(space.peaks + row, make_float2(top, mass));
    }
  }
  if (s.parts == 1) return;

  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    shared.is_last = atomicAdd(&space.counters[blockIdx.y], 1) == s.parts - 1;
  }
  __syncthreads();
  if (!shared.is_last) return;
  __threadfence();
  // The first sums come in while the parts' weights are found.
  constexpr int batch = 16;
  const auto part_of = [&](int r, int column, int p) {
    const std::int64_t row = std::int64_t{slot + p} * rows_per_partial + r;
    return __ldcg(reinterpret_cast<const float4*>(space.sums + row * head_size) + column);
  };
  static_assert(rows_per_partial * columns <= threads);
  const int own_row = threadIdx.x / columns;
  const int own_column = threadIdx.x % columns;
  float4 first_parts[batch];
#pragma unroll
  for (int p = 0; p < batch; ++p) {
    if (own_row < s.rows && p < s.parts) first_parts[p] = part_of(own_row, own_column, p);
  }
  for (int r = warp; r < s.rows; r += warps) {
    const float2* peaks = space.peaks + std::int64_t{slot} * rows_per_partial + r;
    float top = -INFINITY;
    for (int p = lane; p < s.parts; p += 32) {
      top = fmaxf(top, __ldcg(&peaks[p * rows_per_partial].x));
    }
    top = warp_max(top);
    const float origin = top == -INFINITY ? 0.0f : top;
    float mass = 0;
    for (int p = lane; p < s.parts; p += 32) {
      const float2 peak = __ldcg(&peaks[p * rows_per_partial]);
      const float shrink = exp2f(peak.x - origin);
      shared.shrinks[r][p] = shrink;
      mass += shrink * peak.y;
    }
    mass = warp_sum(mass);
    if (lane == 0) shared.masses[r] = mass;
  }
  __syncthreads();
  if (threadIdx.x == 0) space.counters[blockIdx.y] = 0;
  if (own_row >= s.rows) return;
  float4 total = {};
#pragma unroll
  for (int p = 0; p < batch; ++p) {
    if (p < s.parts) add_scaled(total, shared.shrinks[own_row][p], first_parts[p]);
  }
#pragma unroll 8
  for (int p = batch; p < s.parts; ++p) {
    add_scaled(total, shared.shrinks[own_row][p], part_of(own_row, own_column, p));
  }
  write_out(own_row, own_column, total, shared.masses[own_row]);
}

template <int head_size, bool q8_0>
cudaError_t launch(const Attention& a, cudaStream_t stream) {
  const int rows = a.tokens * (a.heads / a.cache.kv_heads);
  const int row_groups = (rows + rows_per_partial - 1) / rows_per_partial;
  const int pairs = a.cache.kv_heads * row_groups;
  if (pairs > counter_slots) return cudaErrorInvalidValue;
  std::int64_t splits = most_parts / pairs;
  const std::int64_t steps = (a.bound + step_positions - 1) / step_positions;
  splits = splits < steps ? splits : steps;
  const dim3 grid(static_cast<unsigned>(splits < 1 ? 1 : splits), pairs);
  const auto kernel = decode<head_size, q8_0>;
  constexpr int bytes = sizeof(Shared<head_size>);
  return launch_overlapped(kernel, grid, threads, bytes, stream, a, row_groups);
}

template <int head_size>
cudaError_t launch_type(const Attention& a, cudaStream_t stream) {
  return a.cache.type == CacheType::q8_0 ? launch<head_size, true>(a, stream)
                                         : launch<head_size, false>(a, stream);
}

}  // namespace

cudaError_t attention_decode(const Attention& arguments, cudaStream_t stream) {
  switch (arguments.cache.head_size) {
    case 32:
      return launch_type<32>(arguments, stream);
    case 64:
      return launch_type<64>(arguments, stream);
    case 96:
      return launch_type<96>(arguments, stream);
    case 128:
      return launch_type<128>(arguments, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace quantloom::kernels
