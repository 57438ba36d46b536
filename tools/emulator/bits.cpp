// Shifts and what picks bits and bytes.
#include "forms.h"
#include "values.h"

namespace quantloom::emulator {
namespace {

template <typename T>
constexpr unsigned width = 8 * sizeof(T);

template <typename U>
U shift_left(U a, u32 count) {
  return count < width<U> ? static_cast<U>(Slot<U>{a} << count) : U{0};
}
template <typename T>
T shift_right(T a, u32 count) {
  if constexpr (std::is_signed_v<T>) {
    return static_cast<T>(a >> (count < width<T> ? count : width<T> - 1));
  } else {
    return count < width<T> ? static_cast<T>(a >> count) : T{0};
  }
}

template <typename T>
void add_shifts(Forms& forms, const std::string& number, const std::string& bits) {
  using S = std::make_signed_t<T>;
  const char* operands = sizeof(T) == 8 ? "Xxw" : "Www";
  forms["shl." + bits] = {binary<T, T, u32, shift_left<T>>, operands};
  forms["shr.u" + number] = {binary<T, T, u32, shift_right<T>>, operands};
  forms["shr." + bits] = forms["shr.u" + number];
  forms["shr.s" + number] = {binary<S, S, u32, shift_right<S>>, operands};
}

template <typename T>
T extract(T a, u32 position, u32 length) {
  position &= 255, length &= 255;
  constexpr unsigned top = width<T> - 1;
  bool sign = false;
  if constexpr (std::is_signed_v<T>) {
    const unsigned at = length == 0 ? 0 : std::min(position + length - 1, top);
    sign = length != 0 and (static_cast<std::make_unsigned_t<T>>(a) >> at & 1) != 0;
  }
  using U = std::make_unsigned_t<T>;
  const U shifted = position > top ? U{0} : static_cast<U>(a) >> position;
  const unsigned from_source = position > top ? 0 : std::min(length, width<T> - position);
  const U kept = from_source >= width<T> ? ~U{0} : (U{1} << from_source) - 1;
  U result = shifted & kept;
  if (sign) result |= ~kept;
  return static_cast<T>(result);
}
template <typename U>
U insert(U a, U b, u32 position, u32 length) {
  position &= 255, length &= 255;
  if (position >= width<U> or length == 0) return b;
  const U field = length >= width<U> ? ~U{0} : (U{1} << length) - 1;
  return (b & ~(field << position)) | (a & field) << position;
}
template <typename U>
void insert_lanes(Context& c, const Instruction& i, u32 mask) {
  for_lanes(mask, [&](unsigned l) {
    write<U>(c, i.op[0], l,
             insert<U>(read<U>(c, i.op[1], l), read<U>(c, i.op[2], l), read<u32>(c, i.op[3], l),
                       read<u32>(c, i.op[4], l)));
  });
}

template <typename U>
U reversed(U a) {
  U result = 0;
  for (unsigned b = 0; b < width<U>; ++b) result = result << 1 | (a >> b & 1);
  return result;
}

template <typename T, bool amount>
u32 find_highest(T a) {
  using U = std::make_unsigned_t<T>;
  U bits = static_cast<U>(a);
  if constexpr (std::is_signed_v<T>) {
    if (a < 0) bits = ~bits;
  }
  if (bits == 0) return 0xffffffffu;
  const u32 at = width<T> - 1 - static_cast<u32>(std::countl_zero(bits));
  return amount ? width<T> - 1 - at : at;
}

template <typename U>
void add_counts(Forms& forms, const std::string& number) {
  using S = std::make_signed_t<U>;
  const char* count = sizeof(U) == 8 ? "Wx" : "Ww";
  constexpr auto ones = [](U a) { return static_cast<u32>(std::popcount(a)); };
  constexpr auto zeros = [](U a) { return static_cast<u32>(std::countl_zero(a)); };
  forms["popc.b" + number] = {unary<u32, U, ones>, count};
  forms["clz.b" + number] = {unary<u32, U, zeros>, count};
  forms["brev.b" + number] = {unary<U, U, reversed<U>>, sizeof(U) == 8 ? "Xx" : "Ww"};
  forms["bfind.u" + number] = {unary<u32, U, find_highest<U, false>>, count};
  forms["bfind.s" + number] = {unary<u32, S, find_highest<S, false>>, count};
  forms["bfind.shiftamt.u" + number] = {unary<u32, U, find_highest<U, true>>, count};
  forms["bfind.shiftamt.s" + number] = {unary<u32, S, find_highest<S, true>>, count};
  const char* field = sizeof(U) == 8 ? "Xxww" : "Wwww";
  forms["bfe.u" + number] = {ternary<U, U, u32, u32, extract<U>>, field};
  forms["bfe.s" + number] = {ternary<S, S, u32, u32, extract<S>>, field};
  forms["bfi.b" + number] = {insert_lanes<U>, sizeof(U) == 8 ? "Xxxww" : "Wwwww"};
}

inline u32 byte_of(u32 a, u32 b, u32 selector) {
  const u32 word = (selector & 4) != 0 ? b : a;
  const u32 value = (word >> 8 * (selector & 3)) & 255u;
  return (selector & 8) != 0 ? (value >> 7) * 255u : value;
}
inline u32 permute(u32 a, u32 b, u32 selector) {
  return byte_of(a, b, selector) | byte_of(a, b, selector >> 4) << 8 |
         byte_of(a, b, selector >> 8) << 16 | byte_of(a, b, selector >> 12) << 24;
}
template <int mode>
u32 permute_mode(u32 a, u32 b, u32 c) {
  static constexpr u32 selectors[6][4] = {
      {0x3210, 0x4321, 0x5432, 0x6543},  // f4e
      {0x5670, 0x6701, 0x7012, 0x0123},  // b4e
      {0x0000, 0x1111, 0x2222, 0x3333},  // rc8
      {0x3210, 0x3211, 0x3222, 0x3333},  // ecl
      {0x0000, 0x1110, 0x2210, 0x3210},  // ecr
      {0x1010, 0x3232, 0x1010, 0x3232},  // rc16
  };
  return permute(a, b, selectors[mode][c & 3]);
}

template <auto f>
constexpr auto funnel = [](u32 a, u32 b, u32 c) { return f(u64{b} << 32 | a, c); };

void logic3(Context& c, const Instruction& i, u32 mask) {
  u32 terms[8];
  for (unsigned n = 0; n < 8; ++n) terms[n] = (i.immediate >> n & 1) != 0 ? all_lanes : 0;
  auto* d = c.at<u32>(i.op[0]);
  const auto *x = c.at<const u32>(i.op[1]), *y = c.at<const u32>(i.op[2]);
  const auto* z = c.at<const u32>(i.op[3]);
  u32 results[32];
  for (unsigned l = 0; l < 32; ++l) {
    u32 result = 0;
    for (unsigned n = 0; n < 8; ++n) {
      result |= terms[n] & ((n & 4) != 0 ? x[l] : ~x[l]) & ((n & 2) != 0 ? y[l] : ~y[l]) &
                ((n & 1) != 0 ? z[l] : ~z[l]);
    }
    results[l] = result;
  }
  for_lanes(mask, [&](unsigned l) { d[l] = results[l]; });
}

template <typename A, typename B>
u32 dot4(u32 a, u32 b, u32 sum) {
  for (int n = 0; n < 4; ++n) {
    sum += static_cast<u32>(static_cast<s32>(static_cast<A>(a >> 8 * n)) *
                            static_cast<s32>(static_cast<B>(b >> 8 * n)));
  }
  return sum;
}
template <typename A, typename B, int half>
u32 dot2(u32 a, u32 b, u32 sum) {
  using A16 = std::conditional_t<std::is_signed_v<A>, s16, u16>;
  for (int n = 0; n < 2; ++n) {
    sum += static_cast<u32>(static_cast<s32>(static_cast<A16>(a >> 16 * n)) *
                            static_cast<s32>(static_cast<B>(b >> (16 * half + 8 * n))));
  }
  return sum;
}
template <typename A, typename B>
void add_dots(Forms& forms, const std::string& types) {
  forms["dp4a." + types] = {ternary<u32, u32, u32, u32, dot4<A, B>>, "Wwww"};
  forms["dp2a.lo." + types] = {ternary<u32, u32, u32, u32, dot2<A, B, 0>>, "Wwww"};
  forms["dp2a.hi." + types] = {ternary<u32, u32, u32, u32, dot2<A, B, 1>>, "Wwww"};
}

}  // namespace

void add_bit_forms(Forms& forms) {
  add_shifts<u16>(forms, "16", "b16");
  add_shifts<u32>(forms, "32", "b32");
  add_shifts<u64>(forms, "64", "b64");
  add_counts<u32>(forms, "32");
  add_counts<u64>(forms, "64");
  const auto put3 = [&](const char* name, Handler handler) { forms[name] = {handler, "Wwww"}; };
  put3("prmt.b32", ternary<u32, u32, u32, u32, permute>);
  put3("prmt.b32.f4e", ternary<u32, u32, u32, u32, permute_mode<0>>);
  put3("prmt.b32.b4e", ternary<u32, u32, u32, u32, permute_mode<1>>);
  put3("prmt.b32.rc8", ternary<u32, u32, u32, u32, permute_mode<2>>);
  put3("prmt.b32.ecl", ternary<u32, u32, u32, u32, permute_mode<3>>);
  put3("prmt.b32.ecr", ternary<u32, u32, u32, u32, permute_mode<4>>);
  put3("prmt.b32.rc16", ternary<u32, u32, u32, u32, permute_mode<5>>);
  constexpr auto left_wrap = [](u64 both, u32 n) {
    return static_cast<u32>((both << (n & 31)) >> 32);
  };
  constexpr auto right_wrap = [](u64 both, u32 n) { return static_cast<u32>(both >> (n & 31)); };
  constexpr auto left_clamp = [](u64 both, u32 n) {
    return n >= 32 ? static_cast<u32>(both) : static_cast<u32>((both << n) >> 32);
  };
  constexpr auto right_clamp = [](u64 both, u32 n) {
    return static_cast<u32>(both >> (n < 32 ? n : 32));
  };
  put3("shf.l.wrap.b32", ternary<u32, u32, u32, u32, funnel<left_wrap>>);
  put3("shf.r.wrap.b32", ternary<u32, u32, u32, u32, funnel<right_wrap>>);
  put3("shf.l.clamp.b32", ternary<u32, u32, u32, u32, funnel<left_clamp>>);
  put3("shf.r.clamp.b32", ternary<u32, u32, u32, u32, funnel<right_clamp>>);
  forms["lop3.b32"] = {logic3, "Wwwwi"};
  add_dots<s8, s8>(forms, "s32.s32");
  add_dots<s8, u8>(forms, "s32.u32");
  add_dots<u8, s8>(forms, "u32.s32");
  add_dots<u8, u8>(forms, "u32.u32");
}

}  // namespace quantloom::emulator
