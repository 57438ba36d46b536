// The dequantization kernel, one per format and output type. A thread block stages a tile of blocks
// in shared memory with 16-byte loads (many formats are only 2-byte aligned in global memory), one
// aligned slot per block, then each thread decodes eight weights at a time from there and stores
// them with 16-byte stores.
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

template <class F>
struct Tile {
  static constexpr int threads = 256;
  static constexpr int weights = 8192;
  static constexpr int blocks = weights / F::elements;
  static constexpr int slot_bytes = static_cast<int>(sizeof(Slot<F>));
  static constexpr bool contiguous = slot_bytes == F::bytes;
  // A 16-byte load goes to shared memory in pieces that never straddle two blocks.
  static constexpr int unit = contiguous ? 16 : F::bytes % 4 == 0 ? 4 : 2;
};

template <int Bytes>
struct UnitOf;
template <>
struct UnitOf<1> {
  using type = std::uint8_t;
};
template <>
struct UnitOf<2> {
  using type = std::uint16_t;
};
template <>
struct UnitOf<4> {
  using type = std::uint32_t;
};
template <>
struct UnitOf<16> {
  using type = uint4;
};

// `source`: the first of `bytes` bytes of blocks; reads no byte outside them.
template <class F>
__device__ void stage(const std::uint8_t* source, int bytes, std::uint8_t* slots) {
  using T = Tile<F>;
  using Unit = typename UnitOf<T::unit>::type;
  constexpr int units = 16 / T::unit;
  int done = 0;
  if (reinterpret_cast<std::uintptr_t>(source) % 16 == 0) {
    done = bytes / 16 * 16;
    for (int word = threadIdx.x; word < done / 16; word += T::threads) {
      union {
        uint4 vector;
        Unit unit[units];
      } data;
      data.vector = __ldcs(reinterpret_cast<const uint4*>(source) + word);
      if constexpr (T::contiguous) {
        reinterpret_cast<uint4*>(slots)[word] = data.vector;
      } else {
        const int block = 16 * word / F::bytes;
        int inside = 16 * word - block * F::bytes;
        std::uint8_t* target = slots + block * T::slot_bytes + inside;
#pragma unroll
        for (int u = 0; u < units; ++u) {
          *reinterpret_cast<Unit*>(target) = data.unit[u];
          inside += T::unit;
          const bool next = inside == F::bytes;
          inside = next ? 0 : inside;
          target += next ? T::unit + T::slot_bytes - F::bytes : T::unit;
        }
      }
    }
  }
  constexpr int small = F::bytes % 2 == 0 ? 2 : 1;
  using Small = typename UnitOf<small>::type;
  for (int i = done + small * threadIdx.x; i < bytes; i += small * T::threads) {
    *reinterpret_cast<Small*>(slots + i / F::bytes * T::slot_bytes + i % F::bytes) =
        *reinterpret_cast<const Small*>(source + i);
  }
}

struct ToF32 {
  using Element = float;
};
struct ToF16 {
  using Element = __half;
};
struct ToBF16 {
  using Element = __nv_bfloat16;
};

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

// Eight values to 16-byte aligned memory. For float32 neighbouring lanes trade halves, so that each
// store of a lane pair fills one 32-byte sector; all lanes of the pair must be here.
template <class Out>
__device__ void store8(typename Out::Element* out, const float value[8]) {
  if constexpr (sizeof(typename Out::Element) == 2) {
    uint4 packed;
    packed.x = pack2(Out{}, value[0], value[1]);
    packed.y = pack2(Out{}, value[2], value[3]);
    packed.z = pack2(Out{}, value[4], value[5]);
    packed.w = pack2(Out{}, value[6], value[7]);
    *reinterpret_cast<uint4*>(out) = packed;
  } else {
    const unsigned lane = threadIdx.x & 31u;
    const unsigned pair = 3u << (lane & 30u);
    const bool odd = (lane & 1u) != 0;
    float mine[4];
    float theirs[4];
    for (int i = 0; i < 4; ++i) {
      const float sent = odd ? value[i] : value[4 + i];
      theirs[i] = __shfl_xor_sync(pair, sent, 1);
      mine[i] = odd ? value[4 + i] : value[i];
    }
    float* even_half = odd ? out - 4 : out;     // the even lane's eight weights
    float* odd_half = odd ? out + 4 : out + 8;  // the odd lane's
    const float4 own = make_float4(mine[0], mine[1], mine[2], mine[3]);
    const float4 traded = make_float4(theirs[0], theirs[1], theirs[2], theirs[3]);
    *reinterpret_cast<float4*>(even_half) = odd ? traded : own;
    *reinterpret_cast<float4*>(odd_half) = odd ? own : traded;
  }
}

template <class F, class Out>
__global__ void __launch_bounds__(Tile<F>::threads)
    dequantize_kernel(const std::uint8_t* blocks, std::int64_t block_count,
                      typename Out::Element* out, bool aligned) {
  using T = Tile<F>;
  __shared__ __align__(16) Slot<F> slots[T::blocks];
  const std::int64_t first = static_cast<std::int64_t>(blockIdx.x) * T::blocks;
  const std::int64_t left = block_count - first;
  const int here = left < T::blocks ? static_cast<int>(left) : T::blocks;
  stage<F>(blocks + first * F::bytes, here * F::bytes, reinterpret_cast<std::uint8_t*>(slots));
  __syncthreads();
  constexpr int eights = F::elements / 8;
  static_assert(eights % 2 == 0, "lane pairs store together");
  typename Out::Element* tile = out + first * F::elements;
  for (int i = threadIdx.x; i < here * eights; i += T::threads) {
    float value[8];
    formats::decode8<F>(slots[i / eights].block, i % eights, value);
    if (aligned) {
      store8<Out>(tile + 8 * i, value);
    } else {
      for (int j = 0; j < 8; ++j) store1(Out{}, tile + 8 * i + j, value[j]);
    }
  }
}

template <class F, class Out>
cudaError_t launch_dequantize(const void* blocks, std::int64_t elements, void* out,
                              cudaStream_t stream) {
  const std::int64_t count = elements / F::elements;
  const std::int64_t tiles = (count + Tile<F>::blocks - 1) / Tile<F>::blocks;
  if (tiles > 0x7fffffff) return cudaErrorInvalidValue;
  const bool aligned = reinterpret_cast<std::uintptr_t>(out) % 16 == 0;
  dequantize_kernel<F, Out><<<static_cast<unsigned>(tiles), Tile<F>::threads, 0, stream>>>(
      static_cast<const std::uint8_t*>(blocks), count, static_cast<typename Out::Element*>(out),
      aligned);
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
