// Control flow, barriers, address spaces, and what has no effect here.
#include "forms.h"
#include "values.h"

namespace quantloom::emulator {
namespace {

void nothing(Context&, const Instruction&, u32) {}

void fence(Context&, const Instruction&, u32) {
  std::atomic_thread_fence(std::memory_order_seq_cst);
}

[[noreturn]] void trap(Context&, const Instruction&, u32 mask) {
  stop(Fault::Kind::trap, first_lane(mask), "trap");
}

void sleep(Context& c, const Instruction&, u32) { c.charge(c.slice); }

void policy(Context& c, const Instruction& i, u32 mask) {
  for_lanes(mask, [&](unsigned l) { write<u64>(c, i.op[0], l, 0); });
}

constexpr auto same = [](u64 a) { return a; };
constexpr auto from_shared = [](u64 a) { return shared_window | (a & ~window_mask); };
constexpr auto from_local = [](u64 a) { return local_window | (a & ~window_mask); };
constexpr auto to_window = [](u64 a) { return a & ~window_mask; };

constexpr u32 rank_in(u32 address, u32 rank) {
  return (address & ((1u << cluster_rank_shift) - 1)) | (rank + 1) << cluster_rank_shift;
}

template <auto f>
void is_in_space(Context& c, const Instruction& i, u32 mask) {
  u32 bits = 0;
  for_lanes(mask, [&](unsigned l) { bits |= u32{f(read<u64>(c, i.op[1], l))} << l; });
  write_predicate(c, i.op[0], mask, bits);
}

}  // namespace

void add_control_forms(Forms& forms) {
  forms["ret"] = {nothing, "", Kind::leave};
  forms["ret.uni"] = {nothing, "", Kind::leave};
  forms["exit"] = {nothing, "", Kind::exit};
  forms["trap"] = {trap, ""};
  forms["nanosleep.u32"] = {sleep, "w", Kind::yield};

  for (const char* name : {"bar.sync", "bar.cta.sync", "barrier.sync", "barrier.cta.sync",
                           "barrier.sync.aligned", "barrier.cta.sync.aligned"}) {
    forms[name] = {nothing, "w?w", Kind::block_barrier};
  }
  for (const char* name : {"bar.arrive", "bar.cta.arrive", "barrier.arrive", "barrier.cta.arrive",
                           "barrier.arrive.aligned", "barrier.cta.arrive.aligned"}) {
    forms[name] = {nothing, "ww", Kind::block_arrive};
  }
  for (const std::string aligned : {"", ".aligned"}) {
    for (const char* order : {"", ".release", ".relaxed"}) {
      forms["barrier.cluster.arrive" + std::string(order) + aligned] = {nothing, "",
                                                                        Kind::cluster_arrive};
    }
    for (const char* order : {"", ".acquire"}) {
      forms["barrier.cluster.wait" + std::string(order) + aligned] = {nothing, "",
                                                                      Kind::cluster_wait};
    }
  }

  for (const char* name :
       {"membar.cta", "membar.gl", "membar.sys", "fence.proxy.async", "fence.proxy.async.global",
        "fence.proxy.async.shared::cta", "fence.proxy.async.shared::cluster", "fence.proxy.alias",
        "fence.mbarrier_init.release.cluster"}) {
    forms[name] = {fence, ""};
  }
  for (const char* order : {"", ".sc", ".acq_rel", ".acquire", ".release"}) {
    for (const char* scope : {".cta", ".cluster", ".gpu", ".sys"}) {
      forms[std::string("fence") + order + scope] = {fence, ""};
    }
  }

  // Launches follow one another, caches do not matter and registers are plenty.
  for (const char* name : {"griddepcontrol.wait", "griddepcontrol.launch_dependents", "pragma",
                           "wgmma.fence.sync.aligned", "wgmma.commit_group.sync.aligned"}) {
    forms[name] = {nothing, ""};
  }
  for (const char* name : {"wgmma.wait_group.sync.aligned", "setmaxnreg.inc.sync.aligned.u32",
                           "setmaxnreg.dec.sync.aligned.u32", "prefetch.global.L1",
                           "prefetch.global.L2", "prefetch.L1", "prefetch.L2", "prefetch.tensormap",
                           "prefetch.param.tensormap", "prefetch.const.tensormap", "prefetchu.L1",
                           "discard.global.L2", "applypriority.global.L2::evict_normal"}) {
    forms[name] = {nothing, "*"};
  }
  for (const char* kind : {"evict_first", "evict_last", "evict_normal", "evict_unchanged"}) {
    forms[std::string("createpolicy.fractional.L2::") + kind + ".b64"] = {policy, "X*"};
  }

  for (const char* name : {"cvta.global.u64", "cvta.to.global.u64", "cvta.const.u64",
                           "cvta.to.const.u64", "cvta.param.u64", "cvta.to.param.u64"}) {
    forms[name] = {unary<u64, u64, same>, "Xx"};
  }
  forms["cvta.shared.u64"] = {unary<u64, u64, from_shared>, "Xx"};
  forms["cvta.local.u64"] = {unary<u64, u64, from_local>, "Xx"};
  forms["cvta.to.shared.u64"] = {unary<u64, u64, to_window>, "Xx"};
  forms["cvta.to.local.u64"] = {unary<u64, u64, to_window>, "Xx"};
  forms["mapa.shared::cluster.u32"] = {binary<u32, u32, u32, rank_in>, "Www"};
  forms["mapa.u64"] = {binary<u64, u64, u32,
                              [](u64 address, u32 rank) {
                                return (address & window_mask) |
                                       rank_in(static_cast<u32>(address), rank);
                              }>,
                       "Xxw"};
  forms["isspacep.shared"] = {is_in_space<[](u64 a) { return (a & window_mask) == shared_window; }>,
                              "Px"};
  forms["isspacep.local"] = {is_in_space<[](u64 a) { return (a & window_mask) == local_window; }>,
                             "Px"};
  forms["isspacep.global"] = {is_in_space<[](u64 a) {
                                return (a & window_mask) != local_window and
                                       (a & window_mask) != shared_window;
                              }>,
                              "Px"};
}

}  // namespace quantloom::emulator
