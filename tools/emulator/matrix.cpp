// mma, ldmatrix, stmatrix, movmatrix. Lane 4g + t holds rows g and g + 8 and the columns that begin
// at 2t (halves, sums) or at 4t (bytes).
#include <bit>

#include "forms.h"
#include "half.h"
#include "values.h"

namespace quantloom::emulator {
namespace {

// Types of a matrix: how they are stored, and what they are multiplied as.
struct HalfPart {
  using Stored = u16;
  using Sum = f32;
  static f32 value(u16 bits) { return half_to_float(bits); }
};
struct BfloatPart {
  using Stored = u16;
  using Sum = f32;
  static f32 value(u16 bits) { return bfloat_to_float(bits); }
};
struct TfPart {
  using Stored = u32;
  using Sum = f32;
  static f32 value(u32 bits) { return std::bit_cast<f32>(bits & 0xffffe000u); }
};
template <typename T>
struct BytePart {
  using Stored = T;
  using Sum = s32;
  static s32 value(T bits) { return bits; }
};

inline f32 multiply_add(f32 a, f32 b, f32 c) {
#if defined(__FP_FAST_FMAF)
  return __builtin_fmaf(a, b, c);  // the same, for the product is exact
#else
  return a * b + c;
#endif
}
// Sums wrap around as the device's do.
inline s32 multiply_add(s32 a, s32 b, s32 c) {
  return static_cast<s32>(static_cast<u32>(a * b) + static_cast<u32>(c));
}

// A register of the 32 lanes is eight rows of 16 bytes: to rows of `across` numbers.
template <typename Part, unsigned across>
void widen(const Context& c, u32 operand, typename Part::Sum (*rows)[across]) {
  using Stored = typename Part::Stored;
  constexpr unsigned per_row = 16 / sizeof(Stored);
  const auto* words = c.at<const std::byte>(operand);
  for (unsigned row = 0; row < 8; ++row) {
    Stored stored[per_row];
    std::memcpy(stored, words + 16 * row, 16);
    for (unsigned n = 0; n < per_row; ++n) rows[row][n] = Part::value(stored[n]);
  }
}

// m16 n8 k `depth`: lists hold the four sums, a, b and the four addends.
template <typename A, typename B, unsigned depth>
void multiply(Context& c, const Instruction& i, u32) {
  using Sum = typename A::Sum;
  constexpr unsigned per_row = 16 / sizeof(typename A::Stored);
  constexpr unsigned steps = depth / per_row;
  const u32* lists = c.frame->function->lists.data() + i.list;
  const u32 *a_list = lists + 4, *b_list = a_list + 2 * steps, *c_list = b_list + steps;
  alignas(64) Sum a[16][depth], b[8][depth], b_across[depth][8], d[16][8];
  for (unsigned s = 0; s < steps; ++s) {
    widen<A, depth>(c, a_list[2 * s], reinterpret_cast<Sum(*)[depth]>(&a[0][per_row * s]));
    widen<A, depth>(c, a_list[2 * s + 1], reinterpret_cast<Sum(*)[depth]>(&a[8][per_row * s]));
    widen<B, depth>(c, b_list[s], reinterpret_cast<Sum(*)[depth]>(&b[0][per_row * s]));
  }
  for (unsigned k = 0; k < depth; ++k) {
    for (unsigned n = 0; n < 8; ++n) b_across[k][n] = b[n][k];
  }
  for (unsigned n = 0; n < 4; ++n) {
    const auto* from = c.at<const Sum>(c_list[n]);
    for (unsigned l = 0; l < 32; ++l) d[l / 4 + n / 2 * 8][2 * (l % 4) + n % 2] = from[l];
  }
  for (unsigned row = 0; row < 16; ++row) {
    Sum sums[8];
    for (unsigned n = 0; n < 8; ++n) sums[n] = d[row][n];
    for (unsigned k = 0; k < depth; ++k) {
      for (unsigned n = 0; n < 8; ++n) {
        sums[n] = multiply_add(a[row][k], b_across[k][n], sums[n]);
      }
    }
    for (unsigned n = 0; n < 8; ++n) d[row][n] = sums[n];
  }
  for (unsigned n = 0; n < 4; ++n) {
    auto* to = c.at<Sum>(lists[n]);
    for (unsigned l = 0; l < 32; ++l) to[l] = d[l / 4 + n / 2 * 8][2 * (l % 4) + n % 2];
  }
}

// Lane 8m + r gives the address of row r of matrix m; 16 bytes a row.
template <unsigned count, bool transposed>
void load_matrices(Context& c, const Instruction& i, u32) {
  const u32* to = c.frame->function->lists.data() + i.list;
  u16 rows[count][8][8];
  for (unsigned l = 0; l < 8 * count; ++l) {
    std::memcpy(rows[l / 8][l % 8], shared_at(c, read<u32>(c, i.op[1], l), 16, l), 16);
  }
  for (unsigned m = 0; m < count; ++m) {
    for (unsigned l = 0; l < 32; ++l) {
      const unsigned r = l / 4, k = 2 * (l % 4);
      const u32 low = transposed ? rows[m][k][r] : rows[m][r][k];
      const u32 high = transposed ? rows[m][k + 1][r] : rows[m][r][k + 1];
      write<u32>(c, to[m], l, low | high << 16);
    }
  }
}

template <unsigned count, bool transposed>
void store_matrices(Context& c, const Instruction& i, u32) {
  const u32* from = c.frame->function->lists.data() + i.list;
  for (unsigned m = 0; m < count; ++m) {
    u16 rows[8][8];
    for (unsigned l = 0; l < 32; ++l) {
      const unsigned r = l / 4, k = 2 * (l % 4);
      const u32 word = read<u32>(c, from[m], l);
      (transposed ? rows[k][r] : rows[r][k]) = static_cast<u16>(word);
      (transposed ? rows[k + 1][r] : rows[r][k + 1]) = static_cast<u16>(word >> 16);
    }
    for (unsigned r = 0; r < 8; ++r) {
      const unsigned l = 8 * m + r;
      std::memcpy(shared_at(c, read<u32>(c, i.op[0], l), 16, l), rows[r], 16);
    }
  }
  c.progress = true;
}

void transpose_matrix(Context& c, const Instruction& i, u32) {
  u16 rows[8][8];
  for (unsigned l = 0; l < 32; ++l) {
    const u32 word = read<u32>(c, i.op[1], l);
    std::memcpy(&rows[l / 4][2 * (l % 4)], &word, 4);
  }
  for (unsigned l = 0; l < 32; ++l) {
    const unsigned r = l / 4, k = 2 * (l % 4);
    write<u32>(c, i.op[0], l, rows[k][r] | u32{rows[k + 1][r]} << 16);
  }
}

template <unsigned count>
void add_moves(Forms& forms) {
  for (const char* space : {".shared", ".shared::cta"}) {
    const std::string size = ".sync.aligned.m8n8.x" + std::to_string(count);
    const std::string tail = std::string(space) + ".b16";
    forms["ldmatrix" + size + tail] = {load_matrices<count, false>, "Vm", Kind::converge};
    forms["ldmatrix" + size + ".trans" + tail] = {load_matrices<count, true>, "Vm", Kind::converge};
    forms["stmatrix" + size + tail] = {store_matrices<count, false>, "mv", Kind::converge};
    forms["stmatrix" + size + ".trans" + tail] = {store_matrices<count, true>, "mv",
                                                  Kind::converge};
  }
}

template <typename A, typename B>
void add_bytes(Forms& forms, const std::string& a, const std::string& b) {
  const std::string types = ".row.col.s32." + a + "." + b + ".s32";
  forms["mma.sync.aligned.m16n8k32" + types] = {multiply<BytePart<A>, BytePart<B>, 32>, "Vvvv",
                                                Kind::converge};
  forms["mma.sync.aligned.m16n8k16" + types] = {multiply<BytePart<A>, BytePart<B>, 16>, "Vvvv",
                                                Kind::converge};
}

}  // namespace

void add_matrix_forms(Forms& forms) {
  const std::string name = "mma.sync.aligned.m16n8k";
  const std::string halves = ".row.col.f32.f16.f16.f32", bfloats = ".row.col.f32.bf16.bf16.f32";
  forms[name + "16" + halves] = {multiply<HalfPart, HalfPart, 16>, "Vvvv", Kind::converge};
  forms[name + "8" + halves] = {multiply<HalfPart, HalfPart, 8>, "Vvvv", Kind::converge};
  forms[name + "16" + bfloats] = {multiply<BfloatPart, BfloatPart, 16>, "Vvvv", Kind::converge};
  forms[name + "8" + bfloats] = {multiply<BfloatPart, BfloatPart, 8>, "Vvvv", Kind::converge};
  forms[name + "8.row.col.f32.tf32.tf32.f32"] = {multiply<TfPart, TfPart, 8>, "Vvvv",
                                                 Kind::converge};
  add_bytes<s8, s8>(forms, "s8", "s8");
  add_bytes<s8, u8>(forms, "s8", "u8");
  add_bytes<u8, s8>(forms, "u8", "s8");
  add_bytes<u8, u8>(forms, "u8", "u8");
  forms["movmatrix.sync.aligned.m8n8.trans.b16"] = {transpose_matrix, "Ww", Kind::converge};
  add_moves<1>(forms);
  add_moves<2>(forms);
  add_moves<4>(forms);
}

}  // namespace quantloom::emulator
