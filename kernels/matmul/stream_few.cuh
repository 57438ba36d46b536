// 2 to 8 tokens, and one where x leaves stream_one.cuh no room: the weights are streamed once. The
// columns are cut into slices of at most 16 pieces, and a warp multiplies one piece of its block's
// slice in strip after strip, so that its x stays in registers (few_product.cuh). The warps of a
// slice hand their sums of a unit (a strip, or gate's and up's) on through a few places in shared
// memory, and take turns in adding them: nothing makes all warps of a block wait. Where there are
// several slices their sums go to the workspace, and the warp that completes a unit adds them in
// the order of the slices.
#pragma once

#include <algorithm>

#include "matmul/activations.cuh"
#include "matmul/few_product.cuh"
#include "matmul/ring.cuh"
#include "matmul/strips.cuh"

namespace quantloom::kernels {

constexpr int few_tokens = 8;
constexpr int few_warps = 16;           // most of a block
constexpr int few_most_strips = 32768;  // that can be summed over slices
constexpr int few_depth = 4;            // strips whose sums are under way, of each team

struct FewLayout {
  int partial;  // [teams][few_depth strips][slice_pieces][32 lanes][2][tiles] float
  int scales;   // per warp: few_scale_bytes
  int handing;  // [teams][2: full, empty][few_depth] barriers
  int barriers;
  int ring;
  int bytes;
  int stages;
  int early_stages;  // that are fetched before x is waited for
  int slices;
  int slice_pieces;
  int teams;           // slice_pieces warps each, of which a team has every teams-th unit
  int blocks;          // of a slice
  int unit;            // strips: 1, or 2 in gate_up
  int depth;           // units whose sums are under way: a power of two
  int share, extra;    // units per block, and blocks with one more
  FixedPoint x;        // in the workspace
  float* slice_sums;   // [slices][strips][32 lanes][2][tiles]
  unsigned* arrivals;  // [strips], zero before and after
};

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
      strip_ += strip_ & 1 ? step_ - 1 : 1;
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
    at_ = list_.planes[s.weight] + static_cast<std::int64_t>(s.index) * strip_bytes() +
          piece_ * P::piece_bytes;
    weight_end_ = list_.first[s.weight + 1];
  }
  const StripList& list_;
  int step_, strip_, last_, piece_, weight_end_ = 0;
  const std::uint8_t* at_ = nullptr;
};

template <class P, int tiles>
__global__ void __launch_bounds__(32 * few_warps, 1)
    stream_few_kernel(const __grid_constant__ StripList list, int strips,
                      const __grid_constant__ FewLayout layout) {
#if defined(QL_TENSOR_STEPS)
  constexpr int lane_sums = 2 * tiles;
  constexpr int tile_floats = 32 * lane_sums;
  extern __shared__ __align__(128) std::uint8_t shared[];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int t = lane & 3;
  const int groups = list.columns / 32;
  const int pieces = (groups + piece_groups - 1) / piece_groups;
  const int team = warp / layout.slice_pieces, slot = warp - team * layout.slice_pieces;
  const int slice = blockIdx.x / layout.blocks, block = blockIdx.x - slice * layout.blocks;
  const int slots = min(layout.slice_pieces, pieces - slice * layout.slice_pieces);
  const int p = slice * layout.slice_pieces + slot;
  // Blocks of 256 columns leave no piece with fewer groups.
  const int n = P::block_groups == 8 || p + 1 < pieces ? piece_groups : groups - p * piece_groups;
  const int unit = layout.unit, depth = layout.depth;
  const int first = block * layout.share + min(block, layout.extra) + team;
  const int last = first - team + layout.share + (block < layout.extra ? 1 : 0);

  PieceRing ring(shared + layout.ring + warp * layout.stages * P::piece_bytes,
                 reinterpret_cast<std::uint64_t*>(shared + layout.barriers) + warp * layout.stages,
                 layout.stages, P::piece_bytes);
  TeamWalk<P> fetch(list, layout.teams, unit, first, slot < slots ? last : 0, p);
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
    mbarrier_init(full + 8 * lane, slots);
    mbarrier_init(empty + 8 * lane, 1);
  }
  const std::uint8_t* table = shared;
  load_table<P>(shared);
  __syncthreads();
  if (slot >= slots) return;
#if defined(QL_BULK_COPY)
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
#endif
  uint2 x[piece_groups][tiles];
  float step[tiles];
  SumsOfX<P> sums;
#pragma unroll
  for (int j = 0; j < piece_groups; ++j) {
#pragma unroll
    for (int tile = 0; tile < tiles; ++tile) {
      x[j][tile] = *reinterpret_cast<const uint2*>(
          layout.x.values + ((p * piece_groups + j) * tiles + tile) * 256 + lane * 8);
    }
  }
#pragma unroll
  for (int tile = 0; tile < tiles; ++tile) step[tile] = layout.x.steps[(p * tiles + tile) * 4 + t];
  if constexpr (P::has_offset) {
    sums.template read<tiles>(layout.x.sums + p * piece_scale_groups<P> * 4 * tiles, n, lane);
  }
#pragma unroll 1
  for (int i = layout.early_stages; i < layout.stages; ++i) fetch_next();

  auto* scales = reinterpret_cast<float2*>(shared + layout.scales + warp * few_scale_bytes<P>);
  const int strip_floats = layout.slice_pieces * tile_floats;
  auto* partial =
      reinterpret_cast<float*>(shared + layout.partial) + team * few_depth * strip_floats;
  // Which of a group's two scale groups this lane's weights are in.
  std::uint32_t own[2] = {t < 2, t >= 2};
  asm volatile("" : "+r"(own[0]), "+r"(own[1]));

  using LaneSums = std::conditional_t<tiles == 2, float4, float2>;
  const auto add = [](LaneSums& sum, const LaneSums& v) {
    sum.x += v.x, sum.y += v.y;
    if constexpr (tiles == 2) sum.z += v.z, sum.w += v.w;
  };
  const auto slice_sums = [&](int of, int u, int half) -> LaneSums& {
    return reinterpret_cast<LaneSums*>(
        layout.slice_sums)[(static_cast<std::int64_t>(of) * strips + u * unit + half) * 32 + lane];
  };
  // Adds a unit's sums and stores them. The sums of its strips come to lie where the first warp's
  // were.
  const auto finish = [&](int u, float* place) {
    const bool is_whole = layout.slices == 1;
    for (int half = 0; half < unit; ++half) {
      auto* from = reinterpret_cast<LaneSums*>(place + half * strip_floats) + lane;
      LaneSums sum{};
      for (int i = 0; i < slots; ++i) add(sum, from[i * 32]);
      if (is_whole) {
        *from = sum;
      } else {
        slice_sums(slice, u, half) = sum;
      }
    }
    if (!is_whole) {
      __threadfence();
      __syncwarp();
      unsigned before = 0;
      if (lane == 0) before = atomicAdd(layout.arrivals + u, 1u);
      before = __shfl_sync(0xffffffffu, before, 0);
      if (before + 1 < static_cast<unsigned>(layout.slices)) return;
      if (lane == 0) layout.arrivals[u] = 0;
      __threadfence();
      for (int half = 0; half < unit; ++half) {
        LaneSums sum{};
        for (int i = 0; i < layout.slices; ++i) add(sum, __ldcg(&slice_sums(i, u, half)));
        reinterpret_cast<LaneSums*>(place + half * strip_floats)[lane] = sum;
      }
    }
    __syncwarp();
#pragma unroll 1
    for (int e = lane; e < strip_rows * list.tokens; e += 32) {
      const int row = e % strip_rows, token = e / strip_rows;
      const float* sum =
          place + ((row % 8) * 4 + token % 4) * lane_sums + row / 8 * tiles + token / 4;
      if (unit == 2) {
        store_gated(list, u, row, token, *sum, sum[strip_floats]);
      } else {
        store_sum(list, find_strip(list, u), row, token, *sum);
      }
    }
  };

  const auto place_of = [&](int k) { return k & (depth - 1); };
  const auto phase_of = [&](int k) { return static_cast<std::uint32_t>((k & depth) != 0); };
  // A unit is finished a few units later, when the other warps' sums are mostly there.
  int turn = slot;
  for (int k = 0; first + (k - depth / 2) * layout.teams < last; ++k) {
    if (first + k * layout.teams < last) {
      float* place = partial + place_of(k) * unit * strip_floats + slot * tile_floats;
      for (int half = 0; half < unit; ++half) {
        const std::uint8_t* piece = ring.wait();
        float of_piece[4] = {};
        stage_scales<P>(piece, n, lane, sums, scales, of_piece);
        multiply_few<P, tiles>(piece, n, x, table, lane, scales, own, of_piece);
        ring.release();
        fetch_next();
        // The first use of a place waits for a phase that counts as past.
        if (half == 0) mbarrier_wait(empty + 8 * place_of(k), phase_of(k) ^ 1);
        LaneSums v;
        v.x = step[0] * of_piece[0];
        if constexpr (tiles == 2) {
          v.y = step[1] * of_piece[1], v.z = step[0] * of_piece[2], v.w = step[1] * of_piece[3];
        } else {
          v.y = step[0] * of_piece[2];
        }
        reinterpret_cast<LaneSums*>(place + half * strip_floats)[lane] = v;
      }
      __syncwarp();
      if (lane == 0) mbarrier_arrive(full + 8 * place_of(k));
    }
    const int due = k - depth / 2;
    if (due != turn) continue;
    turn += slots;
    mbarrier_wait(full + 8 * place_of(due), phase_of(due));
    finish(first + due * layout.teams, partial + place_of(due) * unit * strip_floats);
    __syncwarp();
    if (lane == 0) mbarrier_arrive(empty + 8 * place_of(due));
  }
#endif
}

// A kernel each for up to 4 and up to 8 tokens.
inline int few_tiles(int tokens) { return tokens <= 4 ? 1 : 2; }

// Most pieces of a slice: so many that two stages of every format's fit, beside a codebook's table,
// into the shared memory of Hopper and Blackwell's data centre chips, of compute capability 8.0,
// and of 8.6, 8.9 and 12.0.
inline int few_slice_pieces(int shared_limit) {
  return shared_limit >= 232448 ? 16 : shared_limit >= 166912 ? 12 : 5;
}

inline int few_slices(int columns, int shared_limit) {
  const int pieces = (columns + piece_columns - 1) / piece_columns;
  const int most = few_slice_pieces(shared_limit);
  return (pieces + most - 1) / most;
}

struct FewWorkspace {
  std::size_t values, steps, x_sums, sums, arrivals, bytes;
};

inline FewWorkspace few_workspace(int tokens, int columns, int strips, int shared_limit) {
  FewWorkspace w{};
  const auto take = [&](std::size_t bytes) {
    const std::size_t start = w.bytes;
    w.bytes += (bytes + 255) / 256 * 256;
    return start;
  };
  const auto pieces = static_cast<std::size_t>((columns + piece_columns - 1) / piece_columns);
  const auto tiles = static_cast<std::size_t>(few_tiles(tokens));
  const auto slices = static_cast<std::size_t>(few_slices(columns, shared_limit));
  // First and of one size, so that it stays zero whatever the shapes of the calls that share the
  // workspace.
  w.arrivals = take(few_most_strips * 4);
  w.values = take(pieces * tiles * 2048);
  w.steps = take(pieces * tiles * 16);
  w.x_sums = take(pieces * tiles * (piece_columns / 16) * 16);
  w.sums = slices > 1 ? take(slices * static_cast<std::size_t>(strips) * tiles * 256) : 0;
  return w;
}

template <class P>
MatmulStatus launch_stream_few(const StripList& list, const float* x, int strips, int processors,
                               int shared_limit, bool overlap, void* workspace,
                               cudaStream_t stream) {
  const int tiles = few_tiles(list.tokens);
  const FewWorkspace w = few_workspace(list.tokens, list.columns, strips, shared_limit);
  auto* base = static_cast<std::uint8_t*>(workspace);

  FewLayout layout{};
  layout.x = {base + w.values, reinterpret_cast<float*>(base + w.steps),
              P::has_offset ? reinterpret_cast<float*>(base + w.x_sums) : nullptr};
  const int pieces = (list.columns + piece_columns - 1) / piece_columns;
  layout.slices = few_slices(list.columns, shared_limit);
  layout.slice_pieces = (pieces + layout.slices - 1) / layout.slices;
  layout.slice_sums = reinterpret_cast<float*>(base + w.sums);
  layout.arrivals = reinterpret_cast<unsigned*>(base + w.arrivals);
  layout.unit = list.epilogue == MatmulEpilogue::gate_up ? 2 : 1;
  layout.depth = few_depth / layout.unit;
  const int units = strips / layout.unit;
  layout.blocks = std::clamp(processors / layout.slices, 1, units);
  layout.share = units / layout.blocks;
  layout.extra = units % layout.blocks;
  for (layout.teams = few_warps / layout.slice_pieces; layout.teams > 0; --layout.teams) {
    const int warps = layout.slice_pieces * layout.teams;
    int at = 0;
    const auto take = [&](int bytes) {
      const int start = at;
      at += (bytes + 127) / 128 * 128;
      return start;
    };
    take(P::table_bytes);
    layout.partial = take(warps * few_depth * 256 * tiles);
    layout.scales = take(warps * few_scale_bytes<P>);
    layout.handing = take(layout.teams * few_depth * 16);
    layout.barriers = take(warps * 8 * 8);
    layout.ring = at;
    layout.stages = std::min(4, (shared_limit - at) / (warps * P::piece_bytes));
    layout.bytes = at + layout.stages * warps * P::piece_bytes;
    if (layout.stages >= 2) break;
  }
  const int warps = layout.slice_pieces * layout.teams;
  if (warps == 0 || (layout.slices > 1 && strips > few_most_strips)) return MatmulStatus::bad_shape;
  // What an SM reads while x is converted, but no more, for x would queue behind it.
  layout.early_stages = std::clamp(73728 / (warps * P::piece_bytes), 1, layout.stages);
  prepare_fixed_point(x, list.columns, list.tokens, tiles, P::group, layout.x, overlap, stream);
  const auto kernel = tiles == 1 ? stream_few_kernel<P, 1> : stream_few_kernel<P, 2>;
  // The same value in every call: threads with other shapes set it too.
  if (cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_limit) !=
      cudaSuccess) {
    return MatmulStatus::cuda_error;
  }
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(layout.blocks * layout.slices));
  config.blockDim = dim3(static_cast<unsigned>(warps * 32));
  config.dynamicSmemBytes = static_cast<std::size_t>(layout.bytes);
  config.stream = stream;
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &attribute;
  config.numAttrs = 1;  // the conversion of x before it is ours: the weights need not wait for it
  const cudaError_t error = cudaLaunchKernelEx(&config, kernel, list, strips, layout);
  return error == cudaSuccess ? MatmulStatus::done : MatmulStatus::cuda_error;
}

}  // namespace quantloom::kernels
