// 2 to 16 tokens: the weights are streamed once, widened to halves in registers and multiplied by
// m16n8k16 steps that sum in float32. A unit of work is a strip times a slice of the columns, whose
// x stands in shared memory; a block's units are neighbours of one slice. Where there are several
// slices the partial sums go to the workspace, and the last block of a strip adds them in the order
// of the slices.
#pragma once

#include "matmul/activations.cuh"
#include "matmul/ring.cuh"
#include "matmul/strips.cuh"

namespace quantloom::kernels {

constexpr int few_tokens = 16;
constexpr int few_slice_bytes = 65536;  // of x in shared memory
constexpr int few_most_strips = 32768;  // that can be summed over slices

struct FewLayout {
  int x;
  int partial;  // [batch_units][slice_pieces or warps][16][padded tokens] float
  int affine;   // per warp: [16][scale groups of a piece] scale and offset as pairs of halves
  int barriers;
  int table;
  int ring;
  int bytes;
  int stages;
  int slices;
  int slice_pieces;
  int batch_units;
  float* sums;         // [slices][tokens][strips * 16]
  unsigned* arrivals;  // [strips], zero before and after
};

__device__ inline void multiply_half(float c[4], const std::uint32_t a[4], std::uint32_t b0,
                                     std::uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Four bytes (biased by 128 where signed) to two pairs of halves, exactly: 1024 + byte, less the
// bias.
template <bool is_signed>
__device__ inline void widen_bytes(std::uint32_t word, __half2& low, __half2& high) {
  if constexpr (is_signed) word ^= 0x80808080u;
  const std::uint32_t a = __byte_perm(word, 0x64646464u, 0x4140);
  const std::uint32_t b = __byte_perm(word, 0x64646464u, 0x4342);
  const __half2 bias = __half2half2(__ushort_as_half(is_signed ? 0x6480 : 0x6400));
  low = __hsub2(*reinterpret_cast<const __half2*>(&a), bias);
  high = __hsub2(*reinterpret_cast<const __half2*>(&b), bias);
}

__device__ inline std::uint32_t half_bits(__half2 v) {
  return *reinterpret_cast<const std::uint32_t*>(&v);
}

// Scale and offset of one row and group, each twice.
template <class P>
struct AffinePair {
  __half2 scale;
  __half2 offset;
  __device__ std::uint32_t apply(__half2 v) const {
    return half_bits(P::has_offset ? __hfma2(v, scale, offset) : __hmul2(v, scale));
  }
};

// The four registers of int8 as the A operands of two m16n8k16 steps.
template <class P>
__device__ inline void widen_fragment(const std::uint32_t a[4], const AffinePair<P>& g,
                                      const AffinePair<P>& g8, std::uint32_t first[4],
                                      std::uint32_t second[4]) {
  __half2 low, high;
  widen_bytes<P::is_signed>(a[0], low, high);
  first[0] = g.apply(low), first[2] = g.apply(high);
  widen_bytes<P::is_signed>(a[1], low, high);
  first[1] = g8.apply(low), first[3] = g8.apply(high);
  widen_bytes<P::is_signed>(a[2], low, high);
  second[0] = g.apply(low), second[2] = g.apply(high);
  widen_bytes<P::is_signed>(a[3], low, high);
  second[1] = g8.apply(low), second[3] = g8.apply(high);
}

template <class P>
constexpr int piece_scales = piece_columns / P::group;  // per row
template <class P>
constexpr int affine_words = P::has_offset ? 2 : 1;
// Rows are one word apart more than they hold, so that the eight rows of a read fall into different
// banks.
template <class P>
constexpr int affine_row_words = (piece_scales<P> + 1) * affine_words<P>;

// Every lane decodes the scales of its two rows' groups t, t + 4, ... for the warp.
template <class P>
__device__ inline void stage_affine(const std::uint8_t* piece, int n, int lane, float scale,
                                    std::uint32_t* to) {
  const int g = lane >> 2, t = lane & 3;
#pragma unroll
  for (int quad = 0; quad < piece_scales<P> / 4; ++quad) {
    const int group = 4 * quad + t;
    if (P::block_groups < 8 && group * P::group >= n * 32) break;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = g + 8 * half;
      const formats::Affine a = P::affine(piece, n, row, quad, t);
      std::uint32_t* at = to + row * affine_row_words<P> + group * affine_words<P>;
      at[0] = half_bits(__half2half2(__float2half_rn(a.scale * scale)));
      if constexpr (P::has_offset) {
        at[1] = half_bits(__half2half2(__float2half_rn(a.offset * scale)));
      }
    }
  }
  __syncwarp();
}

template <class P>
__device__ inline AffinePair<P> read_affine(const std::uint32_t* from, int row, int group) {
  const std::uint32_t* at = from + row * affine_row_words<P> + group * affine_words<P>;
  AffinePair<P> pair;
  if constexpr (P::has_offset) {
    const uint2 w = *reinterpret_cast<const uint2*>(at);
    pair.scale = *reinterpret_cast<const __half2*>(&w.x);
    pair.offset = *reinterpret_cast<const __half2*>(&w.y);
  } else {
    pair.scale = *reinterpret_cast<const __half2*>(at);
  }
  return pair;
}

template <class P, int tiles>
__global__ void __launch_bounds__(512, 1)
    stream_few_kernel(const __grid_constant__ StripList list, const __half* x,
                      const float* x_scales, int strips, const __grid_constant__ FewLayout layout) {
#if defined(QL_TENSOR_STEPS)
  using F = typename P::Format;
  constexpr int padded_tokens = 8 * tiles;
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

  auto* slice_x = reinterpret_cast<uint4*>(shared + layout.x);
  auto* partial = reinterpret_cast<float*>(shared + layout.partial);
  auto* affine = reinterpret_cast<std::uint32_t*>(shared + layout.affine) +
                 warp * strip_rows * affine_row_words<P>;
  const std::uint8_t* table = shared + layout.table;
  PieceRing ring(shared + layout.ring + warp * layout.stages * P::piece_bytes,
                 reinterpret_cast<std::uint64_t*>(shared + layout.barriers) + warp * layout.stages,
                 layout.stages, P::piece_bytes);
  P::load_table(shared + layout.table);
  const int tail_groups = groups - (pieces - 1) * piece_groups;
  const auto groups_of = [&](int piece) {
    return piece + 1 == pieces ? tail_groups : piece_groups;
  };
  bool x_ready = false;
  float weight_scales[matmul_most_weights];
#pragma unroll
  for (int i = 0; i < matmul_most_weights; ++i) {
    weight_scales[i] = list.largest[i] == nullptr ? 1.0f : power_of_two_scale(*list.largest[i]);
  }
  const auto scale_of = [&](int weight) {
    return weight == 0 ? weight_scales[0] : weight == 1 ? weight_scales[1] : weight_scales[2];
  };

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
    for (int i = 0; i < layout.stages; ++i) {
      if (fetch.done()) ring.fetch_nothing();
      fetch_next();
    }
#if defined(QL_BULK_COPY)
    if (!x_ready) {
      cudaGridDependencySynchronize();
      cudaTriggerProgrammaticLaunchCompletion();
    }
#endif
    x_ready = true;
    {
      const auto* from = reinterpret_cast<const uint4*>(x) +
                         static_cast<std::int64_t>(first_piece) * piece_groups * padded_tokens * 4;
      const int count = slice_pieces * piece_groups * padded_tokens * 4;
#pragma unroll 8
      for (int i = threadIdx.x; i < count; i += blockDim.x) slice_x[i] = from[i];
    }
    const int slots = min(slice_pieces, warps);
    const bool many = slice_pieces > warps;  // a warp then takes several pieces of a strip
    __syncthreads();

    for (int batch = first; batch < last; batch += layout.batch_units) {
      const int batch_end = min(batch + layout.batch_units, last);
      float c[tiles][2][4] = {};  // the two halves of a group apart: shorter chains
      while (!use.done() && use.strip() < batch_end) {
        const int strip = use.strip(), p = use.slot();
        const int n = groups_of(first_piece + p);
        const std::uint8_t* piece = ring.wait();
        stage_affine<P>(piece, n, lane, scale_of(find_strip(list, strip).weight), affine);
        const uint4* x_piece = slice_x + p * piece_groups * padded_tokens * 4;
#pragma unroll
        for (int j = 0; j < piece_groups; ++j) {
          if (P::block_groups < 8 && j >= n) break;
          std::uint32_t a[4], a_first[4], a_second[4];
          P::quants(piece, n, j, lane, a, table);
          const int scale_group = P::group == 32 ? j : 2 * j + (t >> 1);
          widen_fragment<P>(a, read_affine<P>(affine, g, scale_group),
                            read_affine<P>(affine, g + 8, scale_group), a_first, a_second);
#pragma unroll
          for (int tile = 0; tile < tiles; ++tile) {
            const uint4 b = x_piece[(j * padded_tokens + tile * 8) * 4 + lane];
            multiply_half(c[tile][0], a_first, b.x, b.y);
            multiply_half(c[tile][1], a_second, b.z, b.w);
          }
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
            const int column = tile * 8 + 2 * t;
            *reinterpret_cast<float2*>(to + g * padded_tokens + column) =
                make_float2(c[tile][0][0] + c[tile][1][0], c[tile][0][1] + c[tile][1][1]);
            *reinterpret_cast<float2*>(to + (g + 8) * padded_tokens + column) =
                make_float2(c[tile][0][2] + c[tile][1][2], c[tile][0][3] + c[tile][1][3]);
#pragma unroll
            for (int i = 0; i < 4; ++i) c[tile][0][i] = c[tile][1][i] = 0;
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
        return sum * (x_scales[e / strip_rows] / scale_of(find_strip(list, batch + strip).weight));
      };
      const int per_strip = strip_rows * list.tokens;
      for (int i = threadIdx.x; i < (batch_end - batch) / unit * per_strip; i += blockDim.x) {
        const int s = i / per_strip, e = i % per_strip;
        if (layout.slices > 1) {
          for (int u = 0; u < unit; ++u) {
            const int strip = unit * s + u;
            layout
                .sums[(static_cast<std::int64_t>(slice) * strips + batch + strip) * per_strip + e] =
                total(strip, e);
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
        sum +=
            __ldcg(layout.sums + (static_cast<std::int64_t>(i) * strips + strip) * per_strip + e);
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

inline int few_padded_tokens(int tokens) { return tokens <= 8 ? 8 : 16; }

// Pieces of x that a block holds at a time.
inline int few_slice_pieces(int tokens) {
  return few_slice_bytes / (piece_columns * 2 * few_padded_tokens(tokens));
}

struct FewWorkspace {
  std::size_t x, x_scales, sums, arrivals, bytes;
};

inline FewWorkspace few_workspace(int tokens, int columns, int strips) {
  FewWorkspace w{};
  const auto take = [&](std::size_t bytes) {
    const std::size_t start = w.bytes;
    w.bytes += (bytes + 255) / 256 * 256;
    return start;
  };
  const int pieces = (columns + piece_columns - 1) / piece_columns;
  const int slices = (pieces + few_slice_pieces(tokens) - 1) / few_slice_pieces(tokens);
  // First and of one size, so that it stays zero whatever the shapes of the calls that share the
  // workspace.
  w.arrivals = take(few_most_strips * 4);
  w.x = take(static_cast<std::size_t>(pieces) * piece_columns * few_padded_tokens(tokens) * 2);
  w.x_scales = take(few_tokens * 4);
  w.sums =
      slices > 1 ? take(static_cast<std::size_t>(slices) * strips * strip_rows * tokens * 4) : 0;
  return w;
}

template <class P>
MatmulStatus launch_stream_few(const StripList& list, const float* x, int strips, int processors,
                               int shared_limit, bool overlap, void* workspace,
                               cudaStream_t stream) {
  const int padded = few_padded_tokens(list.tokens);
  const FewWorkspace w = few_workspace(list.tokens, list.columns, strips);
  auto* base = static_cast<std::uint8_t*>(workspace);
  auto* halves = reinterpret_cast<__half*>(base + w.x);
  auto* x_scales = reinterpret_cast<float*>(base + w.x_scales);

  FewLayout layout{};
  const int pieces = (list.columns + piece_columns - 1) / piece_columns;
  layout.slice_pieces = few_slice_pieces(list.tokens);
  layout.slices = (pieces + layout.slice_pieces - 1) / layout.slice_pieces;
  layout.slice_pieces = (pieces + layout.slices - 1) / layout.slices;
  layout.sums = reinterpret_cast<float*>(base + w.sums);
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
    layout.x = take(layout.slice_pieces * piece_columns * padded * 2);
    layout.partial = take(layout.batch_units * slots * strip_rows * padded * 4);
    layout.affine = take(warps * strip_rows * affine_row_words<P> * 4);
    layout.barriers = take(warps * 8 * 8);
    layout.table = take(P::table_bytes);
    layout.ring = at;
    layout.stages = (shared_limit - 128 - at) / (warps * P::piece_bytes);
    if (layout.stages > 4) layout.stages = 4;
    layout.bytes = at + layout.stages * warps * P::piece_bytes;
    if (layout.stages >= 2) break;
  }
  if (warps < 4 || (layout.slices > 1 && strips > few_most_strips)) return MatmulStatus::bad_shape;
  prepare_halves(x, list.columns, list.tokens, padded, halves, x_scales, overlap, stream);
  const auto kernel = padded == 8 ? stream_few_kernel<P, 1> : stream_few_kernel<P, 2>;
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
  const cudaError_t error =
      cudaLaunchKernelEx(&config, kernel, list, static_cast<const __half*>(halves),
                         static_cast<const float*>(x_scales), strips, layout);
  return error == cudaSuccess ? MatmulStatus::done : MatmulStatus::cuda_error;
}

}  // namespace quantloom::kernels
