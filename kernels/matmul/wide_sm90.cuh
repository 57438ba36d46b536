// Launches of the kernel for many tokens on Hopper (wide_kernel_sm90.cuh).
#pragma once

#include "device/overlap.cuh"
#include "matmul/wide_kernel_sm90.cuh"

namespace quantloom::kernels {

template <class P, int tile_tokens, int cluster, bool converts, bool gathers>
MatmulStatus launch_wide_tile(const StripList& list, int strips, const WidePlan& plan,
                              const WideX& x, void* workspace, int processors,
                              cudaStream_t stream) {
  constexpr int shared_limit = 232448;  // every chip of compute capability 9.0
  auto* base = static_cast<std::uint8_t*>(workspace);
  WideLayout layout{};
  const int pieces = (list.columns + piece_columns - 1) / piece_columns;
  constexpr int strips_here = wide_strips(tile_tokens);
  layout.tiles = (list.tokens + tile_tokens - 1) / tile_tokens;
  layout.row_tiles = (strips + strips_here * cluster - 1) / (strips_here * cluster) * cluster;
  layout.split_pieces = (pieces + plan.splits - 1) / plan.splits;
  layout.splits = (pieces + layout.split_pieces - 1) / layout.split_pieces;
  layout.padded_tokens = plan.padded_tokens;
  layout.waits_late = x.waits_late && layout.splits == 1;
  layout.image = x.image;
  layout.scales = x.scales;
  layout.values = x.values;
  layout.values_type = x.type;
  layout.sums = reinterpret_cast<float*>(base + plan.sums);
  constexpr int warps = wide_consumers(tile_tokens) / 32;
  int at = 0;
  const auto take = [&](int bytes) {
    const int start = at;
    at += (bytes + 127) / 128 * 128;
    return start;
  };
  constexpr int stage_bytes = tile_tokens * wide_chunk * 2 * wide_stage_chunks(tile_tokens);
  layout.weight_stages = warps * 3 * P::piece_bytes <= 65536 ? 3 : 2;
  const bool gated = list.epilogue == MatmulEpilogue::gate_up;
  const int all_pairs = gated ? warps / 2 * pair_bytes(tile_tokens) : 0;
  const int others = warps * layout.weight_stages * P::piece_bytes +
                     warps * strip_rows * affine_row_words<P> * 4 + all_pairs +
                     warps * factor_bytes(tile_tokens) + 512 + 768 + P::table_bytes + 7 * 128;
  layout.x_stages = (shared_limit - others) / stage_bytes;
  // More of them for few tokens are a little slower (1% at 64 on an H200).
  constexpr int most_stages = tile_tokens <= 64 ? 4 : 8;
  if (layout.x_stages > most_stages) layout.x_stages = most_stages;
  // x would queue behind more of them (1 us at 16 tokens on an H200).
  layout.early_stages = tile_tokens == 256 ? layout.weight_stages : 1;
  layout.x = take(layout.x_stages * stage_bytes);  // first: swizzled tiles begin at 1024 bytes
  layout.weights = take(warps * layout.weight_stages * P::piece_bytes);
  layout.affine = take(warps * strip_rows * affine_row_words<P> * 4);
  layout.pairs = take(all_pairs);
  layout.factors = take(warps * factor_bytes(tile_tokens));
  layout.steps = take(8 * 16 * 4);
  layout.barriers = take(768);
  layout.table = take(P::table_bytes);
  layout.bytes = at;
  const int items = layout.tiles * layout.splits * (layout.row_tiles / cluster);
  // The splits' sums come to lie where x and the weights were, and a block has one item.
  if (gathers && (gather_bytes(tile_tokens, layout.splits) > layout.affine || items > processors)) {
    return MatmulStatus::bad_shape;
  }
  const auto kernel = wide_matmul_kernel<P, tile_tokens, cluster, converts, gathers>;
  if (cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_limit) !=
      cudaSuccess) {
    return MatmulStatus::cuda_error;
  }
  const int clusters = items < processors / cluster ? items : processors / cluster;
  // It overlaps prepare_image, which waited for what came before or may itself overlap it.
  const bool overlap = !converts || x.overlap;
  if (launch_clusters(kernel, dim3(static_cast<unsigned>(clusters * cluster)),
                      gathers ? layout.splits : cluster, wide_threads(tile_tokens),
                      static_cast<std::size_t>(layout.bytes), overlap, stream, list, strips,
                      layout) != cudaSuccess) {
    return MatmulStatus::cuda_error;
  }
  if (gathers || layout.splits == 1) return MatmulStatus::done;
  return sum_splits(list, strips, layout.splits, layout.padded_tokens,
                    layout.row_tiles * wide_rows(tile_tokens), layout.sums, layout.scales,
                    tile_tokens == 16, stream);
}

template <class P>
MatmulStatus launch_wide(const StripList& list, int strips, const WidePlan& plan, const WideX& x,
                         void* workspace, int processors, cudaStream_t stream) {
  const auto launch = [&]<int tile_tokens, bool converts = false, bool gathers = false>() {
    return launch_wide_tile<P, tile_tokens, wide_cluster(tile_tokens), converts, gathers>(
        list, strips, plan, x, workspace, processors, stream);
  };
  switch (plan.tile_tokens) {
    case 16:
      if (x.values != nullptr) {
        return plan.gathers ? launch.template operator()<16, true, true>()
                            : launch.template operator()<16, true>();
      }
      return plan.gathers ? launch.template operator()<16, false, true>()
                          : launch.template operator()<16>();
    case 64:
      return plan.gathers ? launch.template operator()<64, false, true>()
                          : launch.template operator()<64>();
    case 128:
      return launch.template operator()<128>();
    default:
      return launch.template operator()<256>();
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
