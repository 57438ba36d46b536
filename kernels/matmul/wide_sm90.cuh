// Many tokens on Hopper. A block takes 256 rows (128 from 128 tokens on) and a tile of tokens:
// warpgroups of 64 rows, whose warps each decode their strip's pieces into wgmma's A registers
// (once per tile, whatever its width), and one warp copies x.
#pragma once

#include "matmul/codebook_planes.h"
#include "matmul/linear_planes.h"
#include "matmul/stream_few.cuh"
#include "matmul/wgmma_sm90.cuh"
#include "matmul/wide.h"

namespace quantloom::kernels {

// A warp has a strip. Up to 128 tokens one more warp copies x; with 256 the first one does it, so
// that each may have 255 registers.
constexpr int wide_consumers(int tile_tokens) { return 2 * wide_rows(tile_tokens); }
constexpr int wide_threads(int tile_tokens) {
  return wide_consumers(tile_tokens) + (tile_tokens == 256 ? 0 : 32);
}
constexpr int wide_chunk = 64;  // columns of x per stage

struct WideLayout {
  int x, weights, affine, barriers, table, bytes;
  int x_stages, weight_stages;
  int tiles;  // of tokens
  int splits, split_pieces;
  int padded_tokens;
  const __half* image;
  const float* scales;
  float* sums;  // [splits][padded tokens][row tiles * wide_rows]
};

__device__ inline void mbarrier_arrive(std::uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

template <int threads>
__device__ inline void consumer_barrier() {
  asm volatile("bar.sync 1, %0;" ::"n"(threads) : "memory");
}

template <class P, int tile_tokens>
__global__ void __launch_bounds__(wide_threads(tile_tokens), 1)
    wide_matmul_kernel(const __grid_constant__ StripList list, int strips,
                       const __grid_constant__ WideLayout layout) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using F = typename P::Format;
  extern __shared__ __align__(128) std::uint8_t shared[];
  constexpr int consumers = wide_consumers(tile_tokens), strips_here = wide_strips(tile_tokens);
  constexpr bool own_producer = wide_threads(tile_tokens) > consumers;
  constexpr int stage_bytes = tile_tokens * wide_chunk * 2;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int tile = blockIdx.x % layout.tiles, rest = blockIdx.x / layout.tiles;
  const int split = rest % layout.splits, row_tile = rest / layout.splits;
  const int first_token = tile * tile_tokens;
  const int groups = list.columns / 32;
  const int pieces = (groups + piece_groups - 1) / piece_groups;
  const int first_piece = split * layout.split_pieces;
  const int last_piece = min(pieces, first_piece + layout.split_pieces);
  const int last_chunk = min((groups + 1) / 2, last_piece * 4);
  const std::uint32_t full = shared_address(shared + layout.barriers);
  const std::uint32_t empty = full + 8 * layout.x_stages;
  if (threadIdx.x == 0) {
    for (int i = 0; i < layout.x_stages; ++i) {
      mbarrier_init(full + 8 * i, 1);
      mbarrier_init(empty + 8 * i, consumers / 32);
    }
    mbarrier_init_fence();
  }
  P::load_table(shared + layout.table);
  __syncthreads();

  int fill_chunk = first_piece * 4, fill_stage = 0;
  std::uint32_t fill_parity = 1;
  const auto fill = [&] {
    if (fill_chunk >= last_chunk) return;
    mbarrier_wait(empty + 8 * fill_stage, fill_parity);
    if (lane == 0) mbarrier_expect(full + 8 * fill_stage, stage_bytes);
    __syncwarp();
    if (lane < 8) {
      const __half* from = layout.image + ((static_cast<std::int64_t>(fill_chunk) * 8 + lane) *
                                               layout.padded_tokens +
                                           first_token) *
                                              8;
      bulk_copy(
          shared_address(shared + layout.x) + fill_stage * stage_bytes + lane * tile_tokens * 16,
          from, tile_tokens * 16, full + 8 * fill_stage);
    }
    __syncwarp();
    ++fill_chunk;
    if (++fill_stage == layout.x_stages) fill_stage = 0, fill_parity ^= 1;
  };
  if (own_producer && warp == consumers / 32) {
    cudaGridDependencySynchronize();
    cudaTriggerProgrammaticLaunchCompletion();
    while (fill_chunk < last_chunk) fill();
  } else {
    const int t = lane & 3, g = lane >> 2;
    const int strip_here = row_tile * strips_here + warp;
    const bool stored = strip_here < strips;
    const Strip strip = find_strip(list, stored ? strip_here : strips - 1);
    const int row_bytes = list.columns / F::elements * F::bytes;
    const std::uint8_t* from =
        list.planes[strip.weight] + static_cast<std::int64_t>(strip.index) * strip_rows * row_bytes;
    const float weight_scale = power_of_two_scale(*list.largest[strip.weight]);
    auto* affine = reinterpret_cast<std::uint32_t*>(shared + layout.affine) +
                   warp * strip_rows * affine_row_words<P>;
    const int tail_groups = groups - (pieces - 1) * piece_groups;
    const auto groups_of = [&](int p) { return p + 1 == pieces ? tail_groups : piece_groups; };
    PieceRing ring(shared + layout.weights + warp * layout.weight_stages * P::piece_bytes,
                   reinterpret_cast<std::uint64_t*>(shared + layout.barriers) +
                       2 * layout.x_stages + warp * layout.weight_stages,
                   layout.weight_stages, P::piece_bytes);
    int fetched = first_piece;
    const auto fetch_next = [&] {
      if (fetched < last_piece) {
        ring.fetch(from + static_cast<std::int64_t>(fetched) * P::piece_bytes,
                   groups_of(fetched) * (P::piece_bytes / piece_groups));
      }
      ++fetched;
    };
    for (int i = 0; i < layout.weight_stages; ++i) fetch_next();

    if (!own_producer && warp == 0) {
      cudaGridDependencySynchronize();
      cudaTriggerProgrammaticLaunchCompletion();
      for (int i = 0; i < layout.x_stages; ++i) fill();
    }

    float d[tile_tokens / 2];
#pragma unroll
    for (int i = 0; i < tile_tokens / 2; ++i) d[i] = 0;
    int stage = 0, previous = -1, chunks = 0;
    std::uint32_t parity = 0;
    for (int p = first_piece; p < last_piece; ++p) {
      const int n = groups_of(p);
      const std::uint8_t* piece = ring.wait();
      stage_affine<P>(piece, n, lane, weight_scale, affine);
#pragma unroll 1
      for (int chunk = 0; chunk < 4; ++chunk) {
        if (2 * chunk >= n) break;
        mbarrier_wait(full + 8 * stage, parity);
        const std::uint32_t x = shared_address(shared + layout.x) + stage * stage_bytes;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int j = 2 * chunk + half;
          std::uint32_t first[4] = {}, second[4] = {};
          if (P::block_groups == 8 || j < n) {
            std::uint32_t a[4];
            P::quants(piece, n, j, lane, a, shared + layout.table);
            const int scale_group = P::group == 32 ? j : 2 * j + (t >> 1);
            widen_fragment<P>(a, read_affine<P>(affine, g, scale_group),
                              read_affine<P>(affine, g + 8, scale_group), first, second);
          }
          wgmma_fence();
          const std::uint32_t at = x + half * 4 * tile_tokens * 16;
          wgmma<tile_tokens>(d, first, core_matrices(at, tile_tokens * 16, 128));
          wgmma<tile_tokens>(d, second,
                             core_matrices(at + 2 * tile_tokens * 16, tile_tokens * 16, 128));
          wgmma_commit();
          wgmma_wait<1>();
          if (half == 0 && previous >= 0 && lane == 0) mbarrier_arrive(empty + 8 * previous);
        }
        // Two chunks late, so that the other warpgroup has read the stage by then.
        if (!own_producer && warp == 0 && chunks >= 2) fill();
        ++chunks;
        previous = stage;
        if (++stage == layout.x_stages) stage = 0, parity ^= 1;
      }
      ring.release();
      fetch_next();
    }
    wgmma_wait<0>();

    constexpr int rows_here = wide_rows(tile_tokens);
    const int padded_rows = (strips + strips_here - 1) / strips_here * rows_here;
    const auto for_sums = [&](auto&& fn) {
#pragma unroll
      for (int i = 0; i < tile_tokens / 8; ++i) {
#pragma unroll
        for (int e = 0; e < 4; ++e) {
          fn(4 * i + e, first_token + 8 * i + 2 * t + (e & 1), g + 8 * (e >> 1));
        }
      }
    };
    const float back = 1.0f / weight_scale;
    if (layout.splits > 1) {
      float* sums =
          layout.sums + static_cast<std::int64_t>(split) * layout.padded_tokens * padded_rows;
      for_sums([&](int i, int token, int row) {
        if (token < list.tokens) {
          sums[static_cast<std::int64_t>(token) * padded_rows + row_tile * rows_here + warp * 16 +
               row] = d[i];
        }
      });
      return;
    }
    if (list.epilogue == MatmulEpilogue::gate_up) {
      // Even warps hold the gate's strip, odd ones the same strip of the other weight.
      consumer_barrier<consumers>();
      auto* other = reinterpret_cast<float*>(shared + layout.x) + (warp / 2) * tile_tokens * 16;
      if (warp % 2 == 1) {
        for_sums([&](int i, int token, int) {
          other[i * 32 + lane] = token < list.tokens ? d[i] * (layout.scales[token] * back) : 0.0f;
        });
      }
      consumer_barrier<consumers>();
      if (warp % 2 == 0 && stored) {
        for_sums([&](int i, int token, int row) {
          if (token < list.tokens) {
            store_gated(list, strip.index, row, token, d[i] * (layout.scales[token] * back),
                        other[i * 32 + lane]);
          }
        });
      }
      return;
    }
    if (!stored) return;
    for_sums([&](int i, int token, int row) {
      if (token < list.tokens) {
        store_sum(list, strip, row, token, d[i] * (layout.scales[token] * back));
      }
    });
  }
#endif
}

template <class P, int tile_tokens>
MatmulStatus launch_wide_tile(const StripList& list, int strips, const WidePlan& plan,
                              void* workspace, int shared_limit, cudaStream_t stream) {
  auto* base = static_cast<std::uint8_t*>(workspace);
  WideLayout layout{};
  const int pieces = (list.columns + piece_columns - 1) / piece_columns;
  layout.tiles = (list.tokens + tile_tokens - 1) / tile_tokens;
  layout.split_pieces = (pieces + plan.splits - 1) / plan.splits;
  layout.splits = (pieces + layout.split_pieces - 1) / layout.split_pieces;
  layout.padded_tokens = plan.padded_tokens;
  layout.image = reinterpret_cast<const __half*>(base + plan.x);
  layout.scales = reinterpret_cast<const float*>(base + plan.scales);
  layout.sums = reinterpret_cast<float*>(base + plan.sums);
  constexpr int warps = wide_consumers(tile_tokens) / 32;
  int at = 0;
  const auto take = [&](int bytes) {
    const int start = at;
    at += (bytes + 127) / 128 * 128;
    return start;
  };
  layout.weight_stages = warps * 3 * P::piece_bytes <= 65536 ? 3 : 2;
  layout.weights = take(warps * layout.weight_stages * P::piece_bytes);
  layout.affine = take(warps * strip_rows * affine_row_words<P> * 4);
  layout.barriers = take(512);
  layout.table = take(P::table_bytes);
  layout.x_stages = (shared_limit - 128 - at) / (tile_tokens * wide_chunk * 2);
  if (layout.x_stages > 8) layout.x_stages = 8;
  layout.x = take(layout.x_stages * tile_tokens * wide_chunk * 2);
  layout.bytes = at;
  const auto kernel = wide_matmul_kernel<P, tile_tokens>;
  if (cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, layout.bytes) !=
      cudaSuccess) {
    return MatmulStatus::cuda_error;
  }
  constexpr int strips_here = wide_strips(tile_tokens);
  const int row_tiles = (strips + strips_here - 1) / strips_here;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(row_tiles * layout.tiles * layout.splits));
  config.blockDim = dim3(wide_threads(tile_tokens));
  config.dynamicSmemBytes = static_cast<std::size_t>(layout.bytes);
  config.stream = stream;
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  config.attrs = &attribute;
  config.numAttrs = 1;  // after prepare_image, which waited for what came before it
  if (cudaLaunchKernelEx(&config, kernel, list, strips, layout) != cudaSuccess) {
    return MatmulStatus::cuda_error;
  }
  if (layout.splits == 1) return MatmulStatus::done;
  return sum_splits(list, strips, layout.splits, layout.padded_tokens,
                    row_tiles * wide_rows(tile_tokens), layout.sums, layout.scales, stream);
}

template <class P>
MatmulStatus launch_wide(const StripList& list, int strips, const WidePlan& plan, void* workspace,
                         cudaStream_t stream) {
  constexpr int shared_limit = 232448;  // every chip of compute capability 9.0
  switch (plan.tile_tokens) {
    case 16:
      return launch_wide_tile<P, 16>(list, strips, plan, workspace, shared_limit, stream);
    case 64:
      return launch_wide_tile<P, 64>(list, strips, plan, workspace, shared_limit, stream);
    case 256:
      return launch_wide_tile<P, 256>(list, strips, plan, workspace, shared_limit, stream);
    default:
      return launch_wide_tile<P, 128>(list, strips, plan, workspace, shared_limit, stream);
  }
}

}  // namespace quantloom::kernels

#define QL_WIDE_INSTANCE(F)                 \
  namespace quantloom::kernels {            \
  template <>                               \
  WideLaunch wide_kernel<formats::F>() {    \
    return launch_wide<Planes<formats::F>>; \
  }                                         \
  }
