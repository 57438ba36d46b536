// How blocks hand each other the values of a step without a barrier over the grid: a reader polls
// the values themselves, so that one trip to the L2 tells that they are there and brings them.
//
// Each value has a place of its own that is written once a launch, and the last bit of its mantissa
// says in which: it is 1 in every other launch. Words of 32 bits, or 64 in fixed_columns.cuh, are
// written and read whole, so no order between them is needed. Readers take the bit for 0, so a
// launch's results do not depend on it.
#pragma once

#include <cstdint>

namespace quantloom::kernels {

__device__ inline std::uint32_t tagged(float value, std::uint32_t tag) {
  return (__float_as_uint(value) & ~1u) | tag;
}

__device__ inline void store_tagged(float* to, float value, std::uint32_t tag) {
  asm volatile("st.relaxed.gpu.global.b32 [%0], %1;" ::"l"(to), "r"(tagged(value, tag)) : "memory");
}
__device__ inline void store_tagged(float2* to, float2 value, std::uint32_t tag) {
  asm volatile("st.relaxed.gpu.global.v2.b32 [%0], {%1, %2};" ::"l"(to), "r"(tagged(value.x, tag)),
               "r"(tagged(value.y, tag))
               : "memory");
}
__device__ inline void store_tagged(float4* to, float4 value, std::uint32_t tag) {
  asm volatile("st.relaxed.gpu.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(to),
               "r"(tagged(value.x, tag)), "r"(tagged(value.y, tag)), "r"(tagged(value.z, tag)),
               "r"(tagged(value.w, tag))
               : "memory");
}

// What a step reads: `tag` where `mask` is 1; where it is 0, values from before the launch, which
// have no tag.
struct Tag {
  std::uint32_t tag, mask;

  __device__ float read(const float* from) const {
    std::uint32_t x;
    asm volatile("ld.relaxed.gpu.global.b32 %0, [%1];" : "=r"(x) : "l"(from));
    return __uint_as_float(x);
  }
  __device__ float2 read(const float2* from) const {
    std::uint32_t x, y;
    asm volatile("ld.relaxed.gpu.global.v2.b32 {%0, %1}, [%2];" : "=r"(x), "=r"(y) : "l"(from));
    return {__uint_as_float(x), __uint_as_float(y)};
  }
  __device__ float4 read(const float4* from) const {
    std::uint32_t x, y, z, w;
    asm volatile("ld.relaxed.gpu.global.v4.b32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x), "=r"(y), "=r"(z), "=r"(w)
                 : "l"(from));
    return {__uint_as_float(x), __uint_as_float(y), __uint_as_float(z), __uint_as_float(w)};
  }
  // Two words of which each is whole.
  __device__ uint4 read(const uint2* from) const {
    uint4 words;
    asm volatile(
        "{ .reg .b64 a, b; ld.relaxed.gpu.global.v2.b64 {a, b}, [%4]; mov.b64 {%0, %1}, a; "
        "mov.b64 {%2, %3}, b; }"
        : "=r"(words.x), "=r"(words.y), "=r"(words.z), "=r"(words.w)
        : "l"(from));
    return words;
  }
  // A zero that counts as there.
  __device__ float zero() const { return __uint_as_float(tag); }

  // All of x is there where nothing of this is in the mask; for more than one x the results are
  // joined by |.
  __device__ std::uint32_t differs(float x) const { return __float_as_uint(x) ^ tag; }
  __device__ std::uint32_t differs(float2 x) const { return differs(x.x) | differs(x.y); }
  __device__ std::uint32_t differs(float4 x) const {
    return differs(x.x) | differs(x.y) | differs(x.z) | differs(x.w);
  }
  __device__ bool is_there(std::uint32_t difference) const { return (difference & mask) == 0; }

  __device__ float value(float x) const { return __uint_as_float(__float_as_uint(x) & ~mask); }
  __device__ float2 value(float2 x) const { return {value(x.x), value(x.y)}; }
  __device__ float4 value(float4 x) const {
    return {value(x.x), value(x.y), value(x.z), value(x.w)};
  }
};

// Turns of a wait for values. A wait of many seconds is a fault, and ends the kernel with an error
// rather than never.
class Patience {
 public:
  __device__ void turn() {
    if (--left_ == 0) __trap();
  }

 private:
  std::uint32_t left_ = 1u << 26;  // of 0.4 us and more
};

// Reads again until all lanes of the warp have what they have read: differs() says how that is now.
template <class Differs, class Read>
__device__ __forceinline__ void read_again_until_there(const Tag& tag, Differs differs, Read read) {
  Patience patience;
#pragma unroll 1
  while (!__all_sync(0xffffffffu, tag.is_there(differs()))) {
    patience.turn();
    read();
  }
}

// The first reading included; read() returns how what it has read differs.
template <class Read>
__device__ __forceinline__ void read_until_there(const Tag& tag, Read read) {
  Patience patience;
#pragma unroll 1
  for (;;) {
    if (__all_sync(0xffffffffu, tag.is_there(read()))) return;
    patience.turn();
  }
}

}  // namespace quantloom::kernels
