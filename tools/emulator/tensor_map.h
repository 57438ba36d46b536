// What the emulated cuTensorMapEncodeTiled writes into a CUtensorMap and cp.async.bulk.tensor
// reads: a layout of the emulator's own, for the real one is not documented.
#pragma once

#include <cstdint>

namespace quantloom::emulator {

inline constexpr std::uint32_t tensor_map_mark = 0x514c544d;

struct alignas(64) TensorMap {
  std::uint32_t mark = tensor_map_mark;  // anything else is not a map, and a fault
  std::uint8_t rank = 0;                 // 1 to 5
  std::uint8_t element_bytes = 0;
  std::uint8_t swizzle = 0;       // pattern's width: 0 for none, 32, 64 or 128 bytes
  std::uint8_t fill_nan = 0;      // out of bounds elements: zero, or NaN of a floating point type
  std::uint64_t base = 0;         // 16-byte aligned
  std::uint32_t sizes[5] = {};    // elements, innermost dimension first; 0 stands for 2^32
  std::uint32_t box[5] = {};      // elements of one copy
  std::uint64_t strides[4] = {};  // bytes from one to the next along dimensions 1 to 4
  std::uint32_t element_strides = 1;  // only 1 is supported along every dimension
  std::uint32_t unused = 0;
};
static_assert(sizeof(TensorMap) == 128);

}  // namespace quantloom::emulator
