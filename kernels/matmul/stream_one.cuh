// One token: the weights are streamed once by persistent blocks (one_token.cuh).
#pragma once

#include "device/overlap.cuh"
#include "matmul/one_token.cuh"
#include "matmul/ring.cuh"
#include "matmul/strips.cuh"

namespace quantloom::kernels {

constexpr int batch_strips = 16;  // between two block-wide reductions

// Offsets into the dynamic shared memory.
struct OneLayout {
  int values;   // [groups][2][32] int8: high and low bytes
  int scales;   // [groups] float
  int sums;     // [columns / scale group] float: scale * sum of q
  int partial;  // [batch_strips][warps][16] float
  int barriers;
  int ring;
  int bytes;
  int stages;
  int early_stages;  // that are fetched before x is waited for
  int share, extra;  // units of strips per block, and blocks with one more
};

// Small pieces are fetched two at a time, which halves the cost of the ring per weight. Measured on
// an H200, Q4_K, 14336 x 4096: 11.4 us; with one piece a slot and 16, 32 or two blocks of 16
// warps 12.8, 12.8 and 13.7 us.
template <class P>
constexpr int slot_pieces = P::piece_bytes <= 2400 ? 2 : 1;
constexpr int one_warps = 16;

template <class P>
__global__ void __launch_bounds__(32 * one_warps, 1)
    stream_one_kernel(const __grid_constant__ StripList list, const float* x,
                      const __grid_constant__ OneLayout layout) {
  using F = typename P::Format;
  extern __shared__ __align__(128) std::uint8_t shared[];
  TableLoad<P> codebook;
  codebook.read(blockDim.x);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const int groups = list.columns / 32;
  const int pieces = (groups + piece_groups - 1) / piece_groups;
  const int row_bytes = list.columns / F::elements * F::bytes;
  // In gate_up a block takes whole pairs of strips.
  const int unit = list.epilogue == MatmulEpilogue::gate_up ? 2 : 1;
  const int block = blockIdx.x;
  const int first = (block * layout.share + min(block, layout.extra)) * unit;
  const int last = first + (layout.share + (block < layout.extra ? 1 : 0)) * unit;

  auto* values = reinterpret_cast<std::int8_t*>(shared + layout.values);
  auto* scales = reinterpret_cast<float*>(shared + layout.scales);
  auto* sums = reinterpret_cast<float*>(shared + layout.sums);
  auto* partial = reinterpret_cast<float*>(shared + layout.partial);
  // At the beginning, so that its address needs no addition in the loop.
  const std::uint8_t* table = shared;
  constexpr int slot_bytes = slot_pieces<P> * P::piece_bytes;
  PieceRing ring(shared + layout.ring + warp * layout.stages * slot_bytes,
                 reinterpret_cast<std::uint64_t*>(shared + layout.barriers) + warp * layout.stages,
                 layout.stages, slot_bytes);
  const int slots = (pieces + slot_pieces<P> - 1) / slot_pieces<P>;
  SlotWalk fetch(list, slots, slot_bytes, row_bytes * strip_rows, first, last, warp, warps);
  SlotWalk use = fetch;
  const OwnColumns own = OwnColumns::of<P>(lane);
  const int tail_groups = groups - (pieces - 1) * piece_groups;
  const auto groups_of = [&](int piece) {
    // Blocks of 256 columns leave no piece with fewer groups.
    return P::block_groups == 8 || piece + 1 < pieces ? piece_groups : tail_groups;
  };
  const auto bytes_to_fetch = [&] {
    return min(row_bytes * strip_rows - fetch.slot() * slot_bytes, slot_bytes);
  };
  const auto fetch_next = [&] {
    const bool done = fetch.done();
    ring.fetch(done ? nullptr : fetch.at(), bytes_to_fetch());
    if (!done) fetch.next();
  };
  for (int i = threadIdx.x; i < min(last - first, batch_strips) * warps * strip_rows;
       i += blockDim.x) {
    partial[i] = 0;
  }
  // What the conversion of x waits for does not queue behind the whole ring.
  if (layout.early_stages > 0) fetch_next();
#if defined(QL_BULK_COPY)
  cudaGridDependencySynchronize();
  cudaTriggerProgrammaticLaunchCompletion();
#endif
  const int chunks = pieces * 2;  // of 128 columns
  constexpr int held = 8;         // loads in flight per lane
  float4 part[held];
  const auto load_x = [&](int chunk) {
#pragma unroll
    for (int i = 0; i < held; ++i) {
      const int column = (chunk + i * warps) * 128 + lane * 4;
      part[i] = column < list.columns ? *reinterpret_cast<const float4*>(x + column)
                                      : make_float4(0, 0, 0, 0);
    }
  };
  load_x(warp);
  for (int i = layout.early_stages; i < layout.stages; ++i) fetch_next();
  codebook.write(shared, blockDim.x);
  for (int chunk = warp; chunk < chunks; chunk += held * warps) {
    if (chunk != warp) load_x(chunk);
    // Two at a time wait for each other's shuffles.
#pragma unroll
    for (int i = 0; i < held; i += 2) {
      if (chunk + i * warps >= chunks) break;
      const unsigned largest[2] = {group_largest(part[i]), group_largest(part[i + 1])};
#pragma unroll
      for (int j = 0; j < 2; ++j) {
        const int at = chunk + (i + j) * warps;
        if (at >= chunks) break;
        convert_columns<P::group, P::has_offset>(part[i + j], largest[j], lane, values + at * 256,
                                                 scales + at * 4, sums + at * (128 / P::group));
      }
    }
  }
  __syncthreads();

  float* own_partial = partial + warp * strip_rows + lane / 4 + 8 * (lane & 1);
  for (int batch = first; batch < last; batch += batch_strips) {
    const int batch_end = min(batch + batch_strips, last);
    float sum_g = 0, sum_g8 = 0;
    while (!use.done() && use.strip() < batch_end) {
      const int strip = use.strip(), p = use.slot() * slot_pieces<P>;
      const std::uint8_t* piece = ring.wait();
      const auto multiply = [&](int i) {
        multiply_piece<P>(piece + i * P::piece_bytes, groups_of(p + i), values + (p + i) * 512,
                          scales + (p + i) * 8, sums + (p + i) * (piece_columns / P::group), table,
                          lane, own, sum_g, sum_g8);
      };
      if (p + slot_pieces<P> <= pieces) {
#pragma unroll
        for (int i = 0; i < slot_pieces<P>; ++i) multiply(i);
      } else {
        multiply(0);
      }
      const bool more = !fetch.done();
      ring.refill(more, fetch.at(), bytes_to_fetch());
      if (more) fetch.next();
      use.next();
      if (use.strip() != strip) {
        // Even lanes sum row g, odd ones row g + 8.
        const bool odd = lane & 1;
        float sum = odd ? sum_g8 : sum_g;
        sum += __shfl_xor_sync(0xffffffffu, odd ? sum_g : sum_g8, 1);
        sum += __shfl_xor_sync(0xffffffffu, sum, 2);
        if ((lane & 2) == 0) own_partial[(strip - batch) * (warps * strip_rows)] = sum;
        sum_g = sum_g8 = 0;
      }
    }
    __syncthreads();
    const auto total = [&](int strip, int row) {
      float sum = 0, parts[one_warps];
      float* from = partial + strip * warps * strip_rows + row;
      // Reads before additions do not wait for each other.
#pragma unroll
      for (int w = 0; w < one_warps; ++w) {
        if (w < warps) parts[w] = from[w * strip_rows];
      }
#pragma unroll
      for (int w = 0; w < one_warps; ++w) {
        if (w < warps) sum += parts[w];
      }
      if (batch_end < last) {
        for (int w = 0; w < warps; ++w) from[w * strip_rows] = 0;
      }
      return sum;
    };
    const int count = (batch_end - batch) / unit;
    for (int i = threadIdx.x; i < count * strip_rows; i += blockDim.x) {
      const int s = i / strip_rows, row = i % strip_rows;
      if (unit == 2) {
        const float gate = total(2 * s, row), up = total(2 * s + 1, row);
        store_gated(list, (batch >> 1) + s, row, 0, gate, up);
      } else {
        store_sum(list, find_strip(list, batch + s), row, 0, total(s, row));
      }
    }
    if (batch_end < last) __syncthreads();
  }
}

inline OneLayout one_layout(int columns, int warps, int slot_bytes, int scale_group,
                            int table_bytes, int shared_limit) {
  const int groups = (columns + piece_columns - 1) / piece_columns * piece_groups;
  OneLayout layout{};
  int at = 0;
  const auto take = [&](int bytes) {
    const int start = at;
    at += (bytes + 127) / 128 * 128;
    return start;
  };
  take(table_bytes);
  layout.values = take(groups * 64);
  layout.scales = take(groups * 4);
  layout.sums = take(groups * 32 / scale_group * 4);
  layout.partial = take(batch_strips * warps * strip_rows * 4);
  layout.barriers = take(warps * 8 * 8);
  layout.ring = at;
  const int room = shared_limit - at;
  layout.stages = room / (warps * slot_bytes);
  if (layout.stages > 4) layout.stages = 4;
  layout.bytes = at + layout.stages * warps * slot_bytes;
  return layout;
}

// The layout with the most warps for which two stages fit; 0 stages where not even four warps have
// room beside x and the table.
template <class P>
OneLayout fitting_one_layout(int columns, int shared_limit, int& warps) {
  for (warps = one_warps; warps >= 4; warps -= 2) {
    const OneLayout layout = one_layout(columns, warps, slot_pieces<P> * P::piece_bytes, P::group,
                                        P::table_bytes, shared_limit);
    if (layout.stages >= 2) return layout;
  }
  return {};
}

template <class P>
bool stream_one_fits(int columns, int shared_limit) {
  int warps = 0;
  return fitting_one_layout<P>(columns, shared_limit, warps).stages > 0;
}

template <class P>
MatmulStatus launch_stream_one(const StripList& list, const float* x, int strips, int processors,
                               int shared_limit, bool overlap, cudaStream_t stream) {
  int warps = 0;
  OneLayout layout = fitting_one_layout<P>(list.columns, shared_limit, warps);
  if (layout.stages == 0) return MatmulStatus::bad_shape;
  const auto kernel = stream_one_kernel<P>;
  // The same value in every call: threads with other shapes set it too.
  if (cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_limit) !=
      cudaSuccess) {
    return MatmulStatus::cuda_error;
  }
  const int units = list.epilogue == MatmulEpilogue::gate_up ? strips / 2 : strips;
  const int blocks = units < processors ? units : processors;
  // Much of x, where it is there already, is needed before the first weights are.
  layout.early_stages = overlap || list.columns < 8192 ? 1 : 0;
  layout.share = units / blocks;
  layout.extra = units % blocks;
  const cudaError_t error =
      launch_kernel(kernel, dim3(static_cast<unsigned>(blocks)), warps * 32,
                    static_cast<std::size_t>(layout.bytes), overlap, stream, list, x, layout);
  return error == cudaSuccess ? MatmulStatus::done : MatmulStatus::cuda_error;
}

}  // namespace quantloom::kernels
