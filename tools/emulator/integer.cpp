// Integer arithmetic, comparisons, moves and selections.
#include <algorithm>

#include "forms.h"
#include "values.h"

namespace quantloom::emulator {
namespace {

template <typename T>
using Unsigned = std::make_unsigned_t<T>;

template <typename T>
using Wide = std::conditional_t<
    sizeof(T) == 2, std::conditional_t<std::is_signed_v<T>, s32, u32>,
    std::conditional_t<sizeof(T) == 4, std::conditional_t<std::is_signed_v<T>, s64, u64>,
                       std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>>>;

template <typename T>
const char* letters(const char* narrow, const char* wide) {
  return sizeof(T) == 8 ? wide : narrow;
}

// Division by zero gives all ones, as the device does; the remainder is the dividend.
template <typename T>
T quotient(T a, T b) {
  if (b == 0) return static_cast<T>(-1);
  if constexpr (std::is_signed_v<T>) {
    if (b == -1) return static_cast<T>(0 - static_cast<Unsigned<T>>(a));
  }
  return static_cast<T>(a / b);
}
template <typename T>
T remainder(T a, T b) {
  if (b == 0) return a;
  if constexpr (std::is_signed_v<T>) {
    if (b == -1) return 0;
  }
  return static_cast<T>(a % b);
}

template <typename T>
T multiply_high(T a, T b) {
  return static_cast<T>((static_cast<Wide<T>>(a) * static_cast<Wide<T>>(b)) >> (8 * sizeof(T)));
}
template <typename T>
T multiply(T a, T b) {
  return static_cast<T>(static_cast<u64>(a) * static_cast<u64>(b));
}
template <typename T>
T add(T a, T b) {
  return static_cast<T>(static_cast<u64>(a) + static_cast<u64>(b));
}
template <typename T>
T saturate(s64 value) {
  return static_cast<T>(
      std::clamp<s64>(value, std::numeric_limits<T>::min(), std::numeric_limits<T>::max()));
}

template <typename T>
void add_arithmetic(Forms& forms, const std::string& type) {
  using U = Unsigned<T>;
  const char* two = letters<T>("Www", "Xxx");
  const char* three = letters<T>("Wwww", "Xxxx");
  forms["add." + type] = {binary<U, U, U, [](U a, U b) { return static_cast<U>(a + b); }>, two};
  forms["sub." + type] = {binary<U, U, U, [](U a, U b) { return static_cast<U>(a - b); }>, two};
  // 16-bit factors become ints: their product must not overflow one.
  forms["mul.lo." + type] = {
      binary<U, U, U, [](U a, U b) { return static_cast<U>(Slot<U>{a} * Slot<U>{b}); }>, two};
  forms["mad.lo." + type] = {
      ternary<U, U, U, U,
              [](U a, U b, U d) { return static_cast<U>(Slot<U>{a} * Slot<U>{b} + d); }>,
      three};
  forms["mul.hi." + type] = {binary<T, T, T, multiply_high<T>>, two};
  forms["mad.hi." + type] = {
      ternary<T, T, T, T, [](T a, T b, T d) { return add(multiply_high(a, b), d); }>, three};
  forms["div." + type] = {binary<T, T, T, quotient<T>>, two};
  forms["rem." + type] = {binary<T, T, T, remainder<T>>, two};
  forms["min." + type] = {binary<T, T, T, [](T a, T b) { return b < a ? b : a; }>, two};
  forms["max." + type] = {binary<T, T, T, [](T a, T b) { return a < b ? b : a; }>, two};
  forms["sad." + type] = {
      ternary<T, T, T, T,
              [](T a, T b, T d) {
                return add(d, static_cast<T>(a < b ? static_cast<U>(b) - static_cast<U>(a)
                                                   : static_cast<U>(a) - static_cast<U>(b)));
              }>,
      three};
  if constexpr (std::is_signed_v<T>) {
    const char* one = letters<T>("Ww", "Xx");
    forms["abs." + type] = {
        unary<U, T, [](T a) { return static_cast<U>(a < 0 ? U{0} - static_cast<U>(a) : a); }>, one};
    forms["neg." + type] = {unary<U, U, [](U a) { return static_cast<U>(U{0} - a); }>, one};
  }
  if constexpr (sizeof(T) < 8) {
    using W = Wide<T>;
    forms["mul.wide." + type] = {
        binary<W, T, T, [](T a, T b) { return static_cast<W>(static_cast<W>(a) * b); }>,
        letters<W>("Www", "Xww")};
    forms["mad.wide." + type] = {
        ternary<W, T, T, W,
                [](T a, T b, W d) { return add(static_cast<W>(static_cast<W>(a) * b), d); }>,
        letters<W>("Wwww", "Xwwx")};
  }
}

template <typename T>
void add_comparisons(Forms& forms, const std::string& type) {
  const char* operands = letters<T>("PQww", "PQxx");
  forms["setp.eq." + type] = {compare<T, [](T a, T b) { return a == b; }>, operands};
  forms["setp.ne." + type] = {compare<T, [](T a, T b) { return a != b; }>, operands};
  forms["setp.lt." + type] = {compare<T, [](T a, T b) { return a < b; }>, operands};
  forms["setp.le." + type] = {compare<T, [](T a, T b) { return a <= b; }>, operands};
  forms["setp.gt." + type] = {compare<T, [](T a, T b) { return b < a; }>, operands};
  forms["setp.ge." + type] = {compare<T, [](T a, T b) { return b <= a; }>, operands};
  if constexpr (std::is_unsigned_v<T>) {
    forms["setp.lo." + type] = forms["setp.lt." + type];
    forms["setp.ls." + type] = forms["setp.le." + type];
    forms["setp.hi." + type] = forms["setp.gt." + type];
    forms["setp.hs." + type] = forms["setp.ge." + type];
  }
}

template <typename T>
void select(Context& c, const Instruction& i, u32 mask) {
  auto* d = c.at<T>(i.op[0]);
  const auto* a = c.at<const T>(i.op[1]);
  const auto* b = c.at<const T>(i.op[2]);
  const u32 chosen = c.predicates[i.op[3]];
  if (mask == all_lanes) {
#pragma GCC ivdep
    for (u32 l = 0; l < 32; ++l) d[l] = (chosen & (1u << l)) != 0 ? a[l] : b[l];
  } else {
    for_lanes(mask, [&](unsigned l) { d[l] = (chosen >> l & 1) != 0 ? a[l] : b[l]; });
  }
}

template <auto f>
void predicate_binary(Context& c, const Instruction& i, u32 mask) {
  write_predicate(c, i.op[0], mask, f(c.predicates[i.op[1]], c.predicates[i.op[2]]));
}

template <typename U>
void add_untyped(Forms& forms, const std::string& bits) {
  const char* one = letters<U>("Ww", "Xx");
  const char* two = letters<U>("Www", "Xxx");
  forms["and." + bits] = {binary<U, U, U, [](U a, U b) { return static_cast<U>(a & b); }>, two};
  forms["or." + bits] = {binary<U, U, U, [](U a, U b) { return static_cast<U>(a | b); }>, two};
  forms["xor." + bits] = {binary<U, U, U, [](U a, U b) { return static_cast<U>(a ^ b); }>, two};
  forms["not." + bits] = {unary<U, U, [](U a) { return static_cast<U>(~a); }>, one};
  forms["cnot." + bits] = {unary<U, U, [](U a) { return static_cast<U>(a == 0); }>, one};
  forms["setp.eq." + bits] = {compare<U, [](U a, U b) { return a == b; }>,
                              letters<U>("PQww", "PQxx")};
  forms["setp.ne." + bits] = {compare<U, [](U a, U b) { return a != b; }>,
                              letters<U>("PQww", "PQxx")};
}

}  // namespace

void add_integer_forms(Forms& forms) {
  add_arithmetic<s16>(forms, "s16");
  add_arithmetic<u16>(forms, "u16");
  add_arithmetic<s32>(forms, "s32");
  add_arithmetic<u32>(forms, "u32");
  add_arithmetic<s64>(forms, "s64");
  add_arithmetic<u64>(forms, "u64");
  add_comparisons<s16>(forms, "s16");
  add_comparisons<u16>(forms, "u16");
  add_comparisons<s32>(forms, "s32");
  add_comparisons<u32>(forms, "u32");
  add_comparisons<s64>(forms, "s64");
  add_comparisons<u64>(forms, "u64");
  add_untyped<u16>(forms, "b16");
  add_untyped<u32>(forms, "b32");
  add_untyped<u64>(forms, "b64");
  forms["add.sat.s32"] = {
      binary<s32, s32, s32, [](s32 a, s32 b) { return saturate<s32>(s64{a} + b); }>, "Www"};
  forms["sub.sat.s32"] = {
      binary<s32, s32, s32, [](s32 a, s32 b) { return saturate<s32>(s64{a} - b); }>, "Www"};

  forms["max.u16x2"] = {binary<u32, u32, u32,
                               [](u32 a, u32 b) {
                                 return std::max(a & 0xffffu, b & 0xffffu) |
                                        std::max(a & 0xffff0000u, b & 0xffff0000u);
                               }>,
                        "Www"};

  for (const char* type : {"b16", "u16", "s16", "f16", "b32", "u32", "s32", "f32"}) {
    forms[std::string("selp.") + type] = {select<u32>, "Wwwp"};
    forms[std::string("mov.") + type] = {unary<u32, u32, [](u32 a) { return a; }>, "Ww"};
  }
  for (const char* type : {"b64", "u64", "s64", "f64"}) {
    forms[std::string("selp.") + type] = {select<u64>, "Xxxp"};
    forms[std::string("mov.") + type] = {unary<u64, u64, [](u64 a) { return a; }>, "Xx"};
  }
  forms["and.pred"] = {predicate_binary<[](u32 a, u32 b) { return a & b; }>, "Ppp"};
  forms["or.pred"] = {predicate_binary<[](u32 a, u32 b) { return a | b; }>, "Ppp"};
  forms["xor.pred"] = {predicate_binary<[](u32 a, u32 b) { return a ^ b; }>, "Ppp"};
  forms["not.pred"] = {[](Context& c, const Instruction& i, u32 mask) {
                         write_predicate(c, i.op[0], mask, ~c.predicates[i.op[1]]);
                       },
                       "Pp"};
  forms["mov.pred"] = {[](Context& c, const Instruction& i, u32 mask) {
                         write_predicate(c, i.op[0], mask, c.predicates[i.op[1]]);
                       },
                       "Pp"};
}

}  // namespace quantloom::emulator
