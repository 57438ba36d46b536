// The emulator's interpreter: what is easy to get wrong in the flow of warps, in memory and in
// barriers.
#include <cmath>
#include <limits>

#include "machine_tests.h"

using namespace quantloom::emulator;

using Words = std::vector<std::uint32_t>;

TEST(divergent_lanes_meet_again) {
  Words a(32), b(32);
  // Lanes take three ways of different lengths, one in a loop; the ballot after them counts all.
  CHECK(fine(run_body(R"(
    mov.u32 %r1, 0;
    setp.lt.u32 %p1, %tid, 8;
    @%p1 bra LOW;
    setp.lt.u32 %p2, %tid, 20;
    @%p2 bra MIDDLE;
    add.u32 %r1, %r1, 1000;
    bra.uni END;
  LOW:
    add.u32 %r1, %r1, 1;
    setp.le.u32 %p3, %r1, %tid;
    @%p3 bra LOW;
    bra.uni END;
  MIDDLE:
    add.u32 %r1, %r1, 100;
  END:
    activemask.b32 %r2;
    setp.gt.u32 %p4, %r1, 99;
    vote.sync.ballot.b32 %r3, %p4, -1;
    st.global.u32 [%ao], %r1;
    and.b32 %r4, %r2, %r3;
    st.global.u32 [%bo], %r4;)",
                      a, b)));
  for (unsigned l = 0; l < 32; ++l) {
    CHECK(a[l] == (l < 8 ? l + 1 : l < 20 ? 100 : 1000));
    CHECK(b[l] == 0xffffff00u);
  }
}

TEST(a_lane_that_spins_does_not_starve_the_one_it_waits_for) {
  Words a(32), b(32);
  CHECK(fine(run_body(R"(
    setp.eq.u32 %p1, %tid, 5;
    @%p1 bra GIVES;
  WAITS:
    ld.volatile.global.u32 %r1, [%a];
    setp.eq.u32 %p2, %r1, 0;
    @%p2 bra WAITS;
    bra.uni END;
  GIVES:
    st.volatile.global.u32 [%a], 7;
    mov.u32 %r1, 7;
  END:
    st.global.u32 [%bo], %r1;)",
                      a, b)));
  for (unsigned l = 0; l < 32; ++l) CHECK(b[l] == 7);
}

TEST(shuffles) {
  Words a(32 * 5), b(32 * 5);
  CHECK(fine(run_body(R"(
    shfl.sync.bfly.b32 %r1|%p1, %tid, 5, 31, -1;
    shfl.sync.up.b32 %r2|%p2, %tid, 3, 0, -1;
    shfl.sync.down.b32 %r3|%p3, %tid, 2, 0x181f, -1;
    shfl.sync.idx.b32 %r4, %tid, 9, 0x181f, -1;
    selp.u32 %r5, 1, 0, %p2;
    selp.u32 %r6, 1, 0, %p3;
    st.global.u32 [%ao], %r1;
    st.global.u32 [%ao+128], %r2;
    st.global.u32 [%ao+256], %r3;
    st.global.u32 [%ao+384], %r4;
    st.global.u32 [%bo], %r5;
    st.global.u32 [%bo+128], %r6;)",
                      a, b)));
  for (unsigned l = 0; l < 32; ++l) {
    CHECK(a[l] == (l ^ 5));
    CHECK(a[32 + l] == (l >= 3 ? l - 3 : l));
    CHECK(b[l] == (l >= 3));
    const bool inside = l % 8 + 2 < 8;  // segments of eight lanes
    CHECK(a[64 + l] == (inside ? l + 2 : l));
    CHECK(b[32 + l] == inside);
    CHECK(a[96 + l] == (l / 8 * 8 + 1));
  }
}

TEST(matches_and_reductions) {
  Words a(64), b(64);
  CHECK(fine(run_body(R"(
    and.b32 %r1, %tid, 3;
    match.any.sync.b32 %r2, %r1, -1;
    redux.sync.add.s32 %r3, %tid, %r2;
    sub.s32 %r4, 10, %tid;
    redux.sync.min.s32 %r5, %r4, -1;
    redux.sync.max.u32 %r6, %r4, -1;
    st.global.u32 [%ao], %r2;
    st.global.u32 [%ao+128], %r3;
    st.global.u32 [%bo], %r5;
    st.global.u32 [%bo+128], %r6;)",
                      a, b)));
  for (unsigned l = 0; l < 32; ++l) {
    CHECK(a[l] == 0x11111111u << l % 4);
    CHECK(a[32 + l] == 8 * (l % 4) + 4 * 28);
    CHECK(b[l] == static_cast<std::uint32_t>(-21));
    CHECK(b[32 + l] == 0xffffffffu);
  }
}

TEST(named_barriers) {
  Words a(128), b(128);
  // Warps 0 and 1 produce for 2 and 3: they only arrive.
  CHECK(fine(run_body(R"(
    .shared .align 4 .b8 room[512];
    mov.u32 %r1, room;
    shl.b32 %r2, %tid, 2;
    add.u32 %r1, %r1, %r2;
    setp.ge.u32 %p1, %tid, 64;
    @%p1 bra TAKES;
    st.shared.u32 [%r1], %tid;
    bar.arrive 3, 128;
    bra.uni END;
  TAKES:
    bar.sync 3, 128;
    ld.shared.u32 %r3, [%r1+-256];
    bar.sync 5, 64;
    st.global.u32 [%ao], %r3;
  END:
    bar.sync 0;)",
                      a, b, {{}, {128, 1, 1}, {}})));
  for (unsigned t = 64; t < 128; ++t) CHECK(a[t] == t - 64);
}

TEST(functions_with_parameters_in_divergent_lanes) {
  Words a(32), b(32);
  const std::string function = R"(
.func (.param .b32 result) twice(.param .b32 x, .param .align 8 .b8 pair[16])
{
  .reg .b32 %r<8>;
  .reg .b64 %rd<4>;
  ld.param.u32 %r1, [x];
  mov.b64 %rd1, pair;
  ld.param.u32 %r2, [%rd1+8];
  shl.b32 %r3, %r1, 1;
  add.u32 %r4, %r3, %r2;
  bar.warp.sync 0xffff;
  st.param.b32 [result+0], %r4;
  ret;
}
)";
  CHECK(fine(run_body(R"(
    mov.u32 %r9, 5;
    setp.ge.u32 %p1, %tid, 16;
    @%p1 bra END;
    {
    .param .b32 p0;
    st.param.b32 [p0+0], %tid;
    .param .align 8 .b8 p1[16];
    st.param.b32 [p1+8], 100;
    .param .b32 r0;
    call.uni (r0), twice, (p0, p1);
    ld.param.b32 %r9, [r0+0];
    }
  END:
    st.global.u32 [%ao], %r9;)",
                      a, b, {}, function)));
  for (unsigned l = 0; l < 32; ++l) CHECK(a[l] == (l < 16 ? 2 * l + 100 : 5));
}

TEST(a_bulk_copy_is_seen_only_after_its_barrier) {
  Words a(64), b(96);
  for (unsigned i = 0; i < 64; ++i) a[i] = i + 1;
  CHECK(fine(run_body(R"(
    .shared .align 128 .b8 room[256];
    .shared .align 8 .b8 bar[16];
    mov.u32 %r1, room;
    mov.u32 %r2, bar;
    shl.b32 %r4, %tid, 2;
    add.u32 %r4, %r4, %r1;
    st.shared.u32 [%r4], 99;
    setp.ne.u32 %p1, %tid, 0;
    @%p1 bra READY;
    mbarrier.init.shared::cta.b64 [%r2], 1;
    mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r2], 256;
    cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%a], 256, [%r2];
  READY:
    bar.sync 0;
    ld.shared.u32 %r5, [%r4];
    st.global.u32 [%bo], %r5;
    mbarrier.test_wait.parity.shared::cta.b64 %p5, [%r2], 1;
    selp.u32 %r7, 1, 0, %p5;
    st.global.u32 [%bo+256], %r7;
  AGAIN:
    mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r2], 0;
    @!%p2 bra AGAIN;
    ld.shared.u32 %r5, [%r4];
    st.global.u32 [%bo+128], %r5;)",
                      a, b)));
  for (unsigned l = 0; l < 32; ++l) {
    CHECK(b[l] == 99);
    CHECK(b[32 + l] == l + 1);
    CHECK(b[64 + l] == 1);  // the phase before the first counts as ended
  }
}

TEST(blocks_of_a_cluster_reach_each_other) {
  Words a(64), b(64);
  CHECK(fine(run_body(R"(
    .shared .align 8 .b8 bar[8];
    .shared .align 4 .b8 room[4];
    mov.u32 %r1, bar;
    mov.u32 %r2, room;
    mov.u32 %r9, %cluster_ctarank;
    setp.ne.u32 %p1, %tid, 0;
    @%p1 bra MEET;
    mbarrier.init.shared::cta.b64 [%r1], 1;
  MEET:
    barrier.cluster.arrive.release.aligned;
    barrier.cluster.wait.acquire.aligned;
    @%p1 bra WAIT;
    xor.b32 %r3, %r9, 1;
    mapa.shared::cluster.u32 %r4, %r2, %r3;
    add.u32 %r5, %r9, 40;
    st.shared::cluster.u32 [%r4], %r5;
    mapa.shared::cluster.u32 %r6, %r1, %r3;
    mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r6];
  WAIT:
    mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r1], 0;
    @!%p2 bra WAIT;
    ld.shared.u32 %r7, [%r2];
    shl.b32 %r8, %r9, 7;
    cvt.u64.u32 %rd1, %r8;
    add.s64 %rd2, %ao, %rd1;
    st.global.u32 [%rd2], %r7;
    barrier.cluster.arrive;
    barrier.cluster.wait;)",
                      a, b, {{2, 1, 1}, {32, 1, 1}, {2, 1, 1}})));
  for (unsigned i = 0; i < 64; ++i) CHECK(a[i] == (i < 32 ? 41 : 40));
}

TEST(stores_to_a_block_of_the_cluster_count_at_its_mbarrier) {
  Words a(64), b(64);
  CHECK(fine(run_body(R"(
    .shared .align 8 .b8 bar[8];
    .shared .align 16 .b8 room[640];
    mov.u32 %r1, bar;
    mov.u32 %r9, %cluster_ctarank;
    setp.ne.u32 %p1, %tid, 0;
    @%p1 bra MEET;
    mbarrier.init.shared::cta.b64 [%r1], 1;
    fence.mbarrier_init.release.cluster;
    mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r1], 640;
  MEET:
    barrier.cluster.arrive.relaxed.aligned;
    barrier.cluster.wait.acquire.aligned;
    xor.b32 %r3, %r9, 1;
    shl.b32 %r5, %tid, 4;
    mov.u32 %r6, room;
    add.u32 %r5, %r5, %r6;
    mapa.shared::cluster.u32 %r4, %r5, %r3;
    mapa.shared::cluster.u32 %r7, %r1, %r3;
    add.u32 %r8, %r9, 40;
    add.u32 %r10, %r9, %tid;
    st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%r4],
      {%r8, %r8, %r8, %r10}, [%r7];
    shl.b32 %r5, %tid, 2;
    add.u32 %r5, %r5, %r6;
    add.u32 %r5, %r5, 512;
    mapa.shared::cluster.u32 %r4, %r5, %r3;
    st.async.shared::cluster.mbarrier::complete_tx::bytes.b32 [%r4], %r8, [%r7];
  WAIT:
    mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r1], 0;
    @!%p2 bra WAIT;
    ld.shared.u32 %r11, [%r5];
    shl.b32 %r12, %tid, 4;
    add.u32 %r12, %r12, %r6;
    ld.shared.u32 %r13, [%r12+12];
    shl.b32 %r8, %r9, 7;
    cvt.u64.u32 %rd1, %r8;
    add.s64 %rd2, %ao, %rd1;
    st.global.u32 [%rd2], %r11;
    add.s64 %rd3, %bo, %rd1;
    st.global.u32 [%rd3], %r13;)",
                      a, b, {{2, 1, 1}, {32, 1, 1}, {2, 1, 1}})));
  for (unsigned i = 0; i < 64; ++i) {
    CHECK(a[i] == (i < 32 ? 41 : 40));
    CHECK(b[i] == (i < 32 ? 1 : 0) + i % 32);
  }
}

TEST(blocks_of_a_cooperative_launch_wait_for_each_other) {
  Words a(8), b(32);
  CHECK(fine(run_body(R"(
    setp.ne.u32 %p1, %tid, 0;
    @%p1 bra END;
    red.release.gpu.global.add.s32 [%a], 1;
  WAIT:
    ld.acquire.gpu.global.s32 %r1, [%a];
    setp.lt.s32 %p2, %r1, 20;
    @%p2 bra WAIT;
  END:
    bar.sync 0;
    mov.u32 %r2, %ctaid.x;
    mad.wide.u32 %rd1, %r2, 4, %b;
    st.global.u32 [%rd1], 1;)",
                      a, b, {{20, 1, 1}, {64, 1, 1}, {}, 0, true})));
  CHECK(a[0] == 20);
  for (unsigned i = 0; i < 20; ++i) CHECK(b[i] == 1);
}

TEST(atomics_of_many_blocks) {
  Words a(4), b(64);
  a[1] = 0xffffffffu;
  CHECK(fine(run_body(R"(
    atom.global.add.u32 %r1, [%a], 1;
    red.global.min.u32 [%a+4], %tid;
    red.global.max.s32 [%a+8], %tid;
    atom.global.cas.b32 %r2, [%a+12], 0, 5;)",
                      a, b, {{50, 1, 1}, {64, 1, 1}, {}})));
  CHECK(a[0] == 3200 and a[1] == 0 and a[2] == 63 and a[3] == 5);
}

TEST(faults_name_their_place) {
  Words a(32), b(32);
  CHECK(faults(run_body("st.global.u32 [%ao+4], %tid;", a, b), Fault::Kind::illegal_address,
               "thread (31,0,0)"));
  CHECK(faults(run_body("ld.global.v2.u32 {%r1, %r2}, [%ao];", a, b),
               Fault::Kind::misaligned_address, "ld.global.v2"));
  CHECK(faults(run_body("mov.u32 %r1, 5000; st.shared.u32 [%r1], 1;", a, b),
               Fault::Kind::illegal_address, "shared"));
  CHECK(faults(run_body("trap;", a, b), Fault::Kind::trap, "kernel test, block (0,0,0)"));
  CHECK(faults(run_body("mov.u32 %r1, 1024; mbarrier.arrive.shared::cta.b64 _, [%r1];", a, b,
                        {{}, {32, 1, 1}, {}, 64}),
               Fault::Kind::illegal_instruction, "not initialized"));
}

TEST(hangs_are_told) {
  Words a(32), b(32);
  CHECK(faults(run_body("bar.sync 1, 64;", a, b), Fault::Kind::hang, "bar.sync 1, 64"));
  CHECK(faults(run_body(R"(
    .shared .align 8 .b8 bar[8];
    mov.u32 %r1, bar;
    mbarrier.init.shared::cta.b64 [%r1], 1;
  AGAIN:
    mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r1], 0;
    @!%p2 bra AGAIN;)",
                        a, b, {{}, {1, 1, 1}, {}}),
               Fault::Kind::hang, "try_wait"));
  CHECK(faults(run_body(R"(
    setp.lt.u32 %p1, %tid, 3;
    @%p1 bra OTHER;
    bar.warp.sync -1;
    bra END;
  OTHER:
    vote.sync.ballot.b32 %r1, %p1, -1;
  END:)",
                        a, b),
               Fault::Kind::hang, "vote.sync"));
}

TEST(unknown_instructions_are_errors_of_the_module) {
  bool thrown = false;
  try {
    const Module module(entry("frobnicate.u32 %r1, %r2;"));
  } catch (const std::runtime_error& error) {
    thrown = std::string(error.what()).find("frobnicate.u32") != std::string::npos;
  }
  CHECK(thrown);
}

int main() { return quantloom::check::run_all(); }
