// cvt between all number types.
#include <algorithm>
#include <cfenv>
#include <cmath>

#include "forms.h"
#include "half.h"
#include "values.h"

namespace quantloom::emulator {
namespace {

template <typename D, typename A>
void add_integers(Forms& forms, const std::string& d, const std::string& a) {
  const char* operands =
      sizeof(D) == 8 ? (sizeof(A) == 8 ? "Xx" : "Xw") : (sizeof(A) == 8 ? "Wx" : "Ww");
  // A signed result of fewer bits than its register is extended by its sign up to 16 bits.
  constexpr auto plain = [](A value) {
    using Kept =
        std::conditional_t<sizeof(D) == 1, std::conditional_t<std::is_signed_v<D>, s16, u16>, D>;
    return static_cast<Kept>(static_cast<D>(value));
  };
  using Kept = decltype(plain(A{}));
  constexpr auto clamped = [](A value) {
    using Limits = std::numeric_limits<D>;
    using Wide = __int128;
    return static_cast<Kept>(static_cast<D>(std::clamp<Wide>(
        value, static_cast<Wide>(Limits::min()), static_cast<Wide>(Limits::max()))));
  };
  forms["cvt." + d + "." + a] = {unary<Kept, A, plain>, operands};
  forms["cvt.sat." + d + "." + a] = {unary<Kept, A, clamped>, operands};
}

template <int mode, typename T>
T to_integral(T value) {
  if constexpr (mode == 0) return std::nearbyint(value);
  if constexpr (mode == 1) return std::trunc(value);
  if constexpr (mode == 2) return std::floor(value);
  return std::ceil(value);
}
constexpr const char* integral_names[4] = {".rni", ".rzi", ".rmi", ".rpi"};

template <typename T>
T flushed(T value) {
  return std::fabs(value) < std::numeric_limits<T>::min() ? std::copysign(T{0}, value) : value;
}

// Out of range values give the nearest integer of the type.
template <int mode, bool ftz, typename D, typename A>
D to_integer(A value) {
  if (value != value) {
    if constexpr (sizeof(A) < 8 and sizeof(D) < 8) return 0;
    return static_cast<D>(std::make_unsigned_t<D>{1} << (8 * sizeof(D) - 1));
  }
  if constexpr (ftz) value = flushed(value);
  const A rounded = to_integral<mode>(value);
  constexpr D lowest = std::numeric_limits<D>::min(), highest = std::numeric_limits<D>::max();
  if (rounded <= static_cast<A>(lowest)) return lowest;
  if (rounded >= static_cast<A>(highest)) return highest;
  return static_cast<D>(rounded);
}

template <int mode, typename F, typename D>
void add_to_integer(Forms& forms, const std::string& f, const std::string& d) {
  using Kept =
      std::conditional_t<sizeof(D) == 1, std::conditional_t<std::is_signed_v<D>, s16, u16>, D>;
  const char* operands =
      sizeof(D) == 8 ? (sizeof(F) == 8 ? "Xx" : "Xw") : (sizeof(F) == 8 ? "Wx" : "Ww");
  constexpr auto plain = [](F value) {
    return static_cast<Kept>(to_integer<mode, false, D>(value));
  };
  constexpr auto ftz = [](F value) { return static_cast<Kept>(to_integer<mode, true, D>(value)); };
  const std::string rounding = integral_names[mode];
  forms["cvt" + rounding + "." + d + "." + f] = {unary<Kept, F, plain>, operands};
  forms["cvt" + rounding + ".sat." + d + "." + f] = forms["cvt" + rounding + "." + d + "." + f];
  if constexpr (sizeof(F) == 4) {
    forms["cvt" + rounding + ".ftz." + d + "." + f] = {unary<Kept, F, ftz>, operands};
  }
}

template <int mode, typename D, typename A>
D in_mode(A value) {
  if constexpr (mode == FE_TONEAREST) return static_cast<D>(value);
  volatile A kept = value;
  const int before = std::fegetround();
  std::fesetround(mode);
  volatile D result = static_cast<D>(kept);
  std::fesetround(before);
  return result;
}

template <typename D, typename A>
void add_rounded(Forms& forms, const std::string& d, const std::string& a) {
  const char* operands =
      sizeof(D) == 8 ? (sizeof(A) == 8 ? "Xx" : "Xw") : (sizeof(A) == 8 ? "Wx" : "Ww");
  const std::string tail = "." + d + "." + a;
  forms["cvt.rn" + tail] = {unary<D, A, in_mode<FE_TONEAREST, D, A>>, operands};
  forms["cvt.rz" + tail] = {unary<D, A, in_mode<FE_TOWARDZERO, D, A>>, operands};
  forms["cvt.rm" + tail] = {unary<D, A, in_mode<FE_DOWNWARD, D, A>>, operands};
  forms["cvt.rp" + tail] = {unary<D, A, in_mode<FE_UPWARD, D, A>>, operands};
}

template <typename I>
void add_integer_and_floats(Forms& forms, const std::string& name) {
  if constexpr (sizeof(I) > 1) {
    add_integers<I, I>(forms, name, name);
  }
  const auto both = [&]<int mode>(std::integral_constant<int, mode>) {
    add_to_integer<mode, f32, I>(forms, "f32", name);
    add_to_integer<mode, f64, I>(forms, "f64", name);
    const char* to = sizeof(I) == 8 ? "Xw" : "Ww";
    constexpr auto of_half = [](u16 value) {
      return to_integer<mode, false, I>(half_to_float(value));
    };
    forms["cvt" + std::string(integral_names[mode]) + "." + name + ".f16"] = {
        unary<I, u16, of_half>, to};
  };
  both(std::integral_constant<int, 0>{});
  both(std::integral_constant<int, 1>{});
  both(std::integral_constant<int, 2>{});
  both(std::integral_constant<int, 3>{});
  add_rounded<f32, I>(forms, "f32", name);
  add_rounded<f64, I>(forms, "f64", name);
  const char* from = sizeof(I) == 8 ? "Wx" : "Ww";
  constexpr auto to_half = [](I value) {
    return float_to_half(to_odd_float(static_cast<double>(value)));
  };
  forms["cvt.rn.f16." + name] = {unary<u16, I, to_half>, from};
}

template <typename D>
void add_from_all(Forms& forms, const std::string& d) {
  add_integers<D, s8>(forms, d, "s8");
  add_integers<D, u8>(forms, d, "u8");
  add_integers<D, s16>(forms, d, "s16");
  add_integers<D, u16>(forms, d, "u16");
  add_integers<D, s32>(forms, d, "s32");
  add_integers<D, u32>(forms, d, "u32");
  add_integers<D, s64>(forms, d, "s64");
  add_integers<D, u64>(forms, d, "u64");
}

// Toward zero: the nearest one, or the one before where that was farther from zero.
template <bool bfloat>
u16 toward_zero(f32 value) {
  if (value != value) return 0x7fff;
  if constexpr (bfloat) return static_cast<u16>(std::bit_cast<u32>(value) >> 16);
  const u16 nearest = float_to_half(value);
  if (std::isinf(value)) return nearest;
  return std::fabs(half_to_float(nearest)) > std::fabs(value) ? static_cast<u16>(nearest - 1)
                                                              : nearest;
}

template <bool relu, auto f>
constexpr auto pair = [](f32 upper, f32 lower) -> u32 {
  const u16 a = relu and upper < 0 ? u16{0} : f(upper);
  const u16 b = relu and lower < 0 ? u16{0} : f(lower);
  return static_cast<u32>(a) << 16 | b;
};
f32 saturated(f32 value) { return value > 0 ? (value < 1 ? value : 1.0f) : 0.0f; }

void add_halves(Forms& forms) {
  forms["cvt.f32.f16"] = {unary<f32, u16, half_to_float>, "Ww"};
  forms["cvt.f32.bf16"] = {unary<f32, u16, bfloat_to_float>, "Ww"};
  forms["cvt.f64.f16"] = {unary<f64, u16, [](u16 a) { return static_cast<f64>(half_to_float(a)); }>,
                          "Xw"};
  forms["cvt.rn.f16.f32"] = {unary<u16, f32, float_to_half>, "Ww"};
  forms["cvt.rz.f16.f32"] = {unary<u16, f32, toward_zero<false>>, "Ww"};
  forms["cvt.rn.bf16.f32"] = {unary<u16, f32, float_to_bfloat>, "Ww"};
  forms["cvt.rz.bf16.f32"] = {unary<u16, f32, toward_zero<true>>, "Ww"};
  forms["cvt.rn.f16.f64"] = {unary<u16, f64, [](f64 a) { return float_to_half(to_odd_float(a)); }>,
                             "Wx"};
  forms["cvt.rn.f16x2.f32"] = {binary<u32, f32, f32, pair<false, float_to_half>>, "Www"};
  forms["cvt.rn.bf16x2.f32"] = {binary<u32, f32, f32, pair<false, float_to_bfloat>>, "Www"};
  forms["cvt.rz.f16x2.f32"] = {binary<u32, f32, f32, pair<false, toward_zero<false>>>, "Www"};
  forms["cvt.rz.bf16x2.f32"] = {binary<u32, f32, f32, pair<false, toward_zero<true>>>, "Www"};
  forms["cvt.rn.relu.f16x2.f32"] = {binary<u32, f32, f32, pair<true, float_to_half>>, "Www"};
  forms["cvt.rn.relu.bf16x2.f32"] = {binary<u32, f32, f32, pair<true, float_to_bfloat>>, "Www"};
}

template <typename T, int mode>
void add_integral(Forms& forms, const std::string& type) {
  const std::string rounding = integral_names[mode];
  const char* operands = sizeof(T) == 8 ? "Xx" : "Ww";
  forms["cvt" + rounding + "." + type + "." + type] = {unary<T, T, to_integral<mode, T>>, operands};
  if constexpr (sizeof(T) == 4) {
    forms["cvt" + rounding + ".ftz.f32.f32"] = {
        unary<T, T, [](T a) { return to_integral<mode, T>(flushed(a)); }>, operands};
  }
}

}  // namespace

void add_convert_forms(Forms& forms) {
  add_integer_and_floats<s8>(forms, "s8");
  add_integer_and_floats<u8>(forms, "u8");
  add_integer_and_floats<s16>(forms, "s16");
  add_integer_and_floats<u16>(forms, "u16");
  add_integer_and_floats<s32>(forms, "s32");
  add_integer_and_floats<u32>(forms, "u32");
  add_integer_and_floats<s64>(forms, "s64");
  add_integer_and_floats<u64>(forms, "u64");
  add_from_all<s8>(forms, "s8");
  add_from_all<u8>(forms, "u8");
  add_from_all<s16>(forms, "s16");
  add_from_all<u16>(forms, "u16");
  add_from_all<s32>(forms, "s32");
  add_from_all<u32>(forms, "u32");
  add_from_all<s64>(forms, "s64");
  add_from_all<u64>(forms, "u64");
  add_rounded<f32, f64>(forms, "f32", "f64");
  add_halves(forms);
  add_integral<f32, 0>(forms, "f32");
  add_integral<f32, 1>(forms, "f32");
  add_integral<f32, 2>(forms, "f32");
  add_integral<f32, 3>(forms, "f32");
  add_integral<f64, 0>(forms, "f64");
  add_integral<f64, 1>(forms, "f64");
  add_integral<f64, 2>(forms, "f64");
  add_integral<f64, 3>(forms, "f64");
  forms["cvt.f64.f32"] = {unary<f64, f32, [](f32 a) { return static_cast<f64>(a); }>, "Xw"};
  forms["cvt.sat.f32.f32"] = {unary<f32, f32, saturated>, "Ww"};
  forms["cvt.ftz.f32.f32"] = {unary<f32, f32, flushed<f32>>, "Ww"};
  forms["cvt.ftz.sat.f32.f32"] = {unary<f32, f32, [](f32 a) { return saturated(flushed(a)); }>,
                                  "Ww"};
}

}  // namespace quantloom::emulator
