// Reading and writing the lanes of a register: 32 slots of 32 or of 64 bits. 8- and 16-bit types
// take the lower bits of 32-bit slots, whose rest is zero.
#pragma once

#include <type_traits>

#include "state.h"

namespace quantloom::emulator {

using s8 = std::int8_t;
using s16 = std::int16_t;
using s32 = std::int32_t;
using s64 = std::int64_t;
using u8 = std::uint8_t;
using u16 = std::uint16_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using f32 = float;
using f64 = double;

inline constexpr u32 all_lanes = 0xffffffffu;

template <typename T>
using Slot = std::conditional_t<sizeof(T) == 8, u64, u32>;

template <typename T>
inline T from_slot(Slot<T> slot) {
  if constexpr (std::is_integral_v<T>) {
    return static_cast<T>(slot);
  } else {
    return std::bit_cast<T>(slot);
  }
}

template <typename T>
inline Slot<T> to_slot(T value) {
  if constexpr (std::is_integral_v<T>) {
    return static_cast<Slot<T>>(static_cast<std::make_unsigned_t<T>>(value));
  } else {
    return std::bit_cast<Slot<T>>(value);
  }
}

template <typename T>
inline T read(const Context& c, u32 operand, unsigned lane) {
  return from_slot<T>(c.at<const Slot<T>>(operand)[lane]);
}

template <typename T>
inline void write(Context& c, u32 operand, unsigned lane, T value) {
  c.at<Slot<T>>(operand)[lane] = to_slot<T>(value);
}

template <typename Function>
inline void for_lanes(u32 mask, Function&& function) {
  while (mask != 0) {
    function(static_cast<unsigned>(std::countr_zero(mask)));
    mask &= mask - 1;
  }
}

inline void write_predicate(Context& c, u32 operand, u32 mask, u32 bits) {
  if (operand == no_operand) return;
  c.predicates[operand] = (c.predicates[operand] & ~mask) | (bits & mask);
}

inline unsigned first_lane(u32 mask) { return static_cast<unsigned>(std::countr_zero(mask)); }

// d = f(a ...) of every lane; the whole warp's loop is one that the compiler vectorizes.
template <typename D, typename A, auto f>
void unary(Context& c, const Instruction& i, u32 mask) {
  auto* d = c.at<Slot<D>>(i.op[0]);
  const auto* a = c.at<const Slot<A>>(i.op[1]);
  if (mask == all_lanes) {
#pragma GCC ivdep
    for (int l = 0; l < 32; ++l) d[l] = to_slot<D>(f(from_slot<A>(a[l])));
  } else {
    for_lanes(mask, [&](unsigned l) { d[l] = to_slot<D>(f(from_slot<A>(a[l]))); });
  }
}

template <typename D, typename A, typename B, auto f>
void binary(Context& c, const Instruction& i, u32 mask) {
  auto* d = c.at<Slot<D>>(i.op[0]);
  const auto* a = c.at<const Slot<A>>(i.op[1]);
  const auto* b = c.at<const Slot<B>>(i.op[2]);
  if (mask == all_lanes) {
#pragma GCC ivdep
    for (int l = 0; l < 32; ++l) d[l] = to_slot<D>(f(from_slot<A>(a[l]), from_slot<B>(b[l])));
  } else {
    for_lanes(mask,
              [&](unsigned l) { d[l] = to_slot<D>(f(from_slot<A>(a[l]), from_slot<B>(b[l]))); });
  }
}

template <typename D, typename A, typename B, typename E, auto f>
void ternary(Context& c, const Instruction& i, u32 mask) {
  auto* d = c.at<Slot<D>>(i.op[0]);
  const auto* a = c.at<const Slot<A>>(i.op[1]);
  const auto* b = c.at<const Slot<B>>(i.op[2]);
  const auto* e = c.at<const Slot<E>>(i.op[3]);
  if (mask == all_lanes) {
#pragma GCC ivdep
    for (int l = 0; l < 32; ++l) {
      d[l] = to_slot<D>(f(from_slot<A>(a[l]), from_slot<B>(b[l]), from_slot<E>(e[l])));
    }
  } else {
    for_lanes(mask, [&](unsigned l) {
      d[l] = to_slot<D>(f(from_slot<A>(a[l]), from_slot<B>(b[l]), from_slot<E>(e[l])));
    });
  }
}

template <typename A, auto f>
void compare(Context& c, const Instruction& i, u32 mask) {
  const auto* a = c.at<const Slot<A>>(i.op[2]);
  const auto* b = c.at<const Slot<A>>(i.op[3]);
  u32 bits = 0;
  for (int l = 0; l < 32; ++l) {
    bits |= static_cast<u32>(f(from_slot<A>(a[l]), from_slot<A>(b[l]))) << l;
  }
  write_predicate(c, i.op[0], mask, bits);
  write_predicate(c, i.op[1], mask, ~bits);
}

}  // namespace quantloom::emulator
