#include "async.h"
#include "copies.h"
#include "forms.h"
#include "values.h"

namespace quantloom::emulator {
namespace {

// The emulator's own encoding in the 8 bytes: 20 bits expected arrivals, 20 bits arrivals left, the
// phase, bytes left.
struct Barrier {
  u64* word = nullptr;
  u32 expected = 0, left = 0, phase = 0;
  s64 bytes = 0;

  void keep() const {
    *word = u64{expected} | u64{left} << 20 | u64{phase} << 40 | static_cast<u64>(bytes) << 41;
  }
};

constexpr u32 most_arrivals = (1u << 20) - 1;
constexpr s64 most_bytes = (1 << 20) - 1;

Barrier barrier_at(Context& c, u32 address, unsigned lane) {
  Barrier barrier;
  barrier.word = reinterpret_cast<u64*>(shared_at(c, address, 8, lane));
  const u64 word = *barrier.word;
  if (word == 0 or word == ~u64{0}) {
    stop(Fault::Kind::illegal_instruction, lane, "an mbarrier that was not initialized");
  }
  barrier.expected = static_cast<u32>(word) & most_arrivals;
  barrier.left = static_cast<u32>(word >> 20) & most_arrivals;
  barrier.phase = static_cast<u32>(word >> 40) & 1u;
  barrier.bytes = static_cast<s64>(word) >> 41;
  return barrier;
}

void change(Context& c, Barrier& barrier, u32 arrivals, s64 bytes, unsigned lane) {
  if (arrivals > barrier.left) {
    stop(Fault::Kind::illegal_instruction, lane,
         "more arrivals at an mbarrier than its phase expects, which is " +
             std::to_string(barrier.expected));
  }
  barrier.left -= arrivals;
  barrier.bytes += bytes;
  if (barrier.bytes > most_bytes or barrier.bytes < -most_bytes) {
    stop(Fault::Kind::illegal_instruction, lane, "an mbarrier's count of bytes is out of range");
  }
  if (barrier.left == 0 and barrier.bytes == 0) {
    barrier.phase ^= 1u;
    barrier.left = barrier.expected;
  }
  barrier.keep();
  c.progress = true;
}

void initialize(Context& c, const Instruction& i, u32 mask) {
  for_lanes(mask, [&](unsigned l) {
    Barrier barrier;
    barrier.word = reinterpret_cast<u64*>(shared_at(c, read<u32>(c, i.op[0], l), 8, l));
    barrier.expected = barrier.left = read<u32>(c, i.op[1], l);
    if (barrier.expected == 0 or barrier.expected > most_arrivals) {
      stop(Fault::Kind::illegal_instruction, l, "an mbarrier's count is 1 to 1048575");
    }
    barrier.keep();
  });
  c.progress = true;
}
void invalidate(Context& c, const Instruction& i, u32 mask) {
  for_lanes(mask, [&](unsigned l) {
    barrier_at(c, read<u32>(c, i.op[0], l), l);
    *reinterpret_cast<u64*>(shared_at(c, read<u32>(c, i.op[0], l), 8, l)) = 0;
  });
}

// token or none, address, count (one where it is missing)
void arrive(Context& c, const Instruction& i, u32 mask) {
  for_lanes(mask, [&](unsigned l) {
    Barrier barrier = barrier_at(c, read<u32>(c, i.op[1], l), l);
    if (i.op[0] != no_operand) write<u64>(c, i.op[0], l, barrier.phase);
    change(c, barrier, i.op[2] == no_operand ? 1 : read<u32>(c, i.op[2], l), 0, l);
  });
}
// token or none, address, bytes
void arrive_and_expect(Context& c, const Instruction& i, u32 mask) {
  for_lanes(mask, [&](unsigned l) {
    Barrier barrier = barrier_at(c, read<u32>(c, i.op[1], l), l);
    if (i.op[0] != no_operand) write<u64>(c, i.op[0], l, barrier.phase);
    change(c, barrier, 1, read<u32>(c, i.op[2], l), l);
  });
}
template <bool completes>
void count_bytes(Context& c, const Instruction& i, u32 mask) {
  for_lanes(mask, [&](unsigned l) {
    Barrier barrier = barrier_at(c, read<u32>(c, i.op[0], l), l);
    const s64 bytes = read<u32>(c, i.op[1], l);
    change(c, barrier, 0, completes ? -bytes : bytes, l);
  });
}

// done, address, parity or token; what failed is noted for the scheduler.
template <typename Phase>
void wait(Context& c, const Instruction& i, u32 mask) {
  u32 done = 0;
  c.failed = 0;
  bool same = true;
  for_lanes(mask, [&](unsigned l) {
    const u32 address = read<u32>(c, i.op[1], l);
    const u32 parity = static_cast<u32>(read<Phase>(c, i.op[2], l)) & 1u;
    if (phase_has_ended(c, address, parity, l)) {
      done |= 1u << l;
      return;
    }
    if (c.failed == 0) {
      c.barrier_address = address, c.barrier_parity = parity;
    } else {
      same = same and c.barrier_address == address and c.barrier_parity == parity;
    }
    c.failed |= 1u << l;
  });
  write_predicate(c, i.op[0], mask, done);
  if (not same or done != 0) c.barrier_address = 0;
}
template <typename Phase>
void test(Context& c, const Instruction& i, u32 mask) {
  wait<Phase>(c, i, mask);
  c.charge(50);
}

}  // namespace

void complete_bytes(Context& c, std::byte* word, std::uint32_t bytes) {
  Barrier barrier;
  barrier.word = reinterpret_cast<u64*>(word);
  const u64 bits = *barrier.word;
  if (bits == 0 or bits == ~u64{0}) {
    stop(Fault::Kind::illegal_instruction, 0, "a copy counts at an mbarrier not initialized");
  }
  barrier.expected = static_cast<u32>(bits) & most_arrivals;
  barrier.left = static_cast<u32>(bits >> 20) & most_arrivals;
  barrier.phase = static_cast<u32>(bits >> 40) & 1u;
  barrier.bytes = static_cast<s64>(bits) >> 41;
  change(c, barrier, 0, -static_cast<s64>(bytes), 0);
}

bool phase_has_ended(Context& c, std::uint32_t address, std::uint32_t parity, unsigned lane) {
  if (barrier_at(c, address, lane).phase != parity) return true;
  if (c.cluster->copies.empty()) return false;
  do_copies_at(c, shared_at(c, address, 8, lane));
  return barrier_at(c, address, lane).phase != parity;
}

void add_mbarrier_forms(Forms& forms) {
  const char* spaces[] = {"", ".shared", ".shared::cta", ".shared::cluster"};
  const char* orders[] = {"",
                          ".release",
                          ".relaxed",
                          ".release.cta",
                          ".release.cluster",
                          ".relaxed.cta",
                          ".relaxed.cluster",
                          ".acquire.cta",
                          ".acquire.cluster",
                          ".acquire"};
  for (const std::string space : spaces) {
    const std::string tail = space + ".b64";
    forms["mbarrier.init" + tail] = {initialize, "mw"};
    forms["mbarrier.inval" + tail] = {invalidate, "m"};
    for (const std::string order : orders) {
      forms["mbarrier.arrive" + order + tail] = {arrive, "Xm?w"};
      forms["mbarrier.arrive.expect_tx" + order + tail] = {arrive_and_expect, "Xmw"};
      forms["mbarrier.expect_tx" + order + tail] = {count_bytes<false>, "mw"};
      forms["mbarrier.complete_tx" + order + tail] = {count_bytes<true>, "mw"};
      forms["mbarrier.try_wait.parity" + order + tail] = {wait<u32>, "Pmw?w", Kind::mbarrier_wait};
      forms["mbarrier.try_wait" + order + tail] = {wait<u64>, "Pmx?w", Kind::mbarrier_wait};
      forms["mbarrier.test_wait.parity" + order + tail] = {test<u32>, "Pmw"};
      forms["mbarrier.test_wait" + order + tail] = {test<u64>, "Pmx"};
    }
  }
}

}  // namespace quantloom::emulator
