// Running a group of lanes, and the instructions that move groups.
#include <algorithm>

#include "frames.h"
#include "scheduler.h"

namespace quantloom::emulator {
namespace {

constexpr unsigned longest_spin = 256;  // backward branches, while other groups wait
constexpr std::uint32_t no_limit = 0xffffffffu;

}  // namespace

// The next group's instruction, where this one may join it.
std::uint32_t Worker::limit_of(const Warp& warp, std::size_t index) const {
  std::uint32_t limit = no_limit;
  const Group& own = warp.groups[index];
  for (const Group& group : warp.groups) {
    if (&group == &own or group.frame != own.frame or group.pc <= own.pc) continue;
    if (group.state != GroupState::ready and group.state != GroupState::meeting) continue;
    limit = std::min(limit, group.pc);
  }
  return limit;
}

void Worker::execute(Warp& warp, std::size_t index) {
  Context& c = context_;
  const std::uint32_t limit = warp.groups.size() > 1 ? limit_of(warp, index) : no_limit;
  Frame* frame = warp.groups[index].frame;
  c.frame = frame;
  c.base[0] = frame->registers;
  c.base[1] =
      reinterpret_cast<std::byte*>(const_cast<std::uint64_t*>(frame->function->constants.data()));
  c.predicates = frame->predicates.data();
  backward_ = 0;
  const Instruction* code = frame->function->instructions.data();
  const std::uint32_t active = warp.groups[index].mask;
  std::uint32_t pc = warp.groups[index].pc;
  while (true) {
    const Instruction& i = code[pc];
    std::uint32_t mask = active;
    --c.slice;
    if (i.guard != no_guard) {
      const std::uint32_t predicate = c.predicates[i.guard];
      mask &= i.guard_negated ? ~predicate : predicate;
    }
    if (mask == 0) {
      ++pc;
    } else if (i.kind == Kind::plain) [[likely]] {
      c.instruction = &i;
      i.handler(c, i, mask);
      ++pc;
    } else {
      c.instruction = &i;
      warp.groups[index].pc = pc;
      if (not special(warp, index, i, mask)) return;
      pc = warp.groups[index].pc;
    }
    if (c.slice <= 0 or pc >= limit) break;
  }
  warp.groups[index].pc = pc;
  // The next slice is another group's, which this one may be waiting for.
  if (c.slice <= 0 and warp.groups.size() > 1) warp.groups[index].behind = true;
}

bool Worker::special(Warp& warp, std::size_t index, const Instruction& i, std::uint32_t mask) {
  Context& c = context_;
  switch (i.kind) {
    case Kind::plain:
      break;
    case Kind::branch:
      return branch(warp, index, i, mask, i.target);
    case Kind::indexed_branch:
      return indexed_branch(warp, index, i, mask);
    case Kind::call:
      call(warp, index, i, mask);
      return false;
    case Kind::leave:
      leave(warp, index, mask);
      return false;
    case Kind::exit:
      exit(warp, index, mask);
      return false;
    case Kind::meet:
    case Kind::converge:
      return meet(warp, index, i, mask);
    case Kind::block_barrier: {
      Group& group = warp.groups[index];
      if (group.mask != warp.live) {
        group.state = GroupState::meeting;
        group.members = warp.live;
        return false;
      }
      ++group.pc;
      arrive(warp, i, static_cast<std::uint32_t>(std::countr_zero(mask)), true);
      return false;
    }
    case Kind::block_arrive: {
      Group& group = warp.groups[index];
      if (group.mask != warp.live) {
        group.state = GroupState::meeting;
        group.members = warp.live;
        return false;
      }
      ++group.pc;
      arrive(warp, i, static_cast<std::uint32_t>(std::countr_zero(mask)), false);
      return true;
    }
    case Kind::cluster_arrive: {
      Cluster& cluster = *c.cluster;
      warp.cluster_phase = cluster.phase;
      cluster.arrived += static_cast<std::uint32_t>(std::popcount(mask));
      end_cluster_phase(cluster);
      ++warp.groups[index].pc;
      return true;
    }
    case Kind::cluster_wait: {
      Group& group = warp.groups[index];
      ++group.pc;
      if (c.cluster->phase != warp.cluster_phase) return true;
      group.state = GroupState::at_cluster;
      return false;
    }
    case Kind::mbarrier_wait: {
      i.handler(c, i, mask);
      Group& group = warp.groups[index];
      ++group.pc;
      if (c.failed == 0) return true;
      if (c.barrier_address != 0) {
        group.state = GroupState::parked;
        group.barrier = c.barrier_address;
        group.parity = c.barrier_parity;
        return false;
      }
      group.behind = true;
      c.charge(1000);
      return false;
    }
    case Kind::yield:
      i.handler(c, i, mask);
      ++warp.groups[index].pc;
      warp.groups[index].behind = true;
      return false;
  }
  return true;
}

void Worker::split(Warp& warp, std::size_t index, std::uint32_t mask) {
  Group rest = warp.groups[index];
  rest.mask &= ~mask;
  ++rest.pc;
  warp.groups[index].mask = mask;
  if (rest.mask != 0) warp.groups.push_back(rest);
}

bool Worker::branch(Warp& warp, std::size_t index, const Instruction&, std::uint32_t mask,
                    std::uint32_t target) {
  Group& group = warp.groups[index];
  const bool whole = group.mask == mask;
  const bool backward = target <= group.pc;
  if (not whole) {
    Group rest = group;
    rest.mask &= ~mask;
    ++rest.pc;
    group.mask = mask;
    group.pc = target;
    group.behind = false;
    warp.groups.push_back(rest);
    return false;
  }
  group.pc = target;
  if (backward and warp.groups.size() > 1 and ++backward_ > longest_spin) {
    group.behind = true;
    return false;
  }
  return true;
}

bool Worker::indexed_branch(Warp& warp, std::size_t index, const Instruction& i,
                            std::uint32_t mask) {
  const auto& table = context_.frame->function->branch_tables[i.target];
  const auto* numbers = context_.at<const std::uint32_t>(i.op[0]);
  const auto lane = static_cast<unsigned>(std::countr_zero(mask));
  const std::uint32_t number = numbers[lane];
  if (number >= table.size()) {
    stop(Fault::Kind::illegal_instruction, lane, "an index beyond the branch's targets");
  }
  std::uint32_t same = 0;
  for (unsigned l = 0; l < 32; ++l) {
    if ((mask >> l & 1) != 0 and numbers[l] == number) same |= 1u << l;
  }
  if (same == warp.groups[index].mask) {
    warp.groups[index].pc = table[number];
    return true;
  }
  // The others come to this instruction again.
  Group rest = warp.groups[index];
  rest.mask &= ~same;
  if (mask != warp.groups[index].mask) {
    Group past = rest;
    past.mask &= ~mask;
    ++past.pc;
    rest.mask &= mask;
    warp.groups.push_back(past);
  }
  warp.groups[index].mask = same;
  warp.groups[index].pc = table[number];
  if (rest.mask != 0) warp.groups.push_back(rest);
  return false;
}

// Waits for the live lanes of the member mask; `converge` for all of the warp.
bool Worker::meet(Warp& warp, std::size_t index, const Instruction& i, std::uint32_t mask) {
  std::uint32_t members = warp.live;
  if (i.kind == Kind::meet) {
    const auto* masks = context_.at<const std::uint32_t>(i.op[i.meet_operand]);
    const auto first = static_cast<unsigned>(std::countr_zero(mask));
    members = masks[first];
    std::uint32_t same = 0;
    for (unsigned l = 0; l < 32; ++l) {
      if ((mask >> l & 1) == 0) continue;
      if (masks[l] == members) same |= 1u << l;
      if ((masks[l] >> l & 1) == 0) {
        stop(Fault::Kind::illegal_instruction, l, "a lane that its own member mask leaves out");
      }
    }
    members &= warp.live;
    if (same != mask) {
      // Each set of lanes with a mask of its own goes through alone.
      Group rest = warp.groups[index];
      rest.mask &= ~same;
      warp.groups[index].mask = same;
      if ((members & ~same) == 0) {
        i.handler(context_, i, same);
        ++warp.groups[index].pc;
      } else {
        warp.groups[index].state = GroupState::meeting;
        warp.groups[index].members = members;
      }
      warp.groups.push_back(rest);
      return false;
    }
  }
  Group& group = warp.groups[index];
  if ((members & ~group.mask) != 0) {
    group.state = GroupState::meeting;
    group.members = members;
    if (i.kind != Kind::meet or i.mode != meets_anywhere) return false;
    const auto waits_here = [&](const Group& other) {
      const Instruction& its = other.frame->function->instructions[other.pc];
      return other.state == GroupState::meeting and other.members == members and
             its.kind == Kind::meet and its.mode == meets_anywhere;
    };
    std::uint32_t come = 0;
    for (const Group& other : warp.groups) come |= waits_here(other) ? other.mask : 0;
    if ((members & ~come) != 0) return false;
    for (Group& other : warp.groups) {
      if (not waits_here(other)) continue;
      other.state = GroupState::ready;
      ++other.pc;
    }
    return false;
  }
  i.handler(context_, i, i.kind == Kind::meet ? mask & members : mask);
  ++group.pc;
  return true;
}

void Worker::call(Warp& warp, std::size_t index, const Instruction& i, std::uint32_t mask) {
  split(warp, index, mask);
  Group& group = warp.groups[index];
  const CallCode& code = group.frame->function->calls[i.target];
  Frame* frame = enter_frame(warp, group.frame, group.pc, *code.function, nullptr);
  for (unsigned l = 0; l < 32; ++l) {
    if ((mask >> l & 1) == 0) continue;
    std::byte* lane = warp.local.data() + l * warp.local_bytes;
    for (const auto& [from, to, bytes] : code.arguments) {
      std::memcpy(lane + frame->local_base + to, lane + group.frame->local_base + from, bytes);
    }
  }
  group.frame = frame;
  group.pc = 0;
}

void Worker::leave(Warp& warp, std::size_t index, std::uint32_t mask) {
  Frame* frame = warp.groups[index].frame;
  if (frame->parent == nullptr) {
    exit(warp, index, mask);
    return;
  }
  split(warp, index, mask);
  Group& group = warp.groups[index];
  const Frame& parent = *frame->parent;
  const Instruction& call = parent.function->instructions[frame->call_at];
  for (unsigned l = 0; l < 32; ++l) {
    if ((mask >> l & 1) == 0) continue;
    std::byte* lane = warp.local.data() + l * warp.local_bytes;
    for (const auto& [from, to, bytes] : parent.function->calls[call.target].results) {
      std::memcpy(lane + parent.local_base + to, lane + frame->local_base + from, bytes);
    }
  }
  group.frame = frame->parent;
  group.pc = frame->call_at + 1;
}

void Worker::exit(Warp& warp, std::size_t index, std::uint32_t mask) {
  warp.live &= ~mask;
  context_.cluster->live_threads -= static_cast<std::uint32_t>(std::popcount(mask));
  Group& group = warp.groups[index];
  group.mask &= ~mask;
  if (group.mask != 0) {
    ++group.pc;
  } else {
    warp.groups.erase(warp.groups.begin() + static_cast<std::ptrdiff_t>(index));
  }
  for (Group& other : warp.groups) {
    if (other.state == GroupState::meeting) other.state = GroupState::ready;
  }
  end_cluster_phase(*context_.cluster);
  context_.progress = true;
  if (warp.live != 0) return;
  Block& block = *warp.block;
  --block.live_warps;
  --block.cluster->live_warps;
  for (unsigned n = 0; n < block.barriers.size(); ++n) {
    const NamedBarrier& barrier = block.barriers[n];
    if (barrier.open and barrier.expected == 0 and barrier.arrived >= block.live_warps * 32) {
      release(block, n);
    }
  }
}

void Worker::arrive(Warp& warp, const Instruction& i, std::uint32_t lane, bool waits) {
  Block& block = *warp.block;
  const std::uint32_t number = context_.at<const std::uint32_t>(i.op[0])[lane];
  std::uint32_t expected = 0;
  if (i.op[1] != no_operand) expected = context_.at<const std::uint32_t>(i.op[1])[lane];
  if (number >= block.barriers.size() or expected % 32 != 0) {
    stop(Fault::Kind::illegal_instruction, lane,
         "barrier " + std::to_string(number) + " of " + std::to_string(expected) + " threads");
  }
  NamedBarrier& barrier = block.barriers[number];
  if (barrier.open and barrier.expected != expected) {
    stop(Fault::Kind::illegal_instruction, lane,
         "barrier " + std::to_string(number) + " is in use with another number of threads");
  }
  barrier.open = true;
  barrier.expected = expected;
  barrier.arrived += 32;
  if (waits) {
    for (Group& group : warp.groups) {
      group.state = GroupState::at_barrier;
      group.barrier = number;
    }
  }
  context_.progress = true;
  if (barrier.arrived >= (expected == 0 ? block.live_warps * 32 : expected)) {
    release(block, number);
  }
}

void Worker::release(Block& block, unsigned number) {
  block.barriers[number] = {};
  for (const auto& warp : block.warps) {
    for (Group& group : warp->groups) {
      if (group.state == GroupState::at_barrier and group.barrier == number) {
        group.state = GroupState::ready;
      }
    }
  }
}

void Worker::end_cluster_phase(Cluster& cluster) {
  if (cluster.arrived == 0 or cluster.arrived < cluster.live_threads) return;
  cluster.arrived = 0;
  ++cluster.phase;
}

}  // namespace quantloom::emulator
