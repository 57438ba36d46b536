// 2 to 8 tokens: the weights are streamed once, int8 tensor-core steps in exact integers. The
// columns are cut into slices of at most 16 pieces, and a warp multiplies one piece of its block's
// slice in strip after strip, so that its x stays in registers. A block's units of work are strips,
// neighbours of one slice. Where there are several slices the partial sums go to the workspace, and
// the last block of a strip adds them in the order of the slices.
//
// x is 16-bit fixed point with a scale per token and 256 columns, split into two int8 planes: the
// eight columns of a step are the planes of four tokens (activations.cuh).
#pragma once

#include <algorithm>

#include "matmul/activations.cuh"
#include "matmul/one_token.cuh"
#include "matmul/ring.cuh"
#include "matmul/strips.cuh"

namespace quantloom::kernels {

constexpr int few_tokens = 8;
constexpr int few_warps = 16;           // most of a block, and pieces of a slice
constexpr int few_most_strips = 32768;  // that can be summed over slices

struct FewLayout {
  int sums;     // per warp: [scale groups of a piece][4][tiles] float, of x
  int partial;  // [batch_strips][slice_pieces][16][padded tokens] float
  int affine;   // per warp: [scale groups of a piece][8] of RowPair
  int barriers;
  int ring;
  int bytes;
  int stages;
  int slices;
  int slice_pieces;
  int strips_abreast;  // slice_pieces times these are the warps
  int batch_strips;
  FixedPoint x;        // in the workspace
  float* slice_sums;   // [slices][tokens][strips * 16]
  unsigned* arrivals;  // [strips], zero before and after
};

// Scales and offsets of rows g and g + 8, read at once.
template <bool has_offset>
struct alignas(8) RowPair {
  float scale[2];
};
template <>
struct alignas(16) RowPair<true> {
  float scale[2], offset[2];
};

template <class P>
constexpr int piece_scale_groups = piece_columns / P::group;
template <class P>
constexpr int few_affine_bytes = piece_scale_groups<P> * 8 * sizeof(RowPair<P::has_offset>);

// Every lane decodes the scales of its two rows' groups t, t + 4, ... for the warp.
template <class P>
__device__ inline void stage_row_pairs(const std::uint8_t* piece, int n, int lane,
                                       RowPair<P::has_offset>* to) {
  const int g = lane >> 2, t = lane & 3;
#pragma unroll
  for (int quad = 0; quad < piece_scale_groups<P> / 4; ++quad) {
    const int group = 4 * quad + t;
    if (P::block_groups < 8 && group * P::group >= n * 32) break;
    const formats::Affine first = P::affine(piece, n, g, quad, t);
    const formats::Affine second = P::affine(piece, n, g + 8, quad, t);
    if constexpr (P::has_offset) {
      *reinterpret_cast<float4*>(to + group * 8 + g) =
          make_float4(first.scale, second.scale, first.offset, second.offset);
    } else {
      *reinterpret_cast<float2*>(to + group * 8 + g) = make_float2(first.scale, second.scale);
    }
  }
  __syncwarp();
}

// Sums of x over a scale group, of tokens t, t + 4, ...
template <int tiles>
struct alignas(4 * tiles) TokenSums {
  float of_tile[tiles];
};

// A piece's products without the steps of x, for rows g and g + 8 and tokens t, t + 4, ...
template <class P, int tiles>
__device__ __forceinline__ void multiply_few(const std::uint8_t* piece, int n,
                                             const uint2 (&x)[piece_groups][tiles],
                                             const TokenSums<tiles>* sums,
                                             const std::uint8_t* table, int lane,
                                             const RowPair<P::has_offset>* affine,
                                             const std::uint32_t own[2], float to[tiles][2]) {
  constexpr int parts = 32 / P::group;  // scale groups of a group of 32 columns
  const int g = lane >> 2, t = lane & 3;
#pragma unroll
  for (int j = 0; j < piece_groups; ++j) {
    if (P::block_groups < 8 && j >= n) continue;
    std::uint32_t a[4];
    P::quants(piece, n, j, lane, a, table);
#pragma unroll
    for (int part = 0; part < parts; ++part) {
      const int group = j * parts + part;
      const RowPair<P::has_offset> rows = affine[group * 8 + g];
      TokenSums<tiles> sum;
      if constexpr (P::has_offset) sum = sums[group * 4 + t];
#pragma unroll
      for (int tile = 0; tile < tiles; ++tile) {
        int c[4] = {0, 0, 0, 0};
        if constexpr (parts == 1) {
          multiply_int8<P::is_signed>(c, a, x[j][tile].x, x[j][tile].y);
        } else {
          multiply_int8<P::is_signed>(c, a, x[j][tile].x * own[part], x[j][tile].y * own[part]);
        }
        to[tile][0] += rows.scale[0] * static_cast<float>(c[0] * 256 + c[1]);
        to[tile][1] += rows.scale[1] * static_cast<float>(c[2] * 256 + c[3]);
        if constexpr (P::has_offset) {
          to[tile][0] += rows.offset[0] * sum.of_tile[tile];
          to[tile][1] += rows.offset[1] * sum.of_tile[tile];
        }
      }
    }
  }
}

template <class P, int tiles>
__global__ void __launch_bounds__(32 * few_warps, 1)
    stream_few_kernel(const __grid_constant__ StripList list, int strips,
                      const __grid_constant__ FewLayout layout) {
#if defined(QL_TENSOR_STEPS)
  using F = typename P::Format;
  constexpr int padded_tokens = 4 * tiles;
  constexpr int tile_floats = strip_rows * padded_tokens;
  constexpr int warp_sums = piece_scale_groups<P> * padded_tokens;
  extern __shared__ __align__(128) std::uint8_t shared[];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int g = lane >> 2, t = lane & 3;
  const int groups = list.columns / 32;
  const int pieces = (groups + piece_groups - 1) / piece_groups;
  const std::int64_t strip_bytes =
      static_cast<std::int64_t>(list.columns / F::elements * F::bytes) * strip_rows;
  const int slot = warp % layout.slice_pieces, abreast = layout.strips_abreast;
  const int unit = list.epilogue == MatmulEpilogue::gate_up ? 2 : 1;
  const std::int64_t units = static_cast<std::int64_t>(strips / unit) * layout.slices;
  int next = static_cast<int>(units * blockIdx.x / gridDim.x) * unit;
  const int end = static_cast<int>(units * (blockIdx.x + 1) / gridDim.x) * unit;

  auto* partial = reinterpret_cast<float*>(shared + layout.partial);
  auto* affine = reinterpret_cast<RowPair<P::has_offset>*>(shared + layout.affine +
                                                           warp * few_affine_bytes<P>);
  auto* sums = reinterpret_cast<TokenSums<tiles>*>(shared + layout.sums) + warp * warp_sums / tiles;
  const std::uint8_t* table = shared;
  PieceRing ring(shared + layout.ring + warp * layout.stages * P::piece_bytes,
                 reinterpret_cast<std::uint64_t*>(shared + layout.barriers) + warp * layout.stages,
                 layout.stages, P::piece_bytes);
  load_table<P>(shared);
  // Which of a group's two scale groups this lane's weights are in.
  std::uint32_t own[2] = {t < 2, t >= 2};
  asm volatile("" : "+r"(own[0]), "+r"(own[1]));
  bool x_ready = false;
  while (next < end) {
    // The units of one slice: strips first .. last - 1, of which the warp has every abreast-th.
    const int slice = next / strips;
    const int first = next - slice * strips;
    const int last = min(strips, first + end - next);
    next += last - first;
    const int p = slice * layout.slice_pieces + slot;
    const int own_first = p < pieces ? first + warp / layout.slice_pieces : last;
    const int n = p + 1 == pieces ? groups - p * piece_groups : piece_groups;
    int fetch = own_first;
    const auto fetch_next = [&] {
      if (fetch >= last) return ring.fetch_nothing();
      const Strip strip = find_strip(list, fetch);
      ring.fetch(list.planes[strip.weight] + strip.index * strip_bytes + p * P::piece_bytes,
                 n * (P::piece_bytes / piece_groups));
      fetch += abreast;
    };
    fetch_next();  // the reading of x does not queue behind the whole ring
#if defined(QL_BULK_COPY)
    if (!x_ready) {
      cudaGridDependencySynchronize();
      cudaTriggerProgrammaticLaunchCompletion();
    }
#endif
    x_ready = true;
    uint2 x[piece_groups][tiles];
    float step[tiles];
    if (own_first < last) {
#pragma unroll
      for (int j = 0; j < piece_groups; ++j) {
#pragma unroll
        for (int tile = 0; tile < tiles; ++tile) {
          x[j][tile] = *reinterpret_cast<const uint2*>(
              layout.x.values +
              (static_cast<std::int64_t>(p * piece_groups + j) * tiles + tile) * 256 + lane * 8);
        }
      }
#pragma unroll
      for (int tile = 0; tile < tiles; ++tile) {
        step[tile] = layout.x.steps[(p * tiles + tile) * 4 + t];
      }
      if constexpr (P::has_offset) {
        // [group][tile][token] there, [group][token][tile] here.
        const float* from = layout.x.sums + p * warp_sums;
        __syncwarp();
        for (int i = lane; i < warp_sums; i += 32) {
          sums[i / padded_tokens * 4 + i % 4].of_tile[i / 4 % tiles] = from[i];
        }
        __syncwarp();
      }
    }
    for (int i = 1; i < layout.stages; ++i) fetch_next();
    __syncthreads();

    int strip = own_first;
    for (int batch = first; batch < last; batch += layout.batch_strips) {
      const int batch_end = min(batch + layout.batch_strips, last);
      for (; strip < batch_end; strip += abreast) {
        const std::uint8_t* piece = ring.wait();
        stage_row_pairs<P>(piece, n, lane, affine);
        float of_piece[tiles][2] = {};
        multiply_few<P, tiles>(piece, n, x, sums, table, lane, affine, own, of_piece);
        ring.release();
        fetch_next();
        float* to = partial + ((strip - batch) * layout.slice_pieces + slot) * tile_floats;
#pragma unroll
        for (int tile = 0; tile < tiles; ++tile) {
          to[g * padded_tokens + tile * 4 + t] = step[tile] * of_piece[tile][0];
          to[(g + 8) * padded_tokens + tile * 4 + t] = step[tile] * of_piece[tile][1];
        }
      }
      __syncthreads();
      // Element e of a strip: token e / 16, row e % 16, so that neighbours write neighbouring rows.
      const int slots = min(layout.slice_pieces, pieces - slice * layout.slice_pieces);
      const auto total = [&](int strip, int e) {
        const float* from = partial + strip * layout.slice_pieces * tile_floats +
                            (e % strip_rows) * padded_tokens + e / strip_rows;
        float sum = 0;
        for (int s = 0; s < slots; ++s) sum += from[s * tile_floats];
        return sum;
      };
      const int per_strip = strip_rows * list.tokens;
      for (int i = threadIdx.x; i < (batch_end - batch) / unit * per_strip; i += blockDim.x) {
        const int s = i / per_strip, e = i % per_strip;
        if (layout.slices > 1) {
          for (int u = 0; u < unit; ++u) {
            const int strip = unit * s + u;
            layout.slice_sums[(static_cast<std::int64_t>(slice) * strips + batch + strip) *
                                  per_strip +
                              e] = total(strip, e);
          }
        } else if (unit == 2) {
          store_gated(list, (batch >> 1) + s, e % strip_rows, e / strip_rows, total(2 * s, e),
                      total(2 * s + 1, e));
        } else {
          store_sum(list, find_strip(list, batch + s), e % strip_rows, e / strip_rows, total(s, e));
        }
      }
      __syncthreads();
    }
    if (layout.slices == 1) continue;
    // The block that completes a strip sums its slices.
    const int count = (last - first) / unit;
    const int per_strip = strip_rows * list.tokens;
    __threadfence();
    __syncthreads();
    auto* complete = reinterpret_cast<std::uint8_t*>(partial);
    for (int s = threadIdx.x; s < count; s += blockDim.x) {
      const unsigned before = atomicAdd(layout.arrivals + first + unit * s, 1u);
      complete[s] = before + 1 == static_cast<unsigned>(layout.slices);
      if (complete[s]) layout.arrivals[first + unit * s] = 0;
    }
    __syncthreads();
    __threadfence();
    const auto sum_slices = [&](int strip, int e) {
      float sum = 0;
      for (int i = 0; i < layout.slices; ++i) {
        sum += __ldcg(layout.slice_sums +
                      (static_cast<std::int64_t>(i) * strips + strip) * per_strip + e);
      }
      return sum;
    };
    for (int i = threadIdx.x; i < count * per_strip; i += blockDim.x) {
      const int s = i / per_strip, e = i % per_strip, strip = first + unit * s;
      if (!complete[s]) continue;
      if (unit == 2) {
        store_gated(list, strip >> 1, e % strip_rows, e / strip_rows, sum_slices(strip, e),
                    sum_slices(strip + 1, e));
      } else {
        store_sum(list, find_strip(list, strip), e % strip_rows, e / strip_rows,
                  sum_slices(strip, e));
      }
    }
    __syncthreads();
  }
#endif
}

// A kernel each for up to 4 and up to 8 tokens.
inline int few_tiles(int tokens) { return tokens <= 4 ? 1 : 2; }

inline int few_slices(int columns) {
  const int pieces = (columns + piece_columns - 1) / piece_columns;
  return (pieces + few_warps - 1) / few_warps;
}

struct FewWorkspace {
  std::size_t values, steps, x_sums, sums, arrivals, bytes;
};

inline FewWorkspace few_workspace(int tokens, int columns, int strips) {
  FewWorkspace w{};
  const auto take = [&](std::size_t bytes) {
    const std::size_t start = w.bytes;
    w.bytes += (bytes + 255) / 256 * 256;
    return start;
  };
  const auto pieces = static_cast<std::size_t>((columns + piece_columns - 1) / piece_columns);
  const auto tiles = static_cast<std::size_t>(few_tiles(tokens));
  const auto slices = static_cast<std::size_t>(few_slices(columns));
  // First and of one size, so that it stays zero whatever the shapes of the calls that share the
  // workspace.
  w.arrivals = take(few_most_strips * 4);
  w.values = take(pieces * tiles * 2048);
  w.steps = take(pieces * tiles * 16);
  w.x_sums = take(pieces * tiles * (piece_columns / 16) * 16);
  w.sums =
      slices > 1 ? take(slices * static_cast<std::size_t>(strips * strip_rows * tokens) * 4) : 0;
  return w;
}

template <class P>
MatmulStatus launch_stream_few(const StripList& list, const float* x, int strips, int processors,
                               int shared_limit, bool overlap, void* workspace,
                               cudaStream_t stream) {
  const int tiles = few_tiles(list.tokens), padded = 4 * tiles;
  const FewWorkspace w = few_workspace(list.tokens, list.columns, strips);
  auto* base = static_cast<std::uint8_t*>(workspace);

  FewLayout layout{};
  layout.x = {base + w.values, reinterpret_cast<float*>(base + w.steps),
              P::has_offset ? reinterpret_cast<float*>(base + w.x_sums) : nullptr};
  const int pieces = (list.columns + piece_columns - 1) / piece_columns;
  layout.slices = few_slices(list.columns);
  layout.slice_pieces = (pieces + layout.slices - 1) / layout.slices;
  layout.slice_sums = reinterpret_cast<float*>(base + w.sums);
  layout.arrivals = reinterpret_cast<unsigned*>(base + w.arrivals);
  for (layout.strips_abreast = few_warps / layout.slice_pieces; layout.strips_abreast > 0;
       --layout.strips_abreast) {
    const int warps = layout.slice_pieces * layout.strips_abreast;
    int at = 0;
    const auto take = [&](int bytes) {
      const int start = at;
      at += (bytes + 127) / 128 * 128;
      return start;
    };
    const int strip_bytes = layout.slice_pieces * strip_rows * padded * 4;
    layout.batch_strips = std::clamp(49152 / strip_bytes & ~1, 2, 32);
    take(P::table_bytes);
    layout.sums = P::has_offset ? take(warps * piece_scale_groups<P> * padded * 4) : 0;
    layout.partial = take(layout.batch_strips * strip_bytes);
    layout.affine = take(warps * few_affine_bytes<P>);
    layout.barriers = take(warps * 8 * 8);
    layout.ring = at;
    layout.stages = (shared_limit - 128 - at) / (warps * P::piece_bytes);
    if (layout.stages > 4) layout.stages = 4;
    layout.bytes = at + layout.stages * warps * P::piece_bytes;
    if (layout.stages >= 2) break;
  }
  const int warps = layout.slice_pieces * layout.strips_abreast;
  if (warps == 0 || (layout.slices > 1 && strips > few_most_strips)) return MatmulStatus::bad_shape;
  prepare_fixed_point(x, list.columns, list.tokens, tiles, P::group, layout.x, overlap, stream);
  const auto kernel = tiles == 1 ? stream_few_kernel<P, 1> : stream_few_kernel<P, 2>;
  // The same value in every call: threads with other shapes set it too.
  if (cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_limit) !=
      cudaSuccess) {
    return MatmulStatus::cuda_error;
  }
  const int units = strips * layout.slices / (list.epilogue == MatmulEpilogue::gate_up ? 2 : 1);
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(units < processors ? units : processors));
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
