// x of a product in fixed point, as the step before hands it to all blocks: whoever has 32
// neighbouring columns converts them once, and the readers only copy.
#pragma once

#include "decode/block.cuh"
#include "decode/decode.h"
#include "decode/exchange.cuh"
#include "matmul/one_token.cuh"

namespace quantloom::kernels {

// Per group of 32 columns eight words of four columns, the high bytes and above them the low bytes,
// whose first has the tag in its last bit; and behind all words a float4 a group: the step and the
// sums of columns 0 .. 15 and 16 .. 31.
struct FixedX {
  uint2* words;
  float4* groups;
  __device__ FixedX(const void* at, int columns)
      : words(static_cast<uint2*>(const_cast<void*>(at))),
        groups(reinterpret_cast<float4*>(words + columns / 4)) {}
};

// A column's value of each lane, 32 neighbours.
__device__ __forceinline__ void store_fixed(const FixedX& to, int group, float value,
                                            std::uint32_t tag) {
  const int lane = threadIdx.x % 32, quad = lane % 8;
  float x[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) x[i] = __shfl_sync(0xffffffffu, value, 4 * quad + i);
  const float4 columns = {x[0], x[1], x[2], x[3]};
  const FixedColumns fixed = fix_columns<0>(columns, group_largest(columns));
  const std::uint32_t low = fixed.low & ~1u;
  if (lane < 8) {
    asm volatile(
        "{ .reg .b64 word; mov.b64 word, {%1, %2}; st.relaxed.gpu.global.b64 [%0], word; }" ::"l"(
            to.words + group * 8 + quad),
        "r"(fixed.high), "r"(low | tag)
        : "memory");
  }
  constexpr int ones = 0x01010101;
  int sum =
      __dp4a(static_cast<int>(low), ones, __dp4a(static_cast<int>(fixed.high), ones, 0) * 256);
  sum += __shfl_xor_sync(0xffffffffu, sum, 1);
  sum += __shfl_xor_sync(0xffffffffu, sum, 2);
  const int other = __shfl_xor_sync(0xffffffffu, sum, 4);
  if (lane == 0) {
    store_tagged(to.groups + group,
                 make_float4(fixed.step, fixed.step * static_cast<float>(sum),
                             fixed.step * static_cast<float>(other), 0),
                 tag);
  }
}

// A lane's sixteen bytes of a piece, eight columns of group lane / 4, and for lanes 0 .. 7 what a
// group has beside its words.
struct FixedPiece {
  uint4 words;
  float4 group;

  __device__ __forceinline__ void read(const FixedX& from, const Tag& tag, int piece, int groups) {
    const int lane = threadIdx.x % 32, first = piece * piece_groups;
    words = {0, tag.tag, 0, tag.tag};
    const float zero = tag.zero();
    group = {zero, zero, zero, zero};
    if (first + lane / 4 < groups) words = tag.read(from.words + (first * 8 + lane * 2));
    if (lane < piece_groups && first + lane < groups) group = tag.read(from.groups + first + lane);
  }
  __device__ __forceinline__ std::uint32_t differs(const Tag& tag) const {
    return (words.y ^ tag.tag) | (words.w ^ tag.tag) | tag.differs(group);
  }
  template <XSums kind>
  __device__ __forceinline__ void store(const SharedX& to, const Tag& tag, int place) const {
    const int lane = threadIdx.x % 32;
    std::int8_t* values = to.values + place * 512 + lane / 4 * 64 + lane % 4 * 8;
    *reinterpret_cast<uint2*>(values) = {words.x, words.z};
    *reinterpret_cast<uint2*>(values + 32) = {words.y & ~1u, words.w & ~1u};
    const float4 info = tag.value(group);
    if (lane < piece_groups) {
      to.scales[place * piece_groups + lane] = info.x;
      if constexpr (kind == XSums::per_32) to.sums[place * piece_groups + lane] = info.y + info.z;
      if constexpr (kind == XSums::per_16) {
        reinterpret_cast<float2*>(to.sums)[place * piece_groups + lane] = {info.y, info.z};
      }
    }
  }
};

// Where DecodeProduct::x_is_fixed.
template <bool own, XSums kind>
__device__ __forceinline__ void copy_fixed(const DecodeProduct& a, Block& block,
                                           std::uint8_t* base) {
  constexpr int n = own ? 1 : 4;
  const int warp = threadIdx.x / 32, pieces = a.pieces, groups = a.columns / 32;
  const FixedX from(a.x, a.columns);
  const SharedX to(block.program.layout, base);
  const Tag tag{block.tag, 1};
#pragma unroll 1
  for (int first = own ? own_piece(warp, pieces) : warp; first < pieces;
       first += n * decode_warps) {
    FixedPiece piece[n];
#pragma unroll
    for (int i = 0; i < n; ++i) piece[i].read(from, tag, first + i * decode_warps, groups);
    // One piece first, so that a long wait asks little of the L2.
    read_again_until_there(
        tag, [&] { return piece[0].differs(tag); },
        [&] { piece[0].read(from, tag, first, groups); });
    if constexpr (!own) {
      read_again_until_there(
          tag,
          [&] {
            std::uint32_t differs = 0;
#pragma unroll
            for (int i = 1; i < n; ++i) differs |= piece[i].differs(tag);
            return differs;
          },
          [&] {
#pragma unroll
            for (int i = 1; i < n; ++i) piece[i].read(from, tag, first + i * decode_warps, groups);
          });
    }
#pragma unroll
    for (int i = 0; i < n; ++i) {
      const int at = first + i * decode_warps;
      if (own || at < pieces) piece[i].template store<kind>(to, tag, own ? warp : at);
    }
    if constexpr (own) break;
  }
  if constexpr (own) {
    __syncwarp();
  } else {
    sync_consumers();
  }
}

}  // namespace quantloom::kernels
