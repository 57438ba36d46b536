// The dequantization kernels, one per format and output type. A thread block moves its blocks to
// shared memory with 16-byte loads (many formats are only 2-byte aligned in global memory), one
// aligned slot per block, decodes from there and stores whole sectors. Thread blocks are many and
// small and start in order: resident ones that walk over the tensor drift apart, and writes far
// from each other run up to 12% slower.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "formats/decode.h"
#include "formats/format.h"

namespace quantloom::kernels {

// Bytes a slot is aligned to: what the size of a block gives for nothing, and 8 where padding lets
// the compiler join byte loads of quants that start at a multiple of 8 inside the block.
template <class F>
constexpr int slot_alignment() {
  int natural = 16;
  while (F::bytes % natural != 0) natural /= 2;
  if constexpr (requires { F::Block::low_bits; }) {
    return natural < 8 && offsetof(typename F::Block, low_bits) % 8 == 0 ? 8 : natural;
  } else if constexpr (requires { F::Block::quants; }) {
    return natural < 8 && offsetof(typename F::Block, quants) % 8 == 0 ? 8 : natural;
  } else {
    return natural;
  }
}

template <class F>
struct alignas(slot_alignment<F>()) Slot {
  typename F::Block block;
};

struct ToF32 {
  using Element = float;
  static constexpr formats::Format format = formats::Format::f32;
};
struct ToF16 {
  using Element = __half;
  static constexpr formats::Format format = formats::Format::f16;
};
struct ToBF16 {
  using Element = __nv_bfloat16;
  static constexpr formats::Format format = formats::Format::bf16;
};

// Sixteen weights a thread and turn: one scale serves them in every format. Addresses and shifts
// are the same in every turn. A second turn gains 3 to 10%, but loses as much where a turn writes
// 8 KB of float32 behind a long decode.
template <class F, class Out>
struct Tile {
  static constexpr int threads = 128;
  static constexpr int turns = sizeof(typename Out::Element) == 2 || F::elements <= 64 ? 2 : 1;
  static constexpr int turn_blocks = 16 * threads / F::elements;
  static constexpr int blocks = turns * turn_blocks;
  static constexpr int weights = blocks * F::elements;
  static constexpr int words = blocks * F::bytes / 16;
  static constexpr int words_each = (words + threads - 1) / threads;
  static constexpr int slot_bytes = static_cast<int>(sizeof(Slot<F>));
  static constexpr bool contiguous = slot_bytes == F::bytes;
  static_assert(blocks * F::bytes % 16 == 0);
};

// This thread's 16-byte words of a tile.
template <class F, class T>
__device__ void load_words(const uint4* tile, uint4 word[T::words_each]) {
#pragma unroll
  for (int i = 0; i < T::words_each; ++i) {
    const int at = static_cast<int>(threadIdx.x) + i * T::threads;
    if (at < T::words) word[i] = __ldcs(tile + at);
  }
}

// The same words to the slots, in pieces that never straddle two blocks.
template <class F, class T>
__device__ void store_words(const uint4 word[T::words_each], Slot<F>* slots) {
#pragma unroll
  for (int i = 0; i < T::words_each; ++i) {
    const int at = static_cast<int>(threadIdx.x) + i * T::threads;
    if (at >= T::words) break;
    if constexpr (T::contiguous) {
      reinterpret_cast<uint4*>(slots)[at] = word[i];
    } else {
      static_assert(F::bytes % 2 == 0);
      constexpr int unit = F::bytes % 4 == 0 ? 4 : 2;
      const std::uint32_t part[4] = {word[i].x, word[i].y, word[i].z, word[i].w};
      auto* bytes = reinterpret_cast<std::uint8_t*>(slots);
#pragma unroll
      for (int u = 0; u < 16; u += unit) {
        const int block = (16 * at + u) / F::bytes;
        std::uint8_t* target = bytes + 16 * at + u + block * (T::slot_bytes - F::bytes);
        if constexpr (unit == 4) {
          *reinterpret_cast<std::uint32_t*>(target) = part[u / 4];
        } else {
          *reinterpret_cast<std::uint16_t*>(target) =
              static_cast<std::uint16_t>(part[u / 4] >> (u % 4 * 8));
        }
      }
    }
  }
}

__device__ inline std::uint32_t pack2(ToF16, float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  return *reinterpret_cast<const std::uint32_t*>(&pair);
}
__device__ inline std::uint32_t pack2(ToBF16, float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const std::uint32_t*>(&pair);
}
__device__ inline void store1(ToF32, float* out, float value) { *out = value; }
__device__ inline void store1(ToF16, __half* out, float value) { *out = __float2half_rn(value); }
__device__ inline void store1(ToBF16, __nv_bfloat16* out, float value) {
  *out = __float2bfloat16_rn(value);
}

// 32 consecutive bytes of each lane to 16-byte aligned memory. Neighbouring lanes trade halves, so
// that each store of a lane pair fills whole 32-byte sectors. Every lane of the warp calls it.
__device__ inline void store32(std::uint8_t* out, uint4 low, uint4 high) {
  const bool odd = (threadIdx.x & 1u) != 0;
  const uint4 sent = odd ? low : high;
  uint4 traded;
  traded.x = __shfl_xor_sync(0xffffffffu, sent.x, 1);
  traded.y = __shfl_xor_sync(0xffffffffu, sent.y, 1);
  traded.z = __shfl_xor_sync(0xffffffffu, sent.z, 1);
  traded.w = __shfl_xor_sync(0xffffffffu, sent.w, 1);
  // An even lane holds its own low half and the odd lane's; an odd lane both high ones.
  __stwb(reinterpret_cast<uint4*>(odd ? out - 16 : out), odd ? traded : low);
  __stwb(reinterpret_cast<uint4*>(odd ? out + 16 : out + 32), odd ? high : traded);
}

__device__ inline uint4 bits4(const float* value) {
  return make_uint4(__float_as_uint(value[0]), __float_as_uint(value[1]), __float_as_uint(value[2]),
                    __float_as_uint(value[3]));
}

// Weights 16 * part .. 16 * part + 15, whose scale is one.
template <class F>
__device__ void decode16(const typename F::Block& block, int part, float value[16]) {
  static_assert(F::group % 16 == 0);
  std::int8_t q[16];
  F::quants8(block, 2 * part, q);
  F::quants8(block, 2 * part + 1, q + 8);
  const formats::Affine affine = F::affine(block, part / (F::group / 16));
  for (int i = 0; i < 16; ++i) value[i] = formats::decode_quant<F>(affine, q[i]);
}

template <class Out>
__device__ void store16(typename Out::Element* out, const float value[16]) {
  if constexpr (sizeof(typename Out::Element) == 2) {
    std::uint32_t packed[8];
    for (int i = 0; i < 8; ++i) packed[i] = pack2(Out{}, value[2 * i], value[2 * i + 1]);
    store32(reinterpret_cast<std::uint8_t*>(out),
            make_uint4(packed[0], packed[1], packed[2], packed[3]),
            make_uint4(packed[4], packed[5], packed[6], packed[7]));
  } else {
    // Lanes 2i, 2i + 1 first swap so that each holds 32 consecutive bytes of one 64-byte line a
    // step.
    auto* bytes = reinterpret_cast<std::uint8_t*>(out);
    const bool odd = (threadIdx.x & 1u) != 0;
    float first[8];
    float second[8];
    for (int i = 0; i < 8; ++i) {
      const float sent = odd ? value[i] : value[8 + i];
      const float traded = __shfl_xor_sync(0xffffffffu, sent, 1);
      first[i] = odd ? traded : value[i];
      second[i] = odd ? value[8 + i] : traded;
    }
    // first: bytes 0..31 (even lane) and 32..63 (odd lane) of the even lane's 64; second: of the
    // odd lane's.
    std::uint8_t* even_line = odd ? bytes - 64 + 32 : bytes;
    std::uint8_t* odd_line = odd ? bytes + 32 : bytes + 64;
    store32(even_line, bits4(first), bits4(first + 4));
    store32(odd_line, bits4(second), bits4(second + 4));
  }
}

// Whole tiles, both pointers 16-byte aligned.
template <class F, class Out>
__global__ void __launch_bounds__(Tile<F, Out>::threads, 12)
    dequantize_tiles(const uint4* blocks, typename Out::Element* out) {
  using T = Tile<F, Out>;
  __shared__ __align__(16) Slot<F> slots[T::blocks];
  {
    uint4 word[T::words_each];
    load_words<F, T>(blocks + static_cast<std::int64_t>(blockIdx.x) * T::words, word);
    store_words<F, T>(word, slots);
  }
  __syncthreads();
  constexpr int parts = F::elements / 16;
  const int block = static_cast<int>(threadIdx.x) / parts;
  const int part = static_cast<int>(threadIdx.x) % parts;
  out += static_cast<std::int64_t>(blockIdx.x) * T::weights + 16 * threadIdx.x;
#pragma unroll 1
  for (int turn = 0; turn < T::turns; ++turn) {
    float value[16];
    // By index: of a pointer that is stepped the compiler forgets the alignment, and splits loads.
    decode16<F>(slots[block + turn * T::turn_blocks].block, part, value);
    store16<Out>(out, value);
    out += 16 * T::threads;
  }
}

// Any alignment, and what is left of a tile: eight weights a thread, straight from global memory.
template <class F, class Out>
__global__ void dequantize_rest(const std::uint8_t* blocks, std::int64_t eights,
                                typename Out::Element* out) {
  constexpr int each = F::elements / 8;
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
       i < eights; i += step) {
    float value[8];
    formats::decode8<F>(reinterpret_cast<const typename F::Block*>(blocks)[i / each],
                        static_cast<int>(i % each), value);
    for (int j = 0; j < 8; ++j) store1(Out{}, out + 8 * i + j, value[j]);
  }
}

// Fewer thread blocks than `wanted` walk over what there is.
inline unsigned grid_size(std::int64_t wanted, int resident) {
  int device = 0;
  int multiprocessors = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
  const std::int64_t most = static_cast<std::int64_t>(multiprocessors) * resident;
  return static_cast<unsigned>(wanted < most ? wanted : most);
}

template <class F, class Out>
cudaError_t launch_dequantize(const void* blocks, std::int64_t elements, void* out,
                              cudaStream_t stream) {
  using T = Tile<F, Out>;
  const auto* source = static_cast<const std::uint8_t*>(blocks);
  auto* target = static_cast<typename Out::Element*>(out);
  const bool aligned =
      (reinterpret_cast<std::uintptr_t>(blocks) | reinterpret_cast<std::uintptr_t>(out)) % 16 == 0;
  const std::int64_t tiles = aligned ? elements / T::weights : 0;
  if (tiles > 0x7fffffff) return cudaErrorInvalidValue;
  if (tiles > 0) {
    dequantize_tiles<F, Out><<<static_cast<unsigned>(tiles), T::threads, 0, stream>>>(
        reinterpret_cast<const uint4*>(source), target);

    source += tiles * T::blocks * F::bytes;
    target += tiles * T::weights;
    elements -= tiles * T::weights;
  }
  if (elements > 0) {
    dequantize_rest<F, Out><<<grid_size((elements / 8 + 255) / 256, 8), 256, 0, stream>>>(
        source, elements / 8, target);
  }
  return cudaGetLastError();
}

// One thread block per token and 2048 columns. A row is read once by few threads: straight from
// global memory.
template <class F>
__global__ void embed_kernel(const std::uint8_t* table, std::int64_t rows, std::int64_t columns,
                             const std::int32_t* tokens, float scale, float* out) {
  constexpr int step = F::quantized ? 8 : 1;
  const std::int64_t token = tokens[blockIdx.x];
  const bool there = token >= 0 && token < rows;
  const auto* row = reinterpret_cast<const typename F::Block*>(
      table + (there ? token : 0) * (columns / F::elements) * F::bytes);
  float* target = out + static_cast<std::int64_t>(blockIdx.x) * columns;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.y) * blockDim.x + threadIdx.x;
       i < columns / step; i += static_cast<std::int64_t>(gridDim.y) * blockDim.x) {
    float value[step];
    if constexpr (F::quantized) {
      constexpr int eights = F::elements / 8;
      formats::decode8<F>(row[i / eights], static_cast<int>(i % eights), value);
    } else {
      value[0] = F::decode(row[i]);
    }
    for (int j = 0; j < step; ++j) {
      target[step * i + j] =
          there ? formats::multiply(scale, value[j]) : __int_as_float(0x7fc00000);
    }
  }
}

template <class F>
cudaError_t launch_embed(const void* table, std::int64_t rows, std::int64_t columns,
                         const std::int32_t* tokens, std::int64_t count, float scale, float* out,
                         cudaStream_t stream) {
  constexpr int threads = 128;
  constexpr std::int64_t per_block = threads * (F::quantized ? 8 : 1);
  const std::int64_t across = (columns + per_block - 1) / per_block;
  const dim3 grid(static_cast<unsigned>(count), static_cast<unsigned>(across < 64 ? across : 64));
  embed_kernel<F><<<grid, threads, 0, stream>>>(static_cast<const std::uint8_t*>(table), rows,
                                                columns, tokens, scale, out);
  return cudaGetLastError();
}

// An instance file of a few lines holds one format, so that a change rebuilds little and cores
// share the build.
#define QUANTLOOM_DEQUANTIZE_INSTANCE(KIND, F)                                                     \
  KIND template cudaError_t launch_dequantize<formats::F, ToF32>(const void*, std::int64_t, void*, \
                                                                 cudaStream_t);                    \
  KIND template cudaError_t launch_dequantize<formats::F, ToF16>(const void*, std::int64_t, void*, \
                                                                 cudaStream_t);                    \
  KIND template cudaError_t launch_dequantize<formats::F, ToBF16>(const void*, std::int64_t,       \
                                                                  void*, cudaStream_t);            \
  KIND template cudaError_t launch_embed<formats::F>(const void*, std::int64_t, std::int64_t,      \
                                                     const std::int32_t*, std::int64_t, float,     \
                                                     float*, cudaStream_t);

}  // namespace quantloom::kernels
