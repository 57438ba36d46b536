// 2 to 8 tokens: the weights are streamed once, int8 tensor-core steps in exact integers. A unit of
// work is a strip times a slice of the columns, whose x stands in shared memory; a block's units
// are neighbours of one slice. Where there are several slices the partial sums go to the workspace,
// and the last block of a strip adds them in the order of the slices.
//
// x is 16-bit fixed point with a scale per token and 256 columns, split into two int8 planes: the
// eight columns of a step are the planes of four tokens (activations.cuh).
#pragma once

#include "matmul/activations.cuh"
#include "matmul/one_token.cuh"
#include "matmul/ring.cuh"
#include "matmul/strips.cuh"

namespace quantloom::kernels {

constexpr int few_tokens = 8;
constexpr int few_slice_bytes = 81920;  // of x in shared memory
constexpr int few_most_strips = 32768;  // that can be summed over slices

struct FewLayout {
  int values, sums, steps;  // of x
  int partial;              // [batch_units][slice_pieces or warps][16][padded tokens] float
  int affine;               // per warp: [scale groups of a piece][8] of RowPair
  int barriers;
  int ring;
  int bytes;
  int stages;
  int slices;
  int slice_pieces;
  int batch_units;
  FixedPoint x;        // in the workspace
  float* slice_sums;   // [slices][tokens][strips * 16]
  unsigned* arrivals;  // [strips], zero before and after
};

// Scales and offsets of rows g and g + 8.
template <bool has_offset>
struct RowPair {
  float scale[2];
};
template <>
struct RowPair<true> {
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

// Adds a piece's products, without the steps of x, for rows g and g + 8 and tokens t, t + 4, ...
template <class P, int tiles>
__device__ __forceinline__ void multiply_few(const std::uint8_t* piece, int n,
                                             const std::uint8_t* values, const float* sums,
                                             const std::uint8_t* table, int lane,
                                             const RowPair<P::has_offset>* affine,
                                             const std::uint32_t own[2], float to[tiles][2]) {
  constexpr int parts = 32 / P::group;  // scale groups of a group of 32 columns
  const int g = lane >> 2, t = lane & 3;
#pragma unroll
  for (int j = 0; j < piece_groups; ++j) {
    if (P::block_groups < 8 && j >= n) break;
    std::uint32_t a[4];
    P::quants(piece, n, j, lane, a, table);
    uint2 x[tiles];
#pragma unroll
    for (int tile = 0; tile < tiles; ++tile) {
      x[tile] = *reinterpret_cast<const uint2*>(values + (j * tiles + tile) * 256 + lane * 8);
    }
#pragma unroll
    for (int part = 0; part < parts; ++part) {
      const int group = j * parts + part;
      const RowPair<P::has_offset> rows = affine[group * 8 + g];
#pragma unroll
      for (int tile = 0; tile < tiles; ++tile) {
        int c[4] = {0, 0, 0, 0};
        if constexpr (parts == 1) {
          multiply_int8<P::is_signed>(c, a, x[tile].x, x[tile].y);
        } else {
          multiply_int8<P::is_signed>(c, a, x[tile].x * own[part], x[tile].y * own[part]);
        }
        to[tile][0] += rows.scale[0] * static_cast<float>(c[0] * 256 + c[1]);
        to[tile][1] += rows.scale[1] * static_cast<float>(c[2] * 256 + c[3]);
        if constexpr (P::has_offset) {
          const float sum = sums[(group * tiles + tile) * 4 + t];
          to[tile][0] += rows.offset[0] * sum, to[tile][1] += rows.offset[1] * sum;
        }
      }
    }
  }
}

template <class P, int tiles>
__global__ void __launch_bounds__(512, 1)
    stream_few_kernel(const __grid_constant__ StripList list, int strips,
                      const __grid_constant__ FewLayout layout) {
#if defined(QL_TENSOR_STEPS)
  using F = typename P::Format;
  constexpr int padded_tokens = 4 * tiles;
  constexpr int tile_floats = strip_rows * padded_tokens;
  extern __shared__ __align__(128) std::uint8_t shared[];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const int g = lane >> 2, t = lane & 3;
  const int groups = list.columns / 32;
  const int pieces = (groups + piece_groups - 1) / piece_groups;
  const int row_bytes = list.columns / F::elements * F::bytes;
  const int unit = list.epilogue == MatmulEpilogue::gate_up ? 2 : 1;
  const std::int64_t units = static_cast<std::int64_t>(strips / unit) * layout.slices;
  int next = static_cast<int>(units * blockIdx.x / gridDim.x) * unit;
  const int end = static_cast<int>(units * (blockIdx.x + 1) / gridDim.x) * unit;

  auto* partial = reinterpret_cast<float*>(shared + layout.partial);
  auto* affine = reinterpret_cast<RowPair<P::has_offset>*>(shared + layout.affine +
                                                           warp * few_affine_bytes<P>);
  const std::uint8_t* table = shared;
  PieceRing ring(shared + layout.ring + warp * layout.stages * P::piece_bytes,
                 reinterpret_cast<std::uint64_t*>(shared + layout.barriers) + warp * layout.stages,
                 layout.stages, P::piece_bytes);
  load_table<P>(shared);
  // Which of a group's two scale groups this lane's weights are in.
  std::uint32_t own[2] = {t < 2, t >= 2};
  asm volatile("" : "+r"(own[0]), "+r"(own[1]));
  const int tail_groups = groups - (pieces - 1) * piece_groups;
  const auto groups_of = [&](int piece) {
    return piece + 1 == pieces ? tail_groups : piece_groups;
  };
  bool x_ready = false;
  while (next < end) {
    // The units of one slice: strips first .. last - 1.
    const int slice = next / strips;
    const int first = next - slice * strips;
    const int last = min(strips, first + end - next);
    next += last - first;
    const int first_piece = slice * layout.slice_pieces;
    const int slice_pieces = min(layout.slice_pieces, pieces - first_piece);
    SlotWalk fetch(list, slice_pieces, P::piece_bytes, row_bytes * strip_rows,
                   first_piece * P::piece_bytes, first, last, warp, warps);
    SlotWalk use = fetch;
    const auto fetch_next = [&] {
      if (fetch.done()) return;
      ring.fetch(fetch.at(),
                 groups_of(first_piece + fetch.slot()) * (P::piece_bytes / piece_groups));
      fetch.next();
    };
    const auto fetch_some = [&](int first_stage, int end_stage) {
      for (int i = first_stage; i < end_stage; ++i) {
        if (fetch.done()) ring.fetch_nothing();
        fetch_next();
      }
    };
    fetch_some(0, 1);  // the copy of x does not queue behind the whole ring
#if defined(QL_BULK_COPY)
    if (!x_ready) {
      cudaGridDependencySynchronize();
      cudaTriggerProgrammaticLaunchCompletion();
    }
#endif
    x_ready = true;
    const auto copy = [&](const void* from, int to, int bytes) {
#pragma unroll 8
      for (int i = threadIdx.x; i < bytes / 16; i += blockDim.x) {
        reinterpret_cast<uint4*>(shared + to)[i] = reinterpret_cast<const uint4*>(from)[i];
      }
    };
    constexpr int piece_sums = piece_scale_groups<P> * padded_tokens;
    copy(layout.x.values + static_cast<std::int64_t>(first_piece) * tiles * 2048, layout.values,
         slice_pieces * tiles * 2048);
    copy(layout.x.steps + first_piece * padded_tokens, layout.steps,
         slice_pieces * padded_tokens * 4);
    if constexpr (P::has_offset) {
      copy(layout.x.sums + static_cast<std::int64_t>(first_piece) * piece_sums, layout.sums,
           slice_pieces * piece_sums * 4);
    }
    fetch_some(1, layout.stages);
    const int slots = min(slice_pieces, warps);
    const bool many = slice_pieces > warps;  // a warp then takes several pieces of a strip
    __syncthreads();

    for (int batch = first; batch < last; batch += layout.batch_units) {
      const int batch_end = min(batch + layout.batch_units, last);
      float sum[tiles][2] = {};
      while (!use.done() && use.strip() < batch_end) {
        const int strip = use.strip(), p = use.slot();
        const int n = groups_of(first_piece + p);
        const std::uint8_t* piece = ring.wait();
        stage_row_pairs<P>(piece, n, lane, affine);
        float of_piece[tiles][2] = {};
        multiply_few<P, tiles>(
            piece, n, shared + layout.values + p * tiles * 2048,
            reinterpret_cast<const float*>(shared + layout.sums) + p * piece_sums, table, lane,
            affine, own, of_piece);
        const float* steps =
            reinterpret_cast<const float*>(shared + layout.steps) + p * padded_tokens;
#pragma unroll
        for (int tile = 0; tile < tiles; ++tile) {
          const float step = steps[tile * 4 + t];
          sum[tile][0] += step * of_piece[tile][0], sum[tile][1] += step * of_piece[tile][1];
        }
        ring.release();
        if (fetch.done()) ring.fetch_nothing();
        fetch_next();
        use.next();
        if (use.done() || use.strip() != strip) {
          const int slot = many ? warp : p;
          float* to = partial + ((strip - batch) * slots + slot) * tile_floats;
#pragma unroll
          for (int tile = 0; tile < tiles; ++tile) {
            to[g * padded_tokens + tile * 4 + t] = sum[tile][0];
            to[(g + 8) * padded_tokens + tile * 4 + t] = sum[tile][1];
            sum[tile][0] = sum[tile][1] = 0;
          }
        }
      }
      __syncthreads();
      // Element e of a strip: token e / 16, row e % 16, so that neighbours write neighbouring rows.
      const auto total = [&](int strip, int e) {
        const float* from = partial + strip * slots * tile_floats +
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

// Pieces of x that a block holds at a time.
inline int few_slice_pieces(int tokens) {
  return few_slice_bytes / (few_tiles(tokens) * (2048 + (piece_columns / 16 + 1) * 16));
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
  const std::size_t most = static_cast<std::size_t>(few_slice_pieces(tokens));
  const std::size_t slices = (pieces + most - 1) / most;
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
  layout.slice_pieces = few_slice_pieces(list.tokens);
  layout.slices = (pieces + layout.slice_pieces - 1) / layout.slice_pieces;
  layout.slice_pieces = (pieces + layout.slices - 1) / layout.slices;
  layout.slice_sums = reinterpret_cast<float*>(base + w.sums);
  layout.arrivals = reinterpret_cast<unsigned*>(base + w.arrivals);
  int warps = 16;
  for (; warps >= 4; warps /= 2) {
    int at = 0;
    const auto take = [&](int bytes) {
      const int start = at;
      at += (bytes + 127) / 128 * 128;
      return start;
    };
    const int slots = layout.slice_pieces < warps ? layout.slice_pieces : warps;
    layout.batch_units = 32768 / (slots * strip_rows * padded * 4);
    layout.batch_units = layout.batch_units < 2 ? 2 : layout.batch_units & ~1;
    if (layout.batch_units > 16) layout.batch_units = 16;
    take(P::table_bytes);
    layout.values = take(layout.slice_pieces * tiles * 2048);
    layout.steps = take(layout.slice_pieces * padded * 4);
    layout.sums =
        P::has_offset ? take(layout.slice_pieces * piece_scale_groups<P> * padded * 4) : 0;
    layout.partial = take(layout.batch_units * slots * strip_rows * padded * 4);
    layout.affine = take(warps * few_affine_bytes<P>);
    layout.barriers = take(warps * 8 * 8);
    layout.ring = at;
    layout.stages = (shared_limit - 128 - at) / (warps * P::piece_bytes);
    if (layout.stages > 4) layout.stages = 4;
    layout.bytes = at + layout.stages * warps * P::piece_bytes;
    if (layout.stages >= 2) break;
  }
  if (warps < 4 || (layout.slices > 1 && strips > few_most_strips)) return MatmulStatus::bad_shape;
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
