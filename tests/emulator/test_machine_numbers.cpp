// The emulator's interpreter: numbers, bits and matrices against plain loops.
#include <bit>
#include <cmath>
#include <limits>
#include <random>

#include "machine_tests.h"
#include "tensor_map.h"

using namespace quantloom::emulator;

using Words = std::vector<std::uint32_t>;

namespace {

// Halves of small whole numbers, so that every sum is exact.
std::uint16_t half_of(int value) {
  if (value == 0) return 0;
  const int magnitude = value < 0 ? -value : value;
  int exponent = 0;
  while (magnitude >> (exponent + 1) != 0) ++exponent;
  const int fraction = (magnitude << (10 - exponent)) & 1023;
  return static_cast<std::uint16_t>((value < 0 ? 0x8000 : 0) | (exponent + 15) << 10 | fraction);
}

float float_at(const Words& words, std::size_t i) {
  float value;
  std::memcpy(&value, &words[i], 4);
  return value;
}

std::string registers(const std::string& letter, unsigned first, unsigned count) {
  std::string text = "{";
  for (unsigned n = 0; n < count; ++n) {
    text += (n != 0 ? ", %" : "%") + letter + std::to_string(first + n);
  }
  return text + "}";
}

}  // namespace

TEST(permuted_bytes) {
  Words a(32), b(32);
  CHECK(fine(run_body(R"(
    mov.u32 %r1, 0x83828180;
    mov.u32 %r2, 0x07060584;
    prmt.b32 %r3, %r1, %r2, 0x7531;
    prmt.b32 %r4, %r1, %r2, 0xcb95;
    prmt.b32.b4e %r5, %r1, %r2, 1;
    st.global.v2.u32 [%a], {%r3, %r4};
    st.global.u32 [%a+8], %r5;)",
                      a, b, {{}, {1, 1, 1}, {}})));
  CHECK(a[0] == 0x07058381u);
  CHECK(a[1] == 0xffffff05u);  // sign bytes of 84, 83 and 81, then byte 5
  CHECK(a[2] == 0x06078081u);
}

TEST(conversions_round_and_saturate) {
  Words a(32), b(32);
  CHECK(fine(run_body(R"(
    mov.f32 %f1, 0f40200000;
    cvt.rni.s32.f32 %r1, %f1;
    cvt.rzi.s32.f32 %r2, 0fc0300000;
    cvt.rzi.u32.f32 %r3, 0fc0300000;
    cvt.rni.s32.f32 %r4, 0f7f800000;
    cvt.rni.s32.f32 %r5, 0f7fc00000;
    cvt.rn.f16.f32 %h1, 0f477ff000;
    cvt.u32.u16 %r6, %h1;
    cvt.rn.bf16x2.f32 %r7, 0f3f808000, 0f3f818000;
    cvt.sat.f32.f32 %f2, 0fc0000000;
    fma.rm.f32 %f3, 0f3f800001, 0f3f800001, 0f00000000;
    mov.b32 %r8, %f2;
    mov.b32 %r9, %f3;
    mov.u32 %r20, 0xff80;
    cvt.u16.u32 %h2, %r20;
    cvt.s32.s8 %r10, %h2;
    cvt.rn.f16.f32 %h3, 0f33000000;
    cvt.u32.u16 %r11, %h3;
    cvt.rn.f16.f32 %h3, 0f33000001;
    cvt.u32.u16 %r12, %h3;
    st.global.v4.u32 [%a], {%r1, %r2, %r3, %r4};
    st.global.v4.u32 [%a+16], {%r5, %r6, %r7, %r8};
    st.global.v4.u32 [%a+32], {%r9, %r10, %r11, %r12};)",
                      a, b, {{}, {1, 1, 1}, {}})));
  CHECK(a[0] == 2);
  CHECK(a[1] == static_cast<std::uint32_t>(-2));
  CHECK(a[2] == 0);
  CHECK(a[3] == 0x7fffffffu);
  CHECK(a[4] == 0);
  CHECK(a[5] == 0x7c00u);                    // 65520 rounds to infinity
  CHECK(a[6] == (0x3f80u << 16 | 0x3f82u));  // ties to even
  CHECK(a[7] == 0);
  CHECK(a[8] == 0x3f800002u);
  CHECK(a[9] == 0xffffff80u);
  CHECK(a[10] == 0 and a[11] == 1);  // half of the smallest half, and a little more
}

TEST(integers_at_their_limits) {
  Words a(32), b(32);
  CHECK(fine(run_body(R"(
    mov.u32 %r1, 0x80000000;
    shr.s32 %r2, %r1, 40;
    shl.b32 %r3, %r1, 32;
    mul.hi.s32 %r4, %r1, %r1;
    bfind.u32 %r5, 0x00010000;
    clz.b32 %r6, 1;
    bfi.b32 %r7, 0xff, 0, 8, 4;
    shf.l.wrap.b32 %r8, 0x80000001, 0x00000001, 4;
    min.s32 %r9, %r1, 1;
    div.s32 %r10, -7, 2;
    rem.s32 %r11, -7, 2;
    mov.u32 %r12, 0x0003fff0;
    mov.u32 %r13, 0x80020005;
    max.u16x2 %r12, %r12, %r13;
    st.global.v4.u32 [%a], {%r2, %r3, %r4, %r5};
    st.global.v4.u32 [%a+16], {%r6, %r7, %r8, %r9};
    st.global.v2.u32 [%a+32], {%r10, %r11};
    st.global.u32 [%a+40], %r12;)",
                      a, b, {{}, {1, 1, 1}, {}})));
  const Words expected{0xffffffffu,
                       0,
                       0x40000000u,
                       16,
                       31,
                       0xf00u,
                       0x18u,
                       0x80000000u,
                       static_cast<std::uint32_t>(-3),
                       static_cast<std::uint32_t>(-1),
                       0x8002fff0u};
  for (std::size_t i = 0; i < expected.size(); ++i) CHECK(a[i] == expected[i]);
}

TEST(mma_of_halves_from_ldmatrix) {
  // A [16][16] and B [8][16] (columns of k) in shared memory.
  std::vector<std::uint16_t> in(16 * 16 + 8 * 16);
  std::mt19937 random(1);
  std::vector<int> values(in.size());
  for (std::size_t i = 0; i < in.size(); ++i) {
    values[i] = static_cast<int>(random() % 21) - 10;
    in[i] = half_of(values[i]);
  }
  for (const bool transposed : {false, true}) {
    // Transposed, B is kept as [16][8].
    if (transposed) {
      for (int n = 0; n < 8; ++n) {
        for (int k = 0; k < 16; ++k) in[256 + k * 8 + n] = half_of(values[256 + n * 16 + k]);
      }
    }
    Words out(128);
    CHECK(fine(run_body(std::string(R"(
      .shared .align 16 .b8 room[1024];
      mov.u32 %r1, room;
      mul.lo.u32 %r2, %tid, 24;
      cvt.u64.u32 %rd1, %r2;
      add.s64 %rd2, %a, %rd1;
      add.u32 %r3, %r1, %r2;
      ld.global.u64 %rd3, [%rd2];
      ld.global.u64 %rd4, [%rd2+8];
      ld.global.u64 %rd5, [%rd2+16];
      st.shared.u64 [%r3], %rd3;
      st.shared.u64 [%r3+8], %rd4;
      st.shared.u64 [%r3+16], %rd5;
      bar.warp.sync -1;
      and.b32 %r4, %tid, 15;
      shr.u32 %r5, %tid, 4;
      shl.b32 %r6, %r4, 5;
      shl.b32 %r7, %r5, 4;
      add.u32 %r8, %r6, %r7;
      add.u32 %r8, %r8, %r1;
      ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r10,%r11,%r12,%r13}, [%r8];)") +
                            (transposed ? R"(
      shl.b32 %r9, %r4, 4;
      add.u32 %r9, %r9, %r1;
      ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%r14,%r15}, [%r9+512];)"
                                        : R"(
      and.b32 %r20, %tid, 7;
      shl.b32 %r20, %r20, 5;
      shr.u32 %r21, %tid, 3;
      and.b32 %r21, %r21, 1;
      shl.b32 %r21, %r21, 4;
      add.u32 %r9, %r20, %r21;
      add.u32 %r9, %r9, %r1;
      ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%r14,%r15}, [%r9+512];)") +
                            R"(
      mov.f32 %f1, 0f3f800000;
      mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%f2,%f3,%f4,%f5}, {%r10,%r11,%r12,%r13}, {%r14,%r15}, {%f1,%f1,%f1,%f1};
      mul.wide.u32 %rd6, %tid, 16;
      add.s64 %rd7, %b, %rd6;
      st.global.v4.f32 [%rd7], {%f2,%f3,%f4,%f5};)",
                        in, out)));
    for (int l = 0; l < 32; ++l) {
      for (int n = 0; n < 4; ++n) {
        const int row = l / 4 + n / 2 * 8, column = 2 * (l % 4) + n % 2;
        int sum = 1;
        for (int k = 0; k < 16; ++k) sum += values[row * 16 + k] * values[256 + column * 16 + k];
        CHECK(float_at(out, 4 * l + n) == static_cast<float>(sum));
      }
    }
  }
}

TEST(movmatrix_transposes_halves) {
  std::vector<std::uint16_t> in(64), out(64);
  for (std::size_t i = 0; i < in.size(); ++i) in[i] = static_cast<std::uint16_t>(1000 + i);
  CHECK(fine(run_body(R"(
    ld.global.u32 %r1, [%ao];
    movmatrix.sync.aligned.m8n8.trans.b16 %r2, %r1;
    st.global.u32 [%bo], %r2;)",
                      in, out)));
  for (std::size_t row = 0; row < 8; ++row) {
    for (std::size_t column = 0; column < 8; ++column) {
      CHECK(out[8 * row + column] == in[8 * column + row]);
    }
  }
}

// A lane's six words: %r1 .. %r4 of A, %r5 and %r6 of B.
const std::string operands = R"(
      mul.wide.u32 %rd1, %tid, 24;
      add.s64 %rd2, %a, %rd1;
      ld.global.v2.u32 {%r1, %r2}, [%rd2];
      ld.global.v2.u32 {%r3, %r4}, [%rd2+8];
      ld.global.v2.u32 {%r5, %r6}, [%rd2+16];)";

TEST(mma_of_bytes) {
  Words in(32 * 6), out(128);
  std::mt19937 random(2);
  for (auto& word : in) word = static_cast<std::uint32_t>(random());
  for (const bool is_signed : {false, true}) {
    CHECK(fine(
        run_body(operands + std::string(R"(
      mov.u32 %r7, 3;
      mma.sync.aligned.m16n8k32.row.col.s32.)") +
                     (is_signed ? "s8" : "u8") +
                     R"(.s8.s32 {%r7,%r8,%r9,%r10}, {%r1,%r2,%r3,%r4}, {%r5,%r6}, {%r7,%r7,%r7,%r7};
      mul.wide.u32 %rd6, %tid, 16;
      add.s64 %rd7, %b, %rd6;
      st.global.v4.u32 [%rd7], {%r7,%r8,%r9,%r10};)",
                 in, out)));
    const auto byte = [&](int lane, int word, int n) {
      return static_cast<int>(in[static_cast<std::size_t>(lane * 6 + word)] >> 8 * n & 255);
    };
    const auto a = [&](int row, int k) {
      const int value = byte(row % 8 * 4 + k % 16 / 4, row / 8 + k / 16 * 2, k % 4);
      return is_signed and value > 127 ? value - 256 : value;
    };
    const auto b = [&](int k, int column) {
      const int value = byte(column * 4 + k % 16 / 4, 4 + k / 16, k % 4);
      return value > 127 ? value - 256 : value;
    };
    for (int l = 0; l < 32; ++l) {
      for (int n = 0; n < 4; ++n) {
        const int row = l / 4 + n / 2 * 8, column = 2 * (l % 4) + n % 2;
        int sum = 3;
        for (int k = 0; k < 32; ++k) sum += a(row, k) * b(k, column);
        CHECK(out[static_cast<std::size_t>(4 * l + n)] == static_cast<std::uint32_t>(sum));
      }
    }
  }
}

// Integers of eleven bits, with bits below that a tf32 does not have.
TEST(mma_of_tf32) {
  Words in(32 * 6), out(128);
  std::vector<int> values(in.size());
  std::mt19937 random(4);
  for (std::size_t i = 0; i < in.size(); ++i) {
    values[i] = static_cast<int>(random() % 2048) - 1024;
    in[i] = std::bit_cast<std::uint32_t>(static_cast<float>(values[i]));
    if (values[i] != 0) in[i] |= random() & 0x1fffu;
  }
  CHECK(fine(run_body(operands + R"(
      mov.f32 %f1, 0f3f800000;
      mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%f2,%f3,%f4,%f5}, {%r1,%r2,%r3,%r4}, {%r5,%r6}, {%f1,%f1,%f1,%f1};
      mul.wide.u32 %rd6, %tid, 16;
      add.s64 %rd7, %b, %rd6;
      st.global.v4.f32 [%rd7], {%f2,%f3,%f4,%f5};)",
                      in, out)));
  const auto value = [&](int lane, int word) {
    return values[static_cast<std::size_t>(lane * 6 + word)];
  };
  for (int l = 0; l < 32; ++l) {
    for (int n = 0; n < 4; ++n) {
      const int row = l / 4 + n / 2 * 8, column = 2 * (l % 4) + n % 2;
      int sum = 1;
      for (int k = 0; k < 8; ++k) {
        sum +=
            value(row % 8 * 4 + k % 4, row / 8 + k / 4 * 2) * value(column * 4 + k % 4, 4 + k / 4);
      }
      CHECK(float_at(out, static_cast<std::size_t>(4 * l + n)) == static_cast<float>(sum));
    }
  }
}

// Boxes through a tensor map with the 128-byte swizzle, then wgmma from descriptors.
TEST(wgmma_of_boxes) {
  constexpr int rows = 64, columns = 128, depth = 64;
  std::mt19937 random(3);
  std::vector<int> a_values(rows * depth), b_values(columns * depth);
  for (const bool b_transposed : {false, true}) {
    struct alignas(64) Input {
      TensorMap maps[2];
      std::uint16_t a[rows * depth], b[columns * depth];
    };
    std::vector<Input> input(1);
    for (int i = 0; i < rows * depth; ++i) {
      a_values[i] = static_cast<int>(random() % 17) - 8;
      input[0].a[i] = half_of(a_values[i]);
    }
    // b[n][k], or b[k][n] where it is transposed.
    for (int n = 0; n < columns; ++n) {
      for (int k = 0; k < depth; ++k) {
        const int value = static_cast<int>(random() % 17) - 8;
        b_values[n * depth + k] = value;
        input[0].b[b_transposed ? k * columns + n : n * depth + k] = half_of(value);
      }
    }
    const auto map = [](const void* base, unsigned width, unsigned height, unsigned box) {
      TensorMap made;
      made.rank = 2, made.element_bytes = 2, made.swizzle = 128;
      made.base = reinterpret_cast<std::uintptr_t>(base);
      made.sizes[0] = width, made.sizes[1] = height;
      made.strides[0] = width * 2;
      made.box[0] = 64, made.box[1] = box;
      return made;
    };
    input[0].maps[0] = map(input[0].a, depth, rows - 3, 64);  // the last three rows are outside
    input[0].maps[1] =
        b_transposed ? map(input[0].b, columns, depth, 64) : map(input[0].b, depth, columns, 128);
    Words out(rows * columns);
    std::string body = R"(
      mov.u32 %r1, dynamic;
      add.u32 %r2, %r1, 8192;
      add.u32 %r3, %r1, 24576;
      setp.ne.u32 %p1, %tid, 0;
      @%p1 bra READY;
      mbarrier.init.shared::cta.b64 [%r3], 1;
      mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r3], 24576;
      add.s64 %rd1, %a, 128;
      mov.u32 %r4, 0;
      mov.u32 %r5, 64;
      add.u32 %r6, %r2, 8192;
      cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%a, {%r4, %r4}], [%r3];
      cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%r2], [%rd1, {%r4, %r4}], [%r3];
)";
    if (b_transposed) {
      body +=
          "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%r6], "
          "[%rd1, {%r5, %r4}], [%r3];\n";
    }
    body += R"(
    READY:
      bar.sync 0;
    AGAIN:
      mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r3], 0;
      @!%p2 bra AGAIN;
      and.b32 %r7, %r1, 0x3ffff;
      shr.u32 %r7, %r7, 4;
      cvt.u64.u32 %rd2, %r7;
      shr.u32 %r8, %r2, 4;
      cvt.u64.u32 %rd3, %r8;
)";
    // Swizzle 128, 1024 bytes from eight rows to the next, 8192 from 64 columns to the next.
    body += "or.b64 %rd2, %rd2, 0x4000004000010000;\n";
    body += b_transposed ? "or.b64 %rd3, %rd3, 0x4000004002000000;\n"
                         : "or.b64 %rd3, %rd3, 0x4000004000010000;\n";
    body += "wgmma.fence.sync.aligned;\nsetp.ne.b32 %p3, 0, 0;\n";
    for (int step = 0; step < depth / 16; ++step) {
      body += "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 " + registers("f", 0, 64) +
              ", %rd2, %rd3, %p3, 1, 1, 0, " + (b_transposed ? "1" : "0") + ";\n" +
              "setp.ne.b32 %p3, 1, 0;\nadd.s64 %rd2, %rd2, 2;\nadd.s64 %rd3, %rd3, " +
              (b_transposed ? "128" : "2") + ";\n";
    }
    body +=
        "wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;\n"
        "mul.wide.u32 %rd4, %tid, 256;\nadd.s64 %rd5, %b, %rd4;\n";
    for (int n = 0; n < 64; ++n) {
      body += "st.global.f32 [%rd5+" + std::to_string(4 * n) + "], %f" + std::to_string(n) + ";\n";
    }
    CHECK(fine(run_body(body, input, out, {{}, {128, 1, 1}, {}, 24576 + 64},
                        ".extern .shared .align 1024 .b8 dynamic[];\n")));
    int wrong = 0;
    for (int t = 0; t < 128; ++t) {
      for (int n = 0; n < 64; ++n) {
        const int row = t / 32 * 16 + t % 32 / 4 + n / 2 % 2 * 8;
        const int column = n / 4 * 8 + 2 * (t % 4) + n % 2;
        int sum = 0;
        for (int k = 0; k < depth and row < rows - 3; ++k) {
          sum += a_values[row * depth + k] * b_values[column * depth + k];
        }
        wrong += float_at(out, static_cast<std::size_t>(t * 64 + n)) != static_cast<float>(sum);
      }
    }
    CHECK(wrong == 0);
  }
}

int main() { return quantloom::check::run_all(); }
