// What all block formats share: their ids, the host/device mark and the shape of the integer view.
//
// Every quantized GGUF format is small integers with a scale, and in some formats an offset, per
// group of 16 or 32 weights. Each format header holds one struct F with
//
//   Block               the bytes of one block as they stand in the file
//   format, name        GGUF type id and name
//   elements, bytes     weights and bytes per block
//   group               weights that share one Affine (16 or 32)
//   has_offset          false: value = scale * q;  true: value = scale * q + offset
//   minimum_quant,
//   maximum_quant       the range of q over all bit patterns
//   affine(block, g)    scale and offset of weights g * group .. (g + 1) * group - 1
//   quants8(block, k, q)  q of weights 8k .. 8k + 7 in logical order
//
// and decode.h derives values from that view, bit for bit as ggml's own dequantization gives them.
#pragma once

#include <bit>
#include <cstdint>

#if defined(__CUDACC__)
#define QL_HOST_DEVICE __host__ __device__
#else
#define QL_HOST_DEVICE
#endif

namespace quantloom::formats {

static_assert(std::endian::native == std::endian::little, "GGUF blocks are read in place");

// GGUF tensor type ids (the enum ggml_type of ggml.h) of the formats that quantloom serves.
enum class Format : std::uint32_t {
  f32 = 0,
  f16 = 1,
  q4_0 = 2,
  q4_1 = 3,
  q5_0 = 6,
  q5_1 = 7,
  q8_0 = 8,
  q2_k = 10,
  q3_k = 11,
  q4_k = 12,
  q5_k = 13,
  q6_k = 14,
  iq2_xxs = 16,
  iq2_xs = 17,
  iq3_xxs = 18,
  iq1_s = 19,
  iq4_nl = 20,
  iq3_s = 21,
  iq2_s = 22,
  iq4_xs = 23,
  iq1_m = 29,
  bf16 = 30,
  tq1_0 = 34,
  tq2_0 = 35,
  mxfp4 = 39,
  nvfp4 = 40,
};

// value = scale * q + offset for one group; offset is 0 in formats without one.
struct Affine {
  float scale;
  float offset;
};

// Products and sums rounded once each: a fused multiply-add would change the last bit.
// Host code is compiled with -ffp-contract=off.
QL_HOST_DEVICE inline float multiply(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fmul_rn(a, b);
#else
  return a * b;
#endif
}

QL_HOST_DEVICE inline float add(float a, float b) {
#if defined(__CUDA_ARCH__)
  return __fadd_rn(a, b);
#else
  return a + b;
#endif
}

}  // namespace quantloom::formats
