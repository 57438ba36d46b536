// Many tokens on Hopper. A block takes wide_rows rows and a tile of tokens. Each of its consumer
// warps decodes the pieces of one strip into wgmma's A registers, once per tile whatever its width;
// a producer warp copies x, which stands swizzled in shared memory as the B operand, or, for one
// tile of 16 tokens, its warpgroup converts x (wide_convert.cuh). A cluster's blocks have the same
// tokens, and each fetches its share of x for all of them; or they have the splits of the same rows
// and tokens, whose sums they gather (wide_gather.cuh).
#pragma once

#include "matmul/activations.cuh"
#include "matmul/ring.cuh"
#include "matmul/strips.cuh"
#include "matmul/wgmma_sm90.cuh"
#include "matmul/wide_convert.cuh"
#include "matmul/wide_decode.cuh"
#include "matmul/wide_gather.cuh"
#include "matmul/wide_layout.cuh"
#include "matmul/wide_store.cuh"

namespace quantloom::kernels {

// cluster: blocks with the same tokens. gathers: a block has one item, and the blocks of a cluster
// its splits.
template <class P, int tile_tokens, int cluster, bool converts, bool gathers>
__global__ void __launch_bounds__(wide_threads(tile_tokens), 1)
    wide_matmul_kernel(const __grid_constant__ StripList list, int strips,
                       const __grid_constant__ WideLayout layout) {
#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
  using F = typename P::Format;
  extern __shared__ __align__(1024) std::uint8_t shared[];
  constexpr int consumer_warps = wide_consumers(tile_tokens) / 32;
  constexpr int strips_here = wide_strips(tile_tokens);
  constexpr int chunk_bytes = tile_tokens * wide_chunk * 2;
  constexpr int stage_chunks = wide_stage_chunks(tile_tokens);
  constexpr int stage_bytes = stage_chunks * chunk_bytes;
  // What the producer's warps give up: 168 or 96 registers a thread otherwise.
  constexpr bool shift_registers = tile_tokens >= 64;
  constexpr int producer_registers = tile_tokens >= 128 ? 40 : 24;
  constexpr int consumer_registers = tile_tokens >= 128 ? 232 : 112;
  const int lane = threadIdx.x % 32, warp = __shfl_sync(0xffffffffu, threadIdx.x / 32, 0);
  const int rank = cluster == 1 ? 0 : static_cast<int>(blockIdx.x) % cluster;
  const int first_item = static_cast<int>(blockIdx.x) / cluster;
  const int item_step = static_cast<int>(gridDim.x) / cluster;
  const int items = layout.tiles * layout.splits * (layout.row_tiles / cluster);
  const int groups = list.columns / 32;
  const int pieces = (groups + piece_groups - 1) / piece_groups;
  const auto last_piece = [&](int split) { return min(pieces, (split + 1) * layout.split_pieces); };
  const std::uint32_t full = shared_address(shared + layout.barriers);
  const std::uint32_t empty = full + 8 * layout.x_stages;
  constexpr int gather_barriers = gathers ? consumer_warps : 0;
  const std::uint32_t gathered = empty + 8 * layout.x_stages;
  const std::uint32_t x = shared_address(shared + layout.x);
  if (threadIdx.x == 0) {
    for (int i = 0; i < layout.x_stages; ++i) {
      mbarrier_init(full + 8 * i, converts ? wide_converters * warp_arrivals : 1);
      mbarrier_init(empty + 8 * i, cluster * consumer_warps);
    }
    for (int i = 0; i < gather_barriers; ++i) mbarrier_init(gathered + 8 * i, 1);
    mbarrier_init_fence();
  }
  load_table<P>(shared + layout.table, blockDim.x);
  block_or_cluster_barrier<cluster>();

  if (warp >= consumer_warps) {
    if constexpr (shift_registers) give_registers<producer_registers>();
    if constexpr (converts) {
      cudaGridDependencySynchronize();
      cudaTriggerProgrammaticLaunchCompletion();
      int index = first_item - item_step;
      const auto next = [&](int& piece, int& end) {
        index += item_step;
        if (index >= items) return false;
        const WideItem item = wide_item<tile_tokens, cluster>(layout, index, rank);
        piece = item.split * layout.split_pieces, end = last_piece(item.split);
        return true;
      };
      const auto convert = [&](const auto* values) {
        convert_tile(values, list.columns, list.tokens,
                     {.x = shared + layout.x,
                      .steps = reinterpret_cast<float*>(shared + layout.steps),
                      .full = full,
                      .empty = empty,
                      .count = layout.x_stages},
                     warp - consumer_warps, lane, next);
      };
      if (layout.values_type == formats::Format::f32) {
        convert(static_cast<const float*>(layout.values));
      } else if (layout.values_type == formats::Format::f16) {
        convert(static_cast<const __half*>(layout.values));
      } else {
        convert(static_cast<const __nv_bfloat16*>(layout.values));
      }
    } else if (warp == consumer_warps) {
      // Behind a kernel that itself waited for x there is nothing to wait for, but sums that a
      // third may still read: this kernel's tiles then follow on those of the one before.
      if (!layout.waits_late) cudaGridDependencySynchronize();
      cudaTriggerProgrammaticLaunchCompletion();
      int stage = 0;
      std::uint32_t parity = 1;
      for (int index = first_item; index < items; index += item_step) {
        const WideItem item = wide_item<tile_tokens, cluster>(layout, index, rank);
        const int first = item.split * layout.split_pieces * 4;
        const int last = last_piece(item.split) * 4;
        for (int chunk = first; chunk < last; chunk += stage_chunks) {
          mbarrier_wait(empty + 8 * stage, parity);
          if (lane == 0) {
            constexpr int share = chunk_bytes / cluster;
            mbarrier_expect(full + 8 * stage, stage_bytes);
#pragma unroll
            for (int i = 0; i < stage_chunks; ++i) {
              const __half* from =
                  layout.image +
                  (static_cast<std::int64_t>(chunk + i) * layout.padded_tokens + item.first_token) *
                      wide_chunk +
                  rank * (share / 2);
              bulk_copy_to_all<cluster>(x + stage * stage_bytes + i * chunk_bytes + rank * share,
                                        from, share, full + 8 * stage);
            }
          }
          __syncwarp();
          if (++stage == layout.x_stages) stage = 0, parity ^= 1;
        }
      }
      // Whoever waits for this kernel counts on the one before, too.
      if (layout.waits_late) cudaGridDependencySynchronize();
    }
  } else {
    if constexpr (shift_registers) take_registers<consumer_registers>();
    const std::int64_t strip_bytes =
        static_cast<std::int64_t>(list.columns / F::elements * F::bytes) * strip_rows;
    auto* affine = reinterpret_cast<std::uint32_t*>(shared + layout.affine) +
                   warp * strip_rows * affine_row_words<P>;
    auto* factors =
        reinterpret_cast<float*>(shared + layout.factors + warp * factor_bytes(tile_tokens));
    const int tail_groups = groups - (pieces - 1) * piece_groups;
    const auto groups_of = [&](int p) { return p + 1 == pieces ? tail_groups : piece_groups; };
    PieceRing ring(shared + layout.weights + warp * layout.weight_stages * P::piece_bytes,
                   reinterpret_cast<std::uint64_t*>(shared + layout.barriers) +
                       2 * layout.x_stages + gather_barriers + warp * layout.weight_stages,
                   layout.weight_stages, P::piece_bytes);
    const auto strip_of = [&](int row_tile) {
      return find_strip(list, min(row_tile * strips_here + warp, strips - 1));
    };
    // The copies run ahead into the next item.
    int fetch_index = first_item, fetched = 0, fetch_last = 0;
    const std::uint8_t* from = nullptr;
    const auto fetch_item = [&] {
      const WideItem item = wide_item<tile_tokens, cluster>(layout, fetch_index, rank);
      const Strip strip = strip_of(item.row_tile);
      fetched = item.split * layout.split_pieces;
      fetch_last = last_piece(item.split);
      from = list.planes[strip.weight] + strip.index * strip_bytes;
    };
    const auto fetch_next = [&] {
      if (fetch_index >= items) return;
      ring.fetch(from + static_cast<std::int64_t>(fetched) * P::piece_bytes,
                 groups_of(fetched) * (P::piece_bytes / piece_groups));
      if (++fetched < fetch_last) return;
      fetch_index += item_step;
      if (fetch_index < items) fetch_item();
    };
    if (fetch_index < items) fetch_item();
    for (int i = 0; i < layout.early_stages; ++i) fetch_next();
    int started = layout.early_stages;

    int stage = 0;
    std::uint32_t parity = 0;
    const auto release = [&](int s) {
      if (lane < cluster) mbarrier_arrive_at<cluster>(empty + 8 * s, lane);
    };
    // One item ahead of its use.
    const auto largest_of = [&](int index) {
      const WideItem item = wide_item<tile_tokens, cluster>(layout, min(index, items - 1), rank);
      return *list.largest[strip_of(item.row_tile).weight];
    };
    float largest = largest_of(first_item);
    for (int index = first_item; index < items; index += item_step) {
      const WideItem item = wide_item<tile_tokens, cluster>(layout, index, rank);
      const bool stored = item.row_tile * strips_here + warp < strips;
      const Strip strip = strip_of(item.row_tile);
      const float weight_scale = power_of_two_scale(largest);
      largest = largest_of(index + item_step);
      float d[tile_tokens / 2];
#pragma unroll
      for (int i = 0; i < tile_tokens / 2; ++i) d[i] = 0;
      // Where x is converted here each piece has its own steps, and its sums are added to these.
      float total[converts ? tile_tokens / 2 : 1] = {};
      const auto add_piece = [&](int of) {
        const float* steps = reinterpret_cast<const float*>(shared + layout.steps) + of * 16;
#pragma unroll
        for (int i = 0; i < (converts ? tile_tokens / 8 : 0); ++i) {
          const float2 step = *reinterpret_cast<const float2*>(steps + 8 * i + 2 * (lane & 3));
#pragma unroll
          for (int e = 0; e < 4; ++e) {
            total[4 * i + e] += d[4 * i + e] * (e & 1 ? step.y : step.x);
            d[4 * i + e] = 0;
          }
        }
      };
      // While a chunk is multiplied, the next one is decoded, in halves between the steps: an
      // instruction waits for its turn at the tensor cores and the warp with it.
      std::uint32_t steps[2][4][4];
      int previous = -1;
      int p = item.split * layout.split_pieces;
      const int end = last_piece(item.split);
      const std::uint8_t* piece;
      int n;
      const auto decode = [&](int j, std::uint32_t (&first)[4], std::uint32_t (&second)[4]) {
        decode_group<P>(piece, n, j, lane, affine, shared + layout.table, first, second);
      };
      const auto open_piece = [&] {
        n = groups_of(p);
        piece = ring.wait();
        stage_scales<P>(piece, n, lane, weight_scale, affine);
        decode(0, steps[0][0], steps[0][1]);
        decode(1, steps[0][2], steps[0][3]);
      };
      open_piece();
      // The scales of x were written before x was, so they are there when its first chunk is.
      mbarrier_wait(full + 8 * stage, parity);
      for (; started < layout.weight_stages; ++started) fetch_next();
      if (!converts && (gathers || layout.splits == 1)) {
        start_factors<tile_tokens>(layout.scales + item.first_token, shared_address(factors), lane);
      }
#pragma unroll 1
      while (p < end) {
#pragma unroll
        for (int chunk = 0; chunk < 4; ++chunk) {
          auto& now = steps[chunk % 2];
          auto& next = steps[(chunk + 1) % 2];
          const int in_stage = chunk % stage_chunks;
          if (in_stage == 0) mbarrier_wait(full + 8 * stage, parity);
          if (converts && chunk == 0 && previous >= 0) {
            wgmma_wait<0>();
            add_piece(previous);
            release(previous);
          }
          const std::uint64_t b = swizzled_matrix(x + stage * stage_bytes + in_stage * chunk_bytes);
          wgmma_fence();
          wgmma<tile_tokens>(d, now[0], b);
          wgmma<tile_tokens>(d, now[1], b + 2);
          wgmma_commit();
          wgmma_wait<1>();
          if (in_stage == 0) {
            if (!converts && previous >= 0) release(previous);
            previous = stage;
          }
          if (in_stage == stage_chunks - 1 && ++stage == layout.x_stages) stage = 0, parity ^= 1;
          if (chunk < 3) decode(2 * chunk + 2, next[0], next[1]);
          wgmma_fence();
          wgmma<tile_tokens>(d, now[2], b + 4);
          wgmma<tile_tokens>(d, now[3], b + 6);
          wgmma_commit();
          if (chunk < 3) decode(2 * chunk + 3, next[2], next[3]);
        }
        ring.release();
        fetch_next();
        if (++p < end) open_piece();
      }
      wgmma_wait<0>();
      if constexpr (converts) {
        add_piece(previous);
#pragma unroll
        for (int i = 0; i < tile_tokens / 2; ++i) d[i] = total[i];
        __syncwarp();
        if (lane < tile_tokens) factors[lane] = 1.0f;
      }
      if (previous >= 0) release(previous);

      const float back = 1.0f / weight_scale;
      finish_factors();
      if constexpr (gathers) {
        pin(d);
        const Gather<tile_tokens> gather(layout.splits, item.split, warp, x, gathered);
        gather.expect(lane);
        // The sums come to lie where x and the weights were, which wgmma has read when it is done.
        cluster_arrive_relaxed();
        cluster_wait();
        gather.meet(d, lane);
        if (!gather.is_owner()) break;
      }
      if (!gathers && layout.splits > 1) {
        constexpr int rows_here = wide_rows(tile_tokens);
        const int padded_rows = layout.row_tiles * rows_here;
        store_split<tile_tokens>(
            d,
            layout.sums +
                (static_cast<std::int64_t>(item.split) * layout.padded_tokens + item.first_token) *
                    padded_rows +
                item.row_tile * rows_here + warp * strip_rows,
            padded_rows, list.tokens - item.first_token, lane);
      } else if (list.epilogue == MatmulEpilogue::gate_up) {
        // Even warps hold the gate's strip, odd ones the same strip of the other weight.
        auto* pair =
            reinterpret_cast<float*>(shared + layout.pairs + warp / 2 * pair_bytes(tile_tokens));
        if (list.prepares_out) {
          prepare_pair<tile_tokens>(d, list, strip, stored, item.first_token, factors, back, warp,
                                    lane, pair);
        } else {
          store_pair<tile_tokens>(d, list, strip, stored, item.first_token, factors, back, warp,
                                  lane, pair);
        }
      } else if (stored && list.out_type == formats::Format::f16) {
        store_halves<__half, tile_tokens>(d, list, strip, item.first_token, factors, back, lane);
      } else if (stored && list.out_type == formats::Format::bf16) {
        store_halves<__nv_bfloat16, tile_tokens>(d, list, strip, item.first_token, factors, back,
                                                 lane);
      } else if (stored) {
        store_tile<tile_tokens>(d, list, strip, item.first_token, factors, back, lane);
      }
      __syncwarp();
    }
  }
  // Other blocks may still copy to this one's shared memory and arrive at its barriers.
  if constexpr (cluster > 1) cluster_barrier();
  if (gathers && warp >= consumer_warps) {
    cluster_arrive_relaxed();
    cluster_wait();
  }
#endif
}

}  // namespace quantloom::kernels
