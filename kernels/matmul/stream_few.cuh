// 2 to 8 tokens, and one where x leaves stream_one.cuh no room: the weights are streamed once. The
// columns are cut into slices of at most 16 pieces, and a warp multiplies one piece of its block's
// slice in strip after strip, so that its x stays in registers (few_activations.cuh). The warps of
// a slice hand their sums of a unit (a strip, or gate's and up's) on through a few places in shared
// memory, and take turns in adding them: nothing makes all warps of a block wait. Of more than four
// tokens two blocks of a slice convert four each, where clusters let them share. Where there are
// several slices their sums go to the workspace, and of the blocks with the same units the last one
// to be done adds them in the order of the slices.
#pragma once

#include <type_traits>

#include "device/overlap.cuh"
#include "matmul/few_activations.cuh"
#include "matmul/few_layout.cuh"
#include "matmul/ring.cuh"
#include "matmul/strips.cuh"

namespace quantloom::kernels {

// Walks piece p of the strips of units first, first + teams, ... before last.
template <class P>
class TeamWalk {
 public:
  __device__ TeamWalk(const StripList& list, int teams, int unit, int first, int last, int p)
      : list_(list), step_(teams * unit), strip_(first * unit), last_(last * unit), piece_(p) {
    if (!done()) locate();
  }
  __device__ bool done() const { return strip_ >= last_; }
  __device__ const std::uint8_t* at() const { return at_; }
  __device__ void next() {
    if (list_.epilogue == MatmulEpilogue::gate_up) {
      const std::uint8_t* const of_next_unit = at_ + step_ / 2 * strip_bytes();
      strip_ += strip_ & 1 ? step_ - 1 : 1;
      at_ = other_, other_ = of_next_unit;
      return;
    } else {
      strip_ += step_, at_ += step_ * strip_bytes();
      if (strip_ < weight_end_) return;
    }
    if (!done()) locate();
  }

 private:
  __device__ int strip_bytes() const {
    return list_.columns / P::Format::elements * (P::Format::bytes * strip_rows);
  }
  __device__ void locate() {
    const Strip s = find_strip(list_, strip_);
    const std::int64_t at =
        static_cast<std::int64_t>(s.index) * strip_bytes() + piece_ * P::piece_bytes;
    at_ = list_.planes[s.weight] + at;
    other_ = list_.planes[1] + at;
    weight_end_ = list_.first[s.weight + 1];
  }
  const StripList& list_;
  int step_, strip_, last_, piece_, weight_end_ = 0;
  const std::uint8_t* at_ = nullptr;
  const std::uint8_t* other_ = nullptr;  // in gate_up: the strip after this one
};

template <class P, int tiles>
__global__ void __launch_bounds__(32 * few_warps, 1)
    stream_few_kernel(const __grid_constant__ StripList list, int strips,
                      const __grid_constant__ FewLayout layout) {
  // A lane's sums of a strip: of row g, then of row g + 8, those of the tiles.
  using LaneSums = std::conditional_t<tiles == 2, float4, float2>;
  constexpr int lane_sums = 2 * tiles, tile_floats = 32 * lane_sums;
  extern __shared__ __align__(128) std::uint8_t shared[];
  const int lane = threadIdx.x % 32, warp = __shfl_sync(0xffffffffu, threadIdx.x / 32, 0);
  const int groups = list.columns / 32;
  const int pieces = (groups + piece_groups - 1) / piece_groups;
  const int team = warp / layout.slice_pieces, slot = warp - team * layout.slice_pieces;
  const int slice = blockIdx.x / layout.blocks, block = blockIdx.x - slice * layout.blocks;
  const int slots = min(layout.slice_pieces, pieces - slice * layout.slice_pieces);
  const int p = slice * layout.slice_pieces + slot;
  // Blocks of 256 columns leave no piece with fewer groups.
  const int n = P::block_groups == 8 || p + 1 < pieces ? piece_groups : groups - p * piece_groups;
  const int unit = layout.unit, depth = layout.depth;
#if defined(QL_CLUSTERS)
  const bool shares = tiles == 2 && layout.shares;
#else
  constexpr bool shares = false;
#endif
  // A block's first tile of x is the one that it converts itself.
  const int first_tile = shares ? block & 1 : 0;
  const int units_from = block * layout.share + min(block, layout.extra);
  const int units_to = units_from + layout.share + (block < layout.extra ? 1 : 0);
  // The last slice may leave warps without a piece.
  const int first = units_from + team, last = slot < slots ? units_to : 0;

  PieceRing ring(shared + layout.ring + warp * layout.stages * P::piece_bytes,
                 reinterpret_cast<std::uint64_t*>(shared + layout.barriers) + warp * layout.stages,
                 layout.stages, P::piece_bytes);
  TeamWalk<P> fetch(list, layout.teams, unit, first, last, p);
  const auto fetch_next = [&] {
    if (fetch.done()) return ring.fetch_nothing();
    ring.fetch(fetch.at(), n * (P::piece_bytes / piece_groups));
    fetch.next();
  };
#pragma unroll 1
  for (int i = 0; i < layout.early_stages; ++i) fetch_next();
  const std::uint32_t full = shared_address(shared + layout.handing) + team * few_depth * 16;
  const std::uint32_t empty = full + few_depth * 8;
  if (slot == 0 && lane < few_depth) {
    mbarrier_init(full + 8 * lane, slots * warp_arrivals);
    mbarrier_init(empty + 8 * lane, warp_arrivals);
  }
  const std::uint32_t taken = shared_address(shared + layout.given) + warp * 8;
  if (shares) {
    if (lane == 0 && slot < slots) {
      mbarrier_init(taken, 1);
      mbarrier_init_fence();
    }
    __syncwarp();
    cluster_arrive_relaxed();
  }
  const std::uint8_t* table = shared;
  load_table<P>(shared, blockDim.x);
  __syncthreads();
#if defined(QL_BULK_COPY)
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
#endif
  auto* scales =
      reinterpret_cast<FewScales<P>*>(shared + layout.scales + warp * few_scale_bytes<P>);
  auto* const x_place = reinterpret_cast<float*>(scales);
  const int strip_floats = layout.slice_pieces * tile_floats;
  auto* const partial = reinterpret_cast<float*>(shared + layout.partial);
  float* const places = partial + team * depth * unit * strip_floats;
  FewX<P, tiles> x;
  if (slot < slots) {
    const auto fetch_more = [&] {
#pragma unroll 1
      for (int i = layout.early_stages; i < layout.next_stages; ++i) fetch_next();
    };
    const auto convert = [&]<int converted>() {
      x.template convert<converted>(layout.x, list.columns, list.tokens, first_tile, p, n, lane,
                                    x_place, fetch_more);
    };
    if (shares) {
      convert.template operator()<1>();
    } else {
      convert.template operator()<tiles>();
    }
  }
  // The warp's own places, free as yet, take the tile that the other block gives.
  float* const given = places + slot * tile_floats;
  const int apart = strip_floats * 4;
  if (shares) {
    // Behind the block's barrier, as racecheck takes these for two threads' that shared the
    // barrier.
    if (lane == 0 && slot < slots) mbarrier_expect(taken, FewX<P, tiles>::given_bytes);
    // Nothing may be given to a block that has not begun.
    cluster_wait();
    if (slot < slots) x.give(first_tile ^ 1, given, apart, x_place, taken, lane);
  }
#pragma unroll 1
  for (int i = layout.next_stages; i < layout.stages; ++i) fetch_next();
  if (shares && slot < slots) x.take(given, apart, x_place, taken, lane);
  x.read_sums(x_place, lane);

  // Which of a group's two scale groups this lane's weights are in.
  std::uint32_t own[2] = {lane % 4 < 2, lane % 4 >= 2};
  asm volatile("" : "+r"(own[0]), "+r"(own[1]));

  const auto add = [](LaneSums& sum, const LaneSums& v) {
    sum.x += v.x, sum.y += v.y;
    if constexpr (tiles == 2) sum.z += v.z, sum.w += v.w;
  };
  const auto lanes_of = [&](float* place) { return reinterpret_cast<LaneSums*>(place) + lane; };
  const auto slice_sums = [&](int of, int u, int half) {
    return lanes_of(layout.slice_sums +
                    (static_cast<std::int64_t>(of) * strips + u * unit + half) * tile_floats);
  };
  // The sums of a unit's strips lie at sum and at `next` floats behind.
  const auto store_unit = [&](int u, const float* sum, int next) {
    __syncwarp();
#pragma unroll 1
    for (int e = lane; e < strip_rows * list.tokens; e += 32) {
      const int row = e % strip_rows, token = e / strip_rows,
                at = ((row % 8) * 4 + token % 4) * lane_sums + row / 8 * tiles +
                     (token / 4 ^ first_tile);
      if (unit == 2) {
        store_gated(list, u, row, token, sum[at], sum[next + at]);
      } else {
        store_sum(list, find_strip(list, u), row, token, sum[at]);
      }
    }
    __syncwarp();
  };
  // Adds a unit's sums, which come to lie where the first warp's were.
  const auto finish = [&](int u, float* place) {
    for (int half = 0; half < unit; ++half) {
      float* from = place + half * strip_floats;
      LaneSums sum{};
      for (int i = 0; i < slots; ++i) add(sum, lanes_of(from)[i * 32]);
      *(layout.slices == 1 ? lanes_of(from) : slice_sums(slice, u, half)) = sum;
    }
    if (layout.slices == 1) store_unit(u, place, strip_floats);
  };

  const auto place_of = [&](int k) { return k & (depth - 1); };
  const auto phase_of = [&](int k) { return static_cast<std::uint32_t>((k & depth) != 0); };
  // A unit is finished a few units later, when the other warps' sums are mostly there.
  int turn = slot;
  for (int k = 0; first + (k - depth / 2) * layout.teams < last; ++k) {
    if (first + k * layout.teams < last) {
      float* place = places + place_of(k) * unit * strip_floats + slot * tile_floats;
      for (int half = 0; half < unit; ++half) {
        const std::uint8_t* piece = ring.wait();
        float of_piece[4] = {};
        stage_scales<P>(piece, n, lane, x.sums, scales, of_piece);
        multiply_few<P, tiles>(piece, n, x.values, table, lane, scales, own, of_piece);
        ring.release();
        fetch_next();
        // The first use of a place waits for a phase that counts as past.
        if (half == 0) mbarrier_wait(empty + 8 * place_of(k), phase_of(k) ^ 1);
        LaneSums v;
        v.x = x.steps[0] * of_piece[0];
        if constexpr (tiles == 2) {
          v.y = x.steps[1] * of_piece[1];
          v.z = x.steps[0] * of_piece[2], v.w = x.steps[1] * of_piece[3];
        } else {
          v.y = x.steps[0] * of_piece[2];
        }
        *lanes_of(place + half * strip_floats) = v;
      }
      mbarrier_arrive_warp(full + 8 * place_of(k), lane);
    }
    const int due = k - depth / 2;
    if (due != turn) continue;
    turn += slots;
    mbarrier_wait(full + 8 * place_of(due), phase_of(due));
    finish(first + due * layout.teams, places + place_of(due) * unit * strip_floats);
    mbarrier_arrive_warp(empty + 8 * place_of(due), lane);
  }

  if (layout.slices == 1) return;
  __syncthreads();
  auto* const arrived = reinterpret_cast<int*>(shared + layout.scales);
  if (threadIdx.x == 0) {
    __threadfence();
    *arrived = static_cast<int>(atomicAdd(layout.arrivals + block, 1u)) + 1;
    if (*arrived == layout.slices) layout.arrivals[block] = 0;
    __threadfence();
  }
  __syncthreads();
  if (*arrived < layout.slices) return;
  float* const own_place = partial + warp * unit * tile_floats;
  for (int u = units_from + warp; u < units_to; u += static_cast<int>(blockDim.x) / 32) {
    for (int half = 0; half < unit; ++half) {
      LaneSums sum{};
#pragma unroll 4
      for (int i = 0; i < layout.slices; ++i) add(sum, __ldcg(slice_sums(i, u, half)));
      *lanes_of(own_place + half * tile_floats) = sum;
    }
    store_unit(u, own_place, tile_floats);
  }
}

template <class P>
MatmulStatus launch_stream_few(const StripList& list, const float* x, int strips, int processors,
                               int shared_limit, bool overlap, void* workspace,
                               cudaStream_t stream) {
  FewLayout layout = few_layout(list, strips, processors, shared_limit,
                                {P::piece_bytes, few_scale_bytes<P>, P::table_bytes});
  if (layout.teams == 0) return MatmulStatus::bad_shape;
  const FewWorkspace w = few_workspace(list.tokens, list.columns, strips, shared_limit);
  auto* base = static_cast<std::uint8_t*>(workspace);
  layout.x = x;
  layout.slice_sums = reinterpret_cast<float*>(base + w.sums);
  layout.arrivals = reinterpret_cast<unsigned*>(base + w.arrivals);
  const auto kernel =
      few_tiles(list.tokens) == 1 ? stream_few_kernel<P, 1> : stream_few_kernel<P, 2>;
  // The same value in every call: threads with other shapes set it too.
  if (cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_limit) !=
      cudaSuccess) {
    return MatmulStatus::cuda_error;
  }
  const dim3 grid(static_cast<unsigned>(layout.blocks * layout.slices));
  const cudaError_t error = launch_clusters(
      kernel, grid, layout.shares ? 2 : 1, layout.slice_pieces * layout.teams * 32,
      static_cast<std::size_t>(layout.bytes), overlap, stream, list, strips, layout);
  return error == cudaSuccess ? MatmulStatus::done : MatmulStatus::cuda_error;
}

}  // namespace quantloom::kernels
