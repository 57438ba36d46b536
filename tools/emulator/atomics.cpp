// atom and red: blocks run on several host threads, so these are the host's atomic operations.
#include <algorithm>

#include "access.h"
#include "half.h"
#include "values.h"

namespace quantloom::emulator {
namespace {

template <typename T, Space space, typename A, auto f>
void update(Context& c, const Instruction& i, u32 mask) {
  for_lanes(mask, [&](unsigned l) {
    const u64 address = c.at<const A>(i.op[1])[l] + static_cast<u64>(i.immediate);
    std::byte* place;
    if constexpr (space == Space::global) {
      place = global_at(c, address, sizeof(T), l);
    } else if constexpr (space == Space::shared) {
      place = shared_at(c, static_cast<u32>(address), sizeof(T), l);
    } else {
      place = generic_at(c, address, sizeof(T), l);
    }
    using Bits = Slot<T>;
    const T a = read<T>(c, i.op[2], l);
    const T b = i.op[3] == no_operand ? T{} : read<T>(c, i.op[3], l);
    std::atomic_ref<Bits> word(*reinterpret_cast<Bits*>(place));
    Bits old = word.load();
    while (not word.compare_exchange_weak(old, to_slot<T>(f(from_slot<T>(old), a, b)))) {
    }
    if (i.op[0] != no_operand) c.at<Bits>(i.op[0])[l] = old;
  });
  c.progress = true;
  c.charge(20);
}

template <typename T, auto f>
Handler in_space(Space space, bool wide) {
  if (space == Space::shared) {
    return wide ? update<T, Space::shared, u64, f> : update<T, Space::shared, u32, f>;
  }
  if (not wide) return nullptr;
  if (space == Space::global) return update<T, Space::global, u64, f>;
  if (space == Space::generic) return update<T, Space::generic, u64, f>;
  return nullptr;
}

template <typename T>
Handler integer(Space space, std::string_view operation, bool wide) {
  using U = std::make_unsigned_t<T>;
  if (operation == "add") {
    return in_space<U, [](U old, U a, U) { return static_cast<U>(old + a); }>(space, wide);
  }
  if (operation == "min") {
    return in_space<T, [](T old, T a, T) { return std::min(old, a); }>(space, wide);
  }
  if (operation == "max") {
    return in_space<T, [](T old, T a, T) { return std::max(old, a); }>(space, wide);
  }
  if (operation == "inc") {
    return in_space<U, [](U old, U a, U) { return old >= a ? U{0} : old + 1; }>(space, wide);
  }
  if (operation == "dec") {
    return in_space<U, [](U old, U a, U) { return old == 0 or a < old ? a : old - 1; }>(space,
                                                                                        wide);
  }
  return nullptr;
}
template <typename U>
Handler untyped(Space space, std::string_view operation, bool wide) {
  if (operation == "and") return in_space<U, [](U old, U a, U) { return old & a; }>(space, wide);
  if (operation == "or") return in_space<U, [](U old, U a, U) { return old | a; }>(space, wide);
  if (operation == "xor") return in_space<U, [](U old, U a, U) { return old ^ a; }>(space, wide);
  if (operation == "exch") return in_space<U, [](U, U a, U) { return a; }>(space, wide);
  if (operation == "cas") {
    return in_space<U, [](U old, U a, U b) { return old == a ? b : old; }>(space, wide);
  }
  return nullptr;
}

u32 add_halves(u32 old, u32 a, u32) {
  const auto sum = [](u32 x, u32 y) {
    return u32{
        float_to_half(half_to_float(static_cast<u16>(x)) + half_to_float(static_cast<u16>(y)))};
  };
  return sum(old, a) | sum(old >> 16, a >> 16) << 16;
}

}  // namespace

Handler atomic_handler(Space space, std::string_view operation, std::string_view type, bool wide) {
  if (type == "u32") return integer<u32>(space, operation, wide);
  if (type == "s32") return integer<s32>(space, operation, wide);
  if (type == "u64") return integer<u64>(space, operation, wide);
  if (type == "s64") return integer<s64>(space, operation, wide);
  if (type == "b32") return untyped<u32>(space, operation, wide);
  if (type == "b64") return untyped<u64>(space, operation, wide);
  if (operation != "add") return nullptr;
  if (type == "f32") {
    return in_space<f32, [](f32 old, f32 a, f32) { return old + a; }>(space, wide);
  }
  if (type == "f64") {
    return in_space<f64, [](f64 old, f64 a, f64) { return old + a; }>(space, wide);
  }
  if (type == "f16x2") return in_space<u32, add_halves>(space, wide);
  return nullptr;
}

}  // namespace quantloom::emulator
