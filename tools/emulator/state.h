// What changes while a launch runs: blocks, warps, groups of lanes, frames.
#pragma once

#include <atomic>
#include <chrono>
#include <deque>
#include <limits>
#include <optional>

#include "code.h"

namespace quantloom::emulator {

// Thrown by a handler; the worker turns it into the launch's Fault.
struct Stop {
  Fault::Kind kind;
  std::string text;
  unsigned lane = 0;
};

// A function's activation: shared by all lanes of the warp that came there along the same calls.
struct Frame {
  const FunctionCode* function = nullptr;
  Frame* parent = nullptr;
  std::uint32_t call_at = 0;  // the parent's call instruction
  std::uint32_t depth = 0;
  std::uint32_t local_base = 0;
  std::unique_ptr<std::uint64_t[]> storage;
  std::byte* registers = nullptr;
  std::vector<std::uint32_t> predicates;
  std::vector<std::unique_ptr<Frame>> children;
};

enum class GroupState : std::uint8_t { ready, meeting, parked, at_barrier, at_cluster };

// Lanes of a warp at the same instruction of the same frame.
struct Group {
  std::uint32_t mask = 0;
  std::uint32_t pc = 0;
  Frame* frame = nullptr;
  GroupState state = GroupState::ready;
  bool behind = false;        // lets the others go first: it has been spinning
  std::uint32_t members = 0;  // meeting: the lanes it waits for
  std::uint32_t barrier = 0;  // parked: the mbarrier's shared address; at_barrier: its number
  std::uint32_t parity = 0;   // parked: waits for the end of the phase of this parity
};

struct AsyncCopy {
  std::uint32_t to = 0;
  std::uint64_t from = 0;
  std::uint8_t bytes = 0, filled = 0;
};

struct Block;

struct Warp {
  Block* block = nullptr;
  unsigned index = 0;
  std::uint32_t live = 0;
  std::vector<Group> groups;
  std::unique_ptr<Frame> root;
  std::vector<std::byte> local;  // lane after lane
  std::size_t local_bytes = 0;   // of a lane
  std::array<std::uint32_t, 32> tid_x, tid_y, tid_z;
  std::uint32_t cluster_phase = 0;  // of the cluster's barrier when it arrived
  std::array<std::vector<AsyncCopy>, 32> open_copies;
  std::array<std::deque<std::vector<AsyncCopy>>, 32> committed_copies;
};

struct NamedBarrier {
  std::uint32_t arrived = 0, expected = 0;  // threads; expected 0: all live ones of the block
  std::uint32_t waiting = 0;                // warps
  bool open = false;                        // somebody has arrived
};

// A copy that is done when somebody asks for its mbarrier, so that who does not ask sees the old
// bytes.
struct PendingCopy {
  Block* to_block = nullptr;
  std::uint32_t to = 0;       // offset in the block's shared memory
  std::uint32_t barrier = 0;  // in the same block
  std::uint32_t bytes = 0;
  std::uint64_t from = 0;  // device address; of the tensor map for a box
  unsigned rank = 0;       // of a box; 0 for a plain copy
  std::array<std::int32_t, 5> at{};
};

struct Cluster;

struct Block {
  Cluster* cluster = nullptr;
  Dim3 at;            // %ctaid
  unsigned rank = 0;  // in its cluster
  Dim3 at_in_cluster;
  std::uint64_t number = 0;
  std::vector<std::byte> shared_storage;
  std::byte* shared =
      nullptr;  // of offset 0, which is 1024-byte aligned; nothing lies below shared_begin
  std::uint32_t shared_end = 0;  // offset
  std::vector<std::unique_ptr<Warp>> warps;
  unsigned live_warps = 0;
  std::array<NamedBarrier, 16> barriers;
};

struct Cluster {
  std::vector<std::unique_ptr<Block>> blocks;
  std::deque<PendingCopy> copies;
  std::uint32_t arrived = 0;  // threads at the cluster's barrier
  std::uint32_t phase = 0;
  std::uint32_t live_threads = 0;
  unsigned live_warps = 0;
};

// What a handler sees: the running group, and what is cached of the launch. One per worker.
struct Context {
  std::byte* base[2] = {};  // registers, constants
  std::uint32_t* predicates = nullptr;
  Warp* warp = nullptr;
  Block* block = nullptr;
  Cluster* cluster = nullptr;
  Frame* frame = nullptr;
  std::uint32_t failed = 0;  // lanes whose try_wait did not succeed
  std::int64_t slice = 0;    // instructions left
  std::int64_t charged = 0;  // taken from slices for waiting, not for instructions
  std::uint32_t barrier_address = 0, barrier_parity = 0;  // of that try_wait
  bool progress = false;  // something was stored since it was last cleared
  Memory::Range range;    // the last allocation found
  const Memory* memory = nullptr;
  const Launch* launch = nullptr;
  const KernelCode* kernel = nullptr;
  const Instruction* instruction = nullptr;  // the one in hand, for a fault's text

  void charge(std::int64_t count) { slice -= count, charged += count; }

  template <typename T>
  T* at(std::uint32_t operand) const {
    return reinterpret_cast<T*>(base[operand & 1] + (operand & ~1u));
  }
};

[[noreturn]] void stop(Fault::Kind kind, unsigned lane, std::string text);

// The host's address of a global one, checked.
std::byte* find_global(Context& context, std::uint64_t address, unsigned bytes, unsigned lane);
inline std::byte* global_at(Context& context, std::uint64_t address, unsigned bytes,
                            unsigned lane) {
  if (address - context.range.begin < context.range.end - context.range.begin and
      context.range.end - address >= bytes and (address & (bytes - 1)) == 0) [[likely]] {
    return reinterpret_cast<std::byte*>(address);
  }
  return find_global(context, address, bytes, lane);
}

[[noreturn]] void bad_shared(Context& context, std::uint32_t address, unsigned bytes,
                             unsigned lane);
std::byte* other_shared(Context& context, std::uint32_t address, unsigned bytes, unsigned lane);
inline std::byte* shared_at(Context& context, std::uint32_t address, unsigned bytes,
                            unsigned lane) {
  Block& block = *context.block;
  if (address - shared_begin < block.shared_end - shared_begin and
      block.shared_end - address >= bytes and (address & (bytes - 1)) == 0) [[likely]] {
    return block.shared + address;
  }
  return other_shared(context, address, bytes, lane);
}

std::byte* local_at(Context& context, std::uint32_t address, unsigned bytes, unsigned lane);
std::byte* generic_at(Context& context, std::uint64_t address, unsigned bytes, unsigned lane);

}  // namespace quantloom::emulator
