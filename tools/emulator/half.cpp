// Arithmetic of halves and bfloat16 numbers, alone and in pairs. Sums and products of two are exact
// enough in float32 for a second rounding to change nothing; a fused product goes through float64.
#include "half.h"

#include "forms.h"
#include "values.h"

namespace quantloom::emulator {
namespace {

template <bool bfloat>
float widen(u16 value) {
  return bfloat ? bfloat_to_float(value) : half_to_float(value);
}
template <bool bfloat>
u16 narrow(float value) {
  return bfloat ? float_to_bfloat(value) : float_to_half(value);
}

template <bool bfloat, auto f>
constexpr auto one2 =
    [](u16 a, u16 b) -> u16 { return narrow<bfloat>(f(widen<bfloat>(a), widen<bfloat>(b))); };
template <bool bfloat, bool relu>
constexpr auto fused = [](u16 a, u16 b, u16 c) -> u16 {
  const double product = static_cast<double>(widen<bfloat>(a)) * widen<bfloat>(b);
  const float sum = to_odd_float(product + static_cast<double>(widen<bfloat>(c)));
  if (relu and sum < 0) return 0;
  return narrow<bfloat>(sum);
};

template <auto f>
constexpr auto pair1 = [](u32 a) -> u32 {
  return f(static_cast<u16>(a)) | static_cast<u32>(f(static_cast<u16>(a >> 16))) << 16;
};
template <auto f>
constexpr auto pair2 = [](u32 a, u32 b) -> u32 {
  return f(static_cast<u16>(a), static_cast<u16>(b)) |
         static_cast<u32>(f(static_cast<u16>(a >> 16), static_cast<u16>(b >> 16))) << 16;
};
template <auto f>
constexpr auto pair3 = [](u32 a, u32 b, u32 c) -> u32 {
  return f(static_cast<u16>(a), static_cast<u16>(b), static_cast<u16>(c)) |
         static_cast<u32>(
             f(static_cast<u16>(a >> 16), static_cast<u16>(b >> 16), static_cast<u16>(c >> 16)))
             << 16;
};

float smaller(float a, float b) {
  if (a != a) return b;
  if (b != b) return a;
  if (a == b) return std::signbit(a) ? a : b;
  return a < b ? a : b;
}
float larger(float a, float b) {
  if (a != a) return b;
  if (b != b) return a;
  if (a == b) return std::signbit(a) ? b : a;
  return a < b ? b : a;
}

template <bool bfloat, auto f>
void add2(Forms& forms, const std::string& name, const std::string& type) {
  forms[name + type] = {binary<u16, u16, u16, one2<bfloat, f>>, "Www"};
  forms[name + type + "x2"] = {binary<u32, u32, u32, pair2<one2<bfloat, f>>>, "Www"};
}

template <bool bfloat>
void add_type(Forms& forms, const std::string& type) {
  for (const char* rounding : {".", ".rn."}) {
    add2<bfloat, [](float a, float b) { return a + b; }>(forms, std::string("add") + rounding,
                                                         type);
    add2<bfloat, [](float a, float b) { return a - b; }>(forms, std::string("sub") + rounding,
                                                         type);
    add2<bfloat, [](float a, float b) { return a * b; }>(forms, std::string("mul") + rounding,
                                                         type);
  }
  add2<bfloat, smaller>(forms, "min.", type);
  add2<bfloat, larger>(forms, "max.", type);
  forms["fma.rn." + type] = {ternary<u16, u16, u16, u16, fused<bfloat, false>>, "Wwww"};
  forms["fma.rn." + type + "x2"] = {ternary<u32, u32, u32, u32, pair3<fused<bfloat, false>>>,
                                    "Wwww"};
  forms["fma.rn.relu." + type] = {ternary<u16, u16, u16, u16, fused<bfloat, true>>, "Wwww"};
  forms["fma.rn.relu." + type + "x2"] = {ternary<u32, u32, u32, u32, pair3<fused<bfloat, true>>>,
                                         "Wwww"};
  constexpr auto negative = [](u16 a) -> u16 { return static_cast<u16>(a ^ 0x8000u); };
  constexpr auto absolute = [](u16 a) -> u16 { return static_cast<u16>(a & 0x7fffu); };
  forms["neg." + type] = {unary<u16, u16, negative>, "Ww"};
  forms["neg." + type + "x2"] = {unary<u32, u32, pair1<negative>>, "Ww"};
  forms["abs." + type] = {unary<u16, u16, absolute>, "Ww"};
  forms["abs." + type + "x2"] = {unary<u32, u32, pair1<absolute>>, "Ww"};
  const auto put = [&](const char* name, Handler handler) {
    forms[std::string("setp.") + name + "." + type] = {handler, "PQww"};
  };
  put("eq", compare<u16, [](u16 a, u16 b) { return widen<bfloat>(a) == widen<bfloat>(b); }>);
  put("lt", compare<u16, [](u16 a, u16 b) { return widen<bfloat>(a) < widen<bfloat>(b); }>);
  put("le", compare<u16, [](u16 a, u16 b) { return widen<bfloat>(a) <= widen<bfloat>(b); }>);
  put("gt", compare<u16, [](u16 a, u16 b) { return widen<bfloat>(b) < widen<bfloat>(a); }>);
  put("ge", compare<u16, [](u16 a, u16 b) { return widen<bfloat>(b) <= widen<bfloat>(a); }>);
  put("neu", compare<u16, [](u16 a, u16 b) { return widen<bfloat>(a) != widen<bfloat>(b); }>);
}

}  // namespace

void add_half_forms(Forms& forms) {
  add_type<false>(forms, "f16");
  add_type<true>(forms, "bf16");
}

}  // namespace quantloom::emulator
