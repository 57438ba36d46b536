// PTX names every value anew. Registers that are never live together share a place, so that a
// warp's registers stay in the cache.
#include <algorithm>
#include <queue>

#include "decode.h"

namespace quantloom::emulator {
namespace {

struct Blocks {
  std::vector<std::uint32_t> begin;  // first instruction; one entry more at the end
  std::vector<std::uint32_t> of;     // block of each instruction
  std::vector<std::vector<std::uint32_t>> next;
};

Blocks split(const FunctionCode& code) {
  const std::size_t count = code.instructions.size();
  std::vector<bool> leads(count + 1, false);
  leads[0] = leads[count] = true;
  const auto jumps = [&](const Instruction& i, auto&& visit) {
    if (i.kind == Kind::branch) visit(i.target);
    if (i.kind == Kind::indexed_branch) {
      for (const std::uint32_t target : code.branch_tables[i.target]) visit(target);
    }
  };
  const auto ends = [](Kind kind) {
    return kind == Kind::branch or kind == Kind::indexed_branch or kind == Kind::leave or
           kind == Kind::exit;
  };
  for (std::size_t i = 0; i < count; ++i) {
    const Instruction& instruction = code.instructions[i];
    if (not ends(instruction.kind)) continue;
    leads[i + 1] = true;
    jumps(instruction, [&](std::uint32_t target) { leads[target] = true; });
  }
  Blocks blocks;
  blocks.of.resize(count);
  for (std::size_t i = 0; i < count; ++i) {
    if (leads[i]) blocks.begin.push_back(static_cast<std::uint32_t>(i));
    blocks.of[i] = static_cast<std::uint32_t>(blocks.begin.size() - 1);
  }
  const std::size_t number = blocks.begin.size();
  blocks.begin.push_back(static_cast<std::uint32_t>(count));
  blocks.next.resize(number);
  for (std::size_t b = 0; b < number; ++b) {
    const Instruction& last = code.instructions[blocks.begin[b + 1] - 1];
    jumps(last, [&](std::uint32_t target) { blocks.next[b].push_back(blocks.of[target]); });
    const bool goes_on = not ends(last.kind) or last.guard != no_guard;
    if (goes_on and b + 1 < number) blocks.next[b].push_back(static_cast<std::uint32_t>(b + 1));
  }
  return blocks;
}

struct Life {
  std::uint32_t first = 0xffffffffu, last = 0;
  void cover(std::uint32_t at) { first = std::min(first, at), last = std::max(last, at); }
};

// Where a register is used in a block before the block sets it, it is live between blocks.
class Liveness {
 public:
  Liveness(const FunctionCode& code, const Registers& registers)
      : code_(code), registers_(registers), blocks_(split(code)) {
    index_.assign(registers.classes.size(), none);
    find_crossing();
    spread();
  }

  std::vector<Life> lives() const {
    std::vector<Life> lives(registers_.classes.size());
    for (const RegisterUse& use : registers_.uses) lives[use.number].cover(use.instruction);
    for (std::size_t b = 0; b + 1 < blocks_.begin.size(); ++b) {
      for (std::size_t w = 0; w < words_; ++w) {
        visit(in_[b * words_ + w], w, lives, blocks_.begin[b]);
        visit(out(b, w), w, lives, blocks_.begin[b + 1] - 1);
      }
    }
    return lives;
  }

 private:
  static constexpr std::uint32_t none = 0xffffffffu;

  void visit(std::uint64_t bits, std::size_t word, std::vector<Life>& lives,
             std::uint32_t at) const {
    while (bits != 0) {
      const auto bit = static_cast<std::size_t>(std::countr_zero(bits));
      bits &= bits - 1;
      lives[crossing_[64 * word + bit]].cover(at);
    }
  }

  std::uint64_t out(std::size_t block, std::size_t word) const {
    std::uint64_t bits = 0;
    for (const std::uint32_t next : blocks_.next[block]) bits |= in_[next * words_ + word];
    return bits;
  }

  // Uses come in the order of their instructions. A written register under a guard keeps its other
  // lanes.
  template <typename Read, typename Write>
  void walk(Read&& read, Write&& write) const {
    const auto& uses = registers_.uses;
    for (std::size_t u = 0; u < uses.size();) {
      const std::uint32_t at = uses[u].instruction;
      std::size_t end = u;
      while (end < uses.size() and uses[end].instruction == at) ++end;
      const bool guarded = code_.instructions[at].guard != no_guard;
      for (std::size_t k = u; k < end; ++k) {
        if (not uses[k].written or guarded) read(uses[k].number, blocks_.of[at]);
      }
      for (std::size_t k = u; k < end; ++k) {
        if (uses[k].written and not guarded) write(uses[k].number, blocks_.of[at]);
      }
      u = end;
    }
  }

  void find_crossing() {
    std::vector<std::uint32_t> written_in(registers_.classes.size(), none);
    walk(
        [&](std::uint32_t number, std::uint32_t block) {
          if (written_in[number] == block or index_[number] != none) return;
          index_[number] = static_cast<std::uint32_t>(crossing_.size());
          crossing_.push_back(number);
        },
        [&](std::uint32_t number, std::uint32_t block) { written_in[number] = block; });
    words_ = (crossing_.size() + 63) / 64;
  }

  void spread() {
    const std::size_t count = blocks_.begin.size() - 1;
    std::vector<std::uint64_t> used(count * words_), set(count * words_);
    walk(
        [&](std::uint32_t number, std::uint32_t block) {
          const std::uint32_t i = index_[number];
          if (i == none) return;
          const std::size_t w = block * words_ + i / 64;
          if ((set[w] >> i % 64 & 1) == 0) used[w] |= std::uint64_t{1} << i % 64;
        },
        [&](std::uint32_t number, std::uint32_t block) {
          const std::uint32_t i = index_[number];
          if (i != none) set[block * words_ + i / 64] |= std::uint64_t{1} << i % 64;
        });
    in_ = used;
    for (bool changed = true; changed;) {
      changed = false;
      for (std::size_t b = count; b-- > 0;) {
        for (std::size_t w = 0; w < words_; ++w) {
          const std::size_t at = b * words_ + w;
          const std::uint64_t live = used[at] | (out(b, w) & ~set[at]);
          changed = changed or live != in_[at];
          in_[at] = live;
        }
      }
    }
  }

  const FunctionCode& code_;
  const Registers& registers_;
  Blocks blocks_;
  std::vector<std::uint32_t> index_, crossing_;
  std::size_t words_ = 0;
  std::vector<std::uint64_t> in_;
};

// A place per register of one class: the lowest that is free from the first to the last instruction
// of its life.
std::uint32_t share(const std::vector<Life>& lives, const Registers& registers, RegisterClass kind,
                    std::vector<std::uint32_t>& places) {
  std::vector<std::uint32_t> order;
  for (std::uint32_t n = 0; n < lives.size(); ++n) {
    if (registers.classes[n] == static_cast<std::uint8_t>(kind) and
        lives[n].first <= lives[n].last) {
      order.push_back(n);
    }
  }
  std::stable_sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) {
    return lives[a].first < lives[b].first;
  });
  using Entry = std::pair<std::uint32_t, std::uint32_t>;
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> taken;  // until when, place
  std::priority_queue<std::uint32_t, std::vector<std::uint32_t>, std::greater<>> free;
  std::uint32_t count = 0;
  for (const std::uint32_t n : order) {
    while (not taken.empty() and taken.top().first < lives[n].first) {
      free.push(taken.top().second);
      taken.pop();
    }
    if (free.empty()) {
      places[n] = count++;
    } else {
      places[n] = free.top();
      free.pop();
    }
    taken.emplace(lives[n].last, places[n]);
  }
  return count;
}

}  // namespace

void place_registers(FunctionCode& code, const Registers& registers) {
  const std::vector<Life> lives = Liveness(code, registers).lives();
  std::vector<std::uint32_t> places(lives.size(), 0);
  const std::uint32_t narrow = share(lives, registers, RegisterClass::narrow, places);
  const std::uint32_t wide = share(lives, registers, RegisterClass::wide, places);
  const std::uint32_t predicates = share(lives, registers, RegisterClass::predicate, places);
  const auto fixed = static_cast<std::uint32_t>(registers.frame_values.size());
  for (std::uint32_t n = 0; n < fixed; ++n) {
    places[registers.frame_values[n]] = wide + n;
    code.local_constants[n].register_offset = narrow * 128 + (wide + n) * 256;
  }
  code.predicates = predicates + 2;
  code.register_bytes = narrow * 128 + (wide + fixed) * 256;
  for (const RegisterUse& use : registers.uses) {
    const auto kind = static_cast<RegisterClass>(registers.classes[use.number] & ~fixed_register);
    std::uint32_t place = places[use.number];
    if (kind == RegisterClass::predicate) place += 2;
    if (kind == RegisterClass::narrow) place *= 128;
    if (kind == RegisterClass::wide) place = narrow * 128 + place * 256;
    Instruction& instruction = code.instructions[use.instruction];
    if (use.field == guard_field) {
      instruction.guard = static_cast<std::uint16_t>(place);
    } else if (use.field >= first_list_field) {
      code.lists[use.field - first_list_field] = place;
    } else {
      instruction.op[use.field] = place;
    }
  }
}

}  // namespace quantloom::emulator
