// Arithmetic of 32-bit and 64-bit floating point numbers.
#include <cfenv>
#include <cmath>

#include "forms.h"
#include "values.h"

namespace quantloom::emulator {
namespace {

template <typename T>
T flushed(T value) {
  return std::fabs(value) < std::numeric_limits<T>::min() ? std::copysign(T{0}, value) : value;
}
template <typename T>
T saturated(T value) {
  return value > T{0} ? (value < T{1} ? value : T{1}) : T{0};
}
// One NaN gives the other number; the smaller of zeros is the negative one.
template <typename T>
T smaller(T a, T b) {
  if (a != a) return b;
  if (b != b) return a;
  if (a == b) return std::signbit(a) ? a : b;
  return a < b ? a : b;
}
template <typename T>
T larger(T a, T b) {
  if (a != a) return b;
  if (b != b) return a;
  if (a == b) return std::signbit(a) ? b : a;
  return a < b ? b : a;
}

template <typename T, bool ftz, bool sat, auto f>
constexpr auto with2 = [](T a, T b) {
  if constexpr (ftz) a = flushed(a), b = flushed(b);
  T d = f(a, b);
  if constexpr (ftz) d = flushed(d);
  if constexpr (sat) d = saturated(d);
  return d;
};
template <typename T, bool ftz, bool sat, auto f>
constexpr auto with3 = [](T a, T b, T e) {
  if constexpr (ftz) a = flushed(a), b = flushed(b), e = flushed(e);
  T d = f(a, b, e);
  if constexpr (ftz) d = flushed(d);
  if constexpr (sat) d = saturated(d);
  return d;
};
template <typename T, bool ftz, auto f>
constexpr auto with1 = [](T a) {
  if constexpr (ftz) a = flushed(a);
  T d = f(a);
  if constexpr (ftz) d = flushed(d);
  return d;
};

// A directed rounding. The volatile operands keep the operation between the changes of mode.
template <typename T, int mode, auto f>
constexpr auto directed = [](auto... operands) {
  volatile T kept[] = {operands...};
  const int before = std::fegetround();
  std::fesetround(mode);
  volatile T result;
  if constexpr (sizeof...(operands) == 1) {
    result = f(kept[0]);
  } else if constexpr (sizeof...(operands) == 2) {
    result = f(kept[0], kept[1]);
  } else {
    result = f(kept[0], kept[1], kept[2]);
  }
  std::fesetround(before);
  return static_cast<T>(result);
};

template <typename T>
struct Names {
  static constexpr bool wide = sizeof(T) == 8;
  static constexpr const char* one = wide ? "Xx" : "Ww";
  static constexpr const char* two = wide ? "Xxx" : "Www";
  static constexpr const char* three = wide ? "Xxxx" : "Wwww";
};

template <typename T, bool ftz, bool sat, auto f>
void add2(Forms& forms, const std::string& name, const std::string& tail) {
  const auto put = [&](const char* rounding, Handler handler) {
    forms[name + rounding + tail] = {handler, Names<T>::two};
  };
  put("", binary<T, T, T, with2<T, ftz, sat, f>>);
  put(".rn", binary<T, T, T, with2<T, ftz, sat, f>>);
  put(".rz", binary<T, T, T, with2<T, ftz, sat, directed<T, FE_TOWARDZERO, f>>>);
  put(".rm", binary<T, T, T, with2<T, ftz, sat, directed<T, FE_DOWNWARD, f>>>);
  put(".rp", binary<T, T, T, with2<T, ftz, sat, directed<T, FE_UPWARD, f>>>);
}
template <typename T, bool ftz, bool sat, auto f>
void add3(Forms& forms, const std::string& name, const std::string& tail) {
  const auto put = [&](const char* rounding, Handler handler) {
    forms[name + rounding + tail] = {handler, Names<T>::three};
  };
  put(".rn", ternary<T, T, T, T, with3<T, ftz, sat, f>>);
  put(".rz", ternary<T, T, T, T, with3<T, ftz, sat, directed<T, FE_TOWARDZERO, f>>>);
  put(".rm", ternary<T, T, T, T, with3<T, ftz, sat, directed<T, FE_DOWNWARD, f>>>);
  put(".rp", ternary<T, T, T, T, with3<T, ftz, sat, directed<T, FE_UPWARD, f>>>);
}
template <typename T, bool ftz, auto f>
void add1(Forms& forms, const std::string& name, const std::string& tail) {
  const auto put = [&](const char* rounding, Handler handler) {
    forms[name + rounding + tail] = {handler, Names<T>::one};
  };
  put(".rn", unary<T, T, with1<T, ftz, f>>);
  put(".rz", unary<T, T, with1<T, ftz, directed<T, FE_TOWARDZERO, f>>>);
  put(".rm", unary<T, T, with1<T, ftz, directed<T, FE_DOWNWARD, f>>>);
  put(".rp", unary<T, T, with1<T, ftz, directed<T, FE_UPWARD, f>>>);
}

template <typename T, bool ftz, bool sat>
void add_rounded(Forms& forms, const std::string& tail) {
  add2<T, ftz, sat, [](T a, T b) { return a + b; }>(forms, "add", tail);
  add2<T, ftz, sat, [](T a, T b) { return a - b; }>(forms, "sub", tail);
  add2<T, ftz, sat, [](T a, T b) { return a * b; }>(forms, "mul", tail);
  add3<T, ftz, sat, [](T a, T b, T e) { return std::fma(a, b, e); }>(forms, "fma", tail);
  add3<T, ftz, sat, [](T a, T b, T e) { return std::fma(a, b, e); }>(forms, "mad", tail);
}

template <typename T>
T reciprocal_root(T a) {
  return T{1} / std::sqrt(a);
}

template <typename T, bool ftz>
void add_other(Forms& forms, const std::string& tail) {
  using N = Names<T>;
  add2<T, ftz, false, [](T a, T b) { return a / b; }>(forms, "div", tail);
  add1<T, ftz, [](T a) { return std::sqrt(a); }>(forms, "sqrt", tail);
  add1<T, ftz, [](T a) { return T{1} / a; }>(forms, "rcp", tail);
  forms["min" + tail] = {binary<T, T, T, with2<T, ftz, false, smaller<T>>>, N::two};
  forms["max" + tail] = {binary<T, T, T, with2<T, ftz, false, larger<T>>>, N::two};
  forms["abs" + tail] = {unary<T, T, with1<T, ftz, [](T a) { return std::fabs(a); }>>, N::one};
  forms["neg" + tail] = {unary<T, T, with1<T, ftz, [](T a) { return -a; }>>, N::one};
  forms["rsqrt.approx" + tail] = {unary<T, T, with1<T, ftz, reciprocal_root<T>>>, N::one};
}

// 2^a to about one unit in the last place: 2^whole times a polynomial of the rest.
f32 power_of_two(f32 a) {
  const f32 bounded = a < 130.0f ? (a > -160.0f ? a : -160.0f) : 130.0f;
  const f32 shifted = bounded + 0x1.8p23f;  // rounds to a whole number, in the last bits
  const s32 whole = static_cast<s32>(std::bit_cast<u32>(shifted) - std::bit_cast<u32>(0x1.8p23f));
  const f32 rest = bounded - (shifted - 0x1.8p23f);
  f32 p = 1.5252734e-5f;
  p = std::fma(p, rest, 1.5403530e-4f);
  p = std::fma(p, rest, 1.3333558e-3f);
  p = std::fma(p, rest, 9.6181291e-3f);
  p = std::fma(p, rest, 5.5504109e-2f);
  p = std::fma(p, rest, 2.4022651e-1f);
  p = std::fma(p, rest, 6.9314718e-1f);
  p = std::fma(p, rest, 1.0f);
  // In two factors: neither is beyond the normal numbers.
  const s32 half = whole / 2;
  const f32 first = std::bit_cast<f32>(static_cast<u32>(127 + half) << 23);
  const f32 second = std::bit_cast<f32>(static_cast<u32>(127 + whole - half) << 23);
  return a != a ? a : p * first * second;
}

template <bool ftz>
void add_approximate(Forms& forms, const std::string& tail) {
  const auto put1 = [&](const char* name, Handler handler) {
    forms[name + tail] = {handler, "Ww"};
  };
  put1("ex2.approx", unary<f32, f32, with1<f32, ftz, power_of_two>>);
  put1("lg2.approx", unary<f32, f32, with1<f32, ftz, [](f32 a) { return std::log2(a); }>>);
  put1("sin.approx", unary<f32, f32, with1<f32, ftz, [](f32 a) { return std::sin(a); }>>);
  put1("cos.approx", unary<f32, f32, with1<f32, ftz, [](f32 a) { return std::cos(a); }>>);
  put1("rcp.approx", unary<f32, f32, with1<f32, ftz, [](f32 a) { return 1.0f / a; }>>);
  put1("sqrt.approx", unary<f32, f32, with1<f32, ftz, [](f32 a) { return std::sqrt(a); }>>);
  constexpr auto divide = [](f32 a, f32 b) { return a / b; };
  forms["div.approx" + tail] = {binary<f32, f32, f32, with2<f32, ftz, false, divide>>, "Www"};
  forms["div.full" + tail] = forms["div.approx" + tail];
}

template <typename T, bool ftz, auto f>
constexpr auto flushed_compare = [](T a, T b) {
  if constexpr (ftz) a = flushed(a), b = flushed(b);
  return f(a, b);
};

template <typename T, bool ftz>
void add_comparisons(Forms& forms, const std::string& tail) {
  const auto put = [&](const char* name, Handler handler) {
    forms[std::string("setp.") + name + tail] = {handler, sizeof(T) == 8 ? "PQxx" : "PQww"};
  };
  put("eq", compare<T, flushed_compare<T, ftz, [](T a, T b) { return a == b; }>>);
  put("ne", compare<T, flushed_compare<T, ftz, [](T a, T b) { return a < b or b < a; }>>);
  put("lt", compare<T, flushed_compare<T, ftz, [](T a, T b) { return a < b; }>>);
  put("le", compare<T, flushed_compare<T, ftz, [](T a, T b) { return a <= b; }>>);
  put("gt", compare<T, flushed_compare<T, ftz, [](T a, T b) { return b < a; }>>);
  put("ge", compare<T, flushed_compare<T, ftz, [](T a, T b) { return b <= a; }>>);
  put("equ", compare<T, flushed_compare<T, ftz, [](T a, T b) { return not(a < b or b < a); }>>);
  put("neu", compare<T, flushed_compare<T, ftz, [](T a, T b) { return a != b; }>>);
  put("ltu", compare<T, flushed_compare<T, ftz, [](T a, T b) { return not(b <= a); }>>);
  put("leu", compare<T, flushed_compare<T, ftz, [](T a, T b) { return not(b < a); }>>);
  put("gtu", compare<T, flushed_compare<T, ftz, [](T a, T b) { return not(a <= b); }>>);
  put("geu", compare<T, flushed_compare<T, ftz, [](T a, T b) { return not(a < b); }>>);
  put("num", compare<T, [](T a, T b) { return a == a and b == b; }>);
  put("nan", compare<T, [](T a, T b) { return a != a or b != b; }>);
}

template <typename T>
T sign_of(T sign, T magnitude) {
  return std::copysign(magnitude, sign);
}

}  // namespace

void add_float_forms(Forms& forms) {
  add_rounded<f32, false, false>(forms, ".f32");
  add_rounded<f32, false, true>(forms, ".sat.f32");
  add_rounded<f32, true, false>(forms, ".ftz.f32");
  add_rounded<f32, true, true>(forms, ".ftz.sat.f32");
  add_rounded<f64, false, false>(forms, ".f64");
  add_other<f32, false>(forms, ".f32");
  add_other<f32, true>(forms, ".ftz.f32");
  add_other<f64, false>(forms, ".f64");
  add_approximate<false>(forms, ".f32");
  add_approximate<true>(forms, ".ftz.f32");
  forms["tanh.approx.f32"] = {unary<f32, f32, [](f32 a) { return std::tanh(a); }>, "Ww"};
  forms["rcp.approx.ftz.f64"] = {unary<f64, f64, [](f64 a) { return 1.0 / flushed(a); }>, "Xx"};
  forms["rsqrt.approx.ftz.f64"] = {
      unary<f64, f64, [](f64 a) { return reciprocal_root(flushed(a)); }>, "Xx"};
  add_comparisons<f32, false>(forms, ".f32");
  add_comparisons<f32, true>(forms, ".ftz.f32");
  add_comparisons<f64, false>(forms, ".f64");
  forms["copysign.f32"] = {binary<f32, f32, f32, sign_of<f32>>, "Www"};
  forms["copysign.f64"] = {binary<f64, f64, f64, sign_of<f64>>, "Xxx"};
}

}  // namespace quantloom::emulator
