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

struct ToF32 {
  using Element = float;
};
struct ToF16 {
  using Element = __half;
};
struct ToBF16 {
  using Element = __nv_bfloat16;
};

// Sixteen weights a thread: one scale serves them in every format. 128 threads were 4 to 9% faster
// than 256, because writes run faster the closer together the thread blocks under way write. Fewer
// would leave tiles of 210-byte blocks off the 16-byte grid.
template <class F>
struct Tile {
  static constexpr int threads = 128;
  static constexpr int weights = 16 * threads;
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
#pragma unroll 1
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
  if (done == bytes) return;
  constexpr int small = F::bytes % 2 == 0 ? 2 : 1;
  using Small = typename UnitOf<small>::type;
#pragma unroll 1
  for (int i = done + small * threadIdx.x; i < bytes; i += small * T::threads) {
    *reinterpret_cast<Small*>(slots + i / F::bytes * T::slot_bytes + i % F::bytes) =
        *reinterpret_cast<const Small*>(source + i);
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
// that each store of a lane pair fills whole 32-byte sectors. Every lane of the warp calls it;
// `store` is the same for a pair.
__device__ inline void store32(std::uint8_t* out, uint4 low, uint4 high, bool store) {
  const bool odd = (threadIdx.x & 1u) != 0;
  const uint4 sent = odd ? low : high;
  uint4 traded;
  traded.x = __shfl_xor_sync(0xffffffffu, sent.x, 1);
  traded.y = __shfl_xor_sync(0xffffffffu, sent.y, 1);
  traded.z = __shfl_xor_sync(0xffffffffu, sent.z, 1);
  traded.w = __shfl_xor_sync(0xffffffffu, sent.w, 1);
  // An even lane holds its own low half and the odd lane's; an odd lane both high ones.
  if (!store) return;
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
__device__ void store16(typename Out::Element* out, const float value[16], bool store) {
  if constexpr (sizeof(typename Out::Element) == 2) {
    std::uint32_t packed[8];
    for (int i = 0; i < 8; ++i) packed[i] = pack2(Out{}, value[2 * i], value[2 * i + 1]);
    store32(reinterpret_cast<std::uint8_t*>(out),
            make_uint4(packed[0], packed[1], packed[2], packed[3]),
            make_uint4(packed[4], packed[5], packed[6], packed[7]), store);
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
    store32(even_line, bits4(first), bits4(first + 4), store);
    store32(odd_line, bits4(second), bits4(second + 4), store);
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
  constexpr int parts = F::elements / 16;
  static_assert(parts % 2 == 0, "lane pairs store together");
  const int block = static_cast<int>(threadIdx.x) / parts;
  const int part = static_cast<int>(threadIdx.x) % parts;
  const bool there = block < here;
  float value[16];
  decode16<F>(slots[block].block, part, value);
  typename Out::Element* target = out + first * F::elements + 16 * static_cast<int>(threadIdx.x);
  if (aligned) {
    store16<Out>(target, value, there);
  } else if (there) {
    for (int i = 0; i < 16; ++i) store1(Out{}, target + i, value[i]);
  }
}

template <class F, class Out>
cudaError_t launch_dequantize(const void* blocks, std::int64_t elements, void* out,
                              cudaStream_t stream) {
  using T = Tile<F>;
  const std::int64_t count = elements / F::elements;
  const std::int64_t tiles = (count + T::blocks - 1) / T::blocks;
  if (tiles > 0x7fffffff) return cudaErrorInvalidValue;
  const bool aligned = reinterpret_cast<std::uintptr_t>(out) % 16 == 0;
  dequantize_kernel<F, Out><<<static_cast<unsigned>(tiles), T::threads, 0, stream>>>(
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
