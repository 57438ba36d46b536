// wgmma: each warp of the four computes its own 16 of the 64 rows, at once; matrices in shared
// memory as their descriptors say.
#include "forms.h"
#include "half.h"
#include "values.h"

namespace quantloom::emulator {
namespace {

struct HalfPart {
  static f32 value(u16 bits) { return half_to_float(bits); }
};
struct BfloatPart {
  static f32 value(u16 bits) { return bfloat_to_float(bits); }
};

struct Descriptor {
  u32 start = 0, leading = 0, stride = 0;  // bytes
  u32 width = 16;     // bytes of a row of the swizzle's pattern; 16 without one
  u32 exchanged = 0;  // address bits from 7 that are added to those from 4
};

Descriptor descriptor_of(u64 bits, unsigned lane) {
  Descriptor d;
  d.start = static_cast<u32>(bits & 0x3fff) << 4;
  d.leading = static_cast<u32>(bits >> 16 & 0x3fff) << 4;
  d.stride = static_cast<u32>(bits >> 32 & 0x3fff) << 4;
  if ((bits >> 49 & 7) != 0) {
    stop(Fault::Kind::illegal_instruction, lane, "a matrix with a base offset is not supported");
  }
  constexpr u32 widths[4] = {16, 128, 64, 32};
  d.width = widths[bits >> 62];
  d.exchanged = d.width / 16 - 1;
  return d;
}

// Eight halves along k (or, transposed, along the rows or columns of the product).
const std::byte* part(Context& c, const Descriptor& d, u32 offset, unsigned lane) {
  const u32 address = d.start + offset;
  return shared_at(c, address ^ ((address >> 7 & d.exchanged) << 4), 16, lane);
}

// value(mn, k) of `count` rows from `first`, k of 16.
template <typename Part, typename Put>
void read_matrix(Context& c, u64 bits, bool transposed, unsigned first, unsigned count,
                 unsigned lane, Put&& put) {
  const Descriptor d = descriptor_of(bits, lane);
  const bool swizzles = d.exchanged != 0;
  u16 eight[8];
  if (not transposed) {
    for (unsigned n = first; n < first + count; ++n) {
      for (unsigned k = 0; k < 16; k += 8) {
        const u32 offset =
            n / 8 * d.stride + n % 8 * d.width + (swizzles ? k * 2 : k / 8 * d.leading);
        std::memcpy(eight, part(c, d, offset, lane), 16);
        for (unsigned j = 0; j < 8; ++j) put(n - first, k + j, Part::value(eight[j]));
      }
    }
    return;
  }
  const u32 across = d.width / 2;  // elements of a row of the pattern
  for (unsigned k = 0; k < 16; ++k) {
    for (unsigned n = first; n < first + count; n += 8) {
      const u32 offset =
          swizzles ? n / across * d.leading + k / 8 * d.stride + k % 8 * d.width + n % across * 2
                   : n / 8 * d.stride + k / 8 * d.leading + k % 8 * 16;
      std::memcpy(eight, part(c, d, offset, lane), 16);
      for (unsigned j = 0; j < 8; ++j) put(n - first + j, k, Part::value(eight[j]));
    }
  }
}

inline f32 multiply_add(f32 a, f32 b, f32 c) {
#if defined(__FP_FAST_FMAF)
  return __builtin_fmaf(a, b, c);  // the same, for the product is exact
#else
  return a * b + c;
#endif
}

constexpr unsigned block = 8;  // columns at once

// d (list), a (list or descriptor), b, whether d is added, signs of a and b, transpositions
template <typename Part>
void multiply(Context& c, const Instruction& i, u32 mask) {
  const unsigned columns = 8u * i.mode, lane = first_lane(mask);
  const u32* lists = c.frame->function->lists.data() + i.list;
  const bool a_in_registers = i.op[1] == no_operand;
  const auto flag = [&](unsigned n) { return static_cast<s8>(i.immediate >> 8 * n); };
  const f32 sign = static_cast<f32>(flag(0) * flag(1));
  const bool a_transposed = not a_in_registers and flag(2) != 0;
  const bool b_transposed = flag(a_in_registers ? 2 : 3) != 0;
  thread_local f32 a[16][16], b[16][256], d[16][256];

  if (a_in_registers) {
    const u32* a_list = lists + columns / 2;
    for (unsigned n = 0; n < 4; ++n) {
      const u32* words = c.at<const u32>(a_list[n]);
      for (unsigned l = 0; l < 32; ++l) {
        const unsigned row = l / 4 + n % 2 * 8, k = 2 * (l % 4) + n / 2 * 8;
        a[row][k] = Part::value(static_cast<u16>(words[l]));
        a[row][k + 1] = Part::value(static_cast<u16>(words[l] >> 16));
      }
    }
  } else {
    read_matrix<Part>(c, read<u64>(c, i.op[1], lane), a_transposed, c.warp->index % 4 * 16, 16,
                      lane, [&](unsigned row, unsigned k, f32 value) { a[row][k] = value; });
  }
  if (sign < 0) {
    for (auto& row : a) {
      for (f32& value : row) value = -value;
    }
  }
  read_matrix<Part>(c, read<u64>(c, i.op[2], lane), b_transposed, 0, columns, lane,
                    [&](unsigned column, unsigned k, f32 value) { b[k][column] = value; });

  const bool adds = (c.predicates[i.op[3]] >> lane & 1) != 0;
  for (unsigned n = 0; n < columns / 2; ++n) {
    const f32* from = c.at<const f32>(lists[n]);
    for (unsigned l = 0; l < 32; ++l) {
      d[l / 4 + n / 2 % 2 * 8][n / 4 * 8 + 2 * (l % 4) + n % 2] = adds ? from[l] : 0.0f;
    }
  }
  for (unsigned row = 0; row < 16; ++row) {
    for (unsigned column = 0; column < columns; column += block) {
      f32 sums[block];
      for (unsigned j = 0; j < block; ++j) sums[j] = d[row][column + j];
      for (unsigned k = 0; k < 16; ++k) {
        for (unsigned j = 0; j < block; ++j) {
          sums[j] = multiply_add(a[row][k], b[k][column + j], sums[j]);
        }
      }
      for (unsigned j = 0; j < block; ++j) d[row][column + j] = sums[j];
    }
  }
  for (unsigned n = 0; n < columns / 2; ++n) {
    f32* to = c.at<f32>(lists[n]);
    for (unsigned l = 0; l < 32; ++l) {
      to[l] = d[l / 4 + n / 2 % 2 * 8][n / 4 * 8 + 2 * (l % 4) + n % 2];
    }
  }
}

}  // namespace

void add_warpgroup_forms(Forms& forms) {
  for (unsigned eighths = 1; eighths <= 32; ++eighths) {
    const std::string name =
        "wgmma.mma_async.sync.aligned.m64n" + std::to_string(8 * eighths) + "k16.f32.";
    const auto mode = static_cast<std::uint8_t>(eighths);
    forms[name + "f16.f16"] = {multiply<HalfPart>, "UAxpiii?i", Kind::converge, mode};
    forms[name + "bf16.bf16"] = {multiply<BfloatPart>, "UAxpiii?i", Kind::converge, mode};
  }
}

}  // namespace quantloom::emulator
