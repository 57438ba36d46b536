// Which warp runs, and which of its groups.
#include "scheduler.h"

#include <algorithm>
#include <thread>

#include "async.h"
#include "frames.h"

namespace quantloom::emulator {
namespace {

constexpr std::int64_t slice_instructions = 10'000;
constexpr std::uint64_t longest_without_progress = 2'000'000'000;  // instructions
constexpr std::chrono::seconds longest_wait{60};

}  // namespace

void LaunchState::set_fault(Fault what) {
  const std::lock_guard lock(mutex);
  if (not fault) fault = std::move(what);
  stopped = true;
}

Worker::Worker(LaunchState& state)
    : state_(state), time_at_progress_(std::chrono::steady_clock::now()) {
  context_.memory = &state.memory;
  context_.launch = &state.launch;
  context_.kernel = &state.kernel;
}

void Worker::run_one_by_one() {
  while (not state_.stopped) {
    const std::uint64_t number = state_.next_cluster.fetch_add(1);
    if (number >= state_.clusters) break;
    std::vector<std::unique_ptr<Cluster>> clusters;
    clusters.push_back(make_cluster(state_, number));
    run(clusters);
  }
  state_.instructions += instructions_ - static_cast<std::uint64_t>(context_.charged);
}

void Worker::run_together(unsigned first, unsigned step) {
  std::vector<std::unique_ptr<Cluster>> clusters;
  for (std::uint64_t number = first; number < state_.clusters; number += step) {
    clusters.push_back(make_cluster(state_, number));
  }
  run(clusters);
  state_.instructions += instructions_ - static_cast<std::uint64_t>(context_.charged);
}

void Worker::run(const std::vector<std::unique_ptr<Cluster>>& clusters) {
  unsigned live = 0;
  for (const auto& cluster : clusters) {
    live += cluster->live_warps;
    for (const auto& block : cluster->blocks) {
      for (const auto& warp : block->warps) {
        Frame* frame = enter_frame(*warp, nullptr, 0, *state_.kernel.functions.front(),
                                   state_.launch.parameters);
        warp->groups.push_back({warp->live, 0, frame});
      }
    }
  }
  try {
    while (live > 0 and not state_.stopped) {
      bool ran = false;
      live = 0;
      for (const auto& cluster : clusters) {
        context_.cluster = cluster.get();
        for (const auto& block : cluster->blocks) {
          if (block->live_warps == 0) continue;
          context_.block = block.get();
          for (const auto& warp : block->warps) {
            if (warp->live != 0 and run_warp(*warp)) ran = true;
          }
        }
        live += cluster->live_warps;
      }
      if (ran or live == 0) {
        check_hang(clusters);
        continue;
      }
      std::size_t copied = 0;
      for (const auto& cluster : clusters) {
        if (cluster->copies.empty()) continue;
        context_.cluster = cluster.get();
        context_.block = cluster->copies.front().to_block;
        context_.warp = context_.block->warps.front().get();
        context_.instruction = nullptr;
        copied += do_copies(context_);
      }
      if (copied == 0) hang(clusters, "no thread can go on");
    }
  } catch (const Stop& stop) {
    std::string text = "kernel " + state_.kernel.name + ", ";
    if (context_.warp != nullptr and context_.frame != nullptr and
        context_.instruction != nullptr) {
      const auto pc = static_cast<std::uint32_t>(context_.instruction -
                                                 context_.frame->function->instructions.data());
      text += where(*context_.warp, *context_.frame, pc, stop.lane) + ": ";
    }
    state_.set_fault({stop.kind, text + stop.text});
  }
}

bool Worker::wake(Warp& warp) {
  bool woken = false;
  for (Group& group : warp.groups) {
    if (group.state == GroupState::parked) {
      context_.warp = &warp;
      context_.frame = group.frame;
      const auto lane = static_cast<unsigned>(std::countr_zero(group.mask));
      if (not phase_has_ended(context_, group.barrier, group.parity, lane)) continue;
      group.state = GroupState::ready;
      woken = true;
    } else if (group.state == GroupState::at_cluster and
               context_.cluster->phase != warp.cluster_phase) {
      group.state = GroupState::ready;
      woken = true;
    }
  }
  return woken;
}

// Groups at the same instruction of the same frame become one.
void Worker::merge(Warp& warp) {
  const auto joins = [](const Group& group) {
    return group.state == GroupState::ready or group.state == GroupState::meeting;
  };
  auto& groups = warp.groups;
  for (std::size_t a = 0; a < groups.size(); ++a) {
    if (not joins(groups[a])) continue;
    for (std::size_t b = groups.size(); b-- > a + 1;) {
      if (not joins(groups[b]) or groups[a].pc != groups[b].pc or
          groups[a].frame != groups[b].frame) {
        continue;
      }
      groups[a].mask |= groups[b].mask;
      groups[a].state = GroupState::ready;
      groups[a].behind = false;
      groups.erase(groups.begin() + static_cast<std::ptrdiff_t>(b));
    }
  }
}

// The deepest call, then the lowest instruction; groups that have been spinning come last.
int Worker::choose(Warp& warp) {
  int best = -1;
  bool only_behind = false;
  for (int pass = 0; pass < 2 and best < 0; ++pass) {
    for (std::size_t g = 0; g < warp.groups.size(); ++g) {
      Group& group = warp.groups[g];
      if (group.state != GroupState::ready) continue;
      if (group.behind and pass == 0) {
        only_behind = true;
        continue;
      }
      group.behind = false;
      if (best < 0) {
        best = static_cast<int>(g);
        continue;
      }
      const Group& other = warp.groups[static_cast<std::size_t>(best)];
      const std::uint32_t depth = group.frame->depth, best_depth = other.frame->depth;
      if (depth > best_depth or (depth == best_depth and group.pc < other.pc)) {
        best = static_cast<int>(g);
      }
    }
    if (not only_behind) break;
  }
  return best;
}

// Every group waits for others of the warp: a barrier reached along different ways counts as one.
bool Worker::release_meeting(Warp& warp) {
  const Group* first = nullptr;
  for (const Group& group : warp.groups) {
    if (group.state != GroupState::meeting) return false;
    if (first == nullptr) first = &group;
  }
  if (first == nullptr) return false;
  const auto instruction_of = [](const Group& group) -> const Instruction& {
    return group.frame->function->instructions[group.pc];
  };
  const Instruction& kind = instruction_of(*first);
  if (kind.kind != Kind::block_barrier) return false;
  for (const Group& group : warp.groups) {
    if (instruction_of(group).kind != Kind::block_barrier) return false;
  }
  context_.warp = &warp;
  context_.frame = first->frame;
  context_.base[0] = first->frame->registers;
  context_.base[1] = reinterpret_cast<std::byte*>(
      const_cast<std::uint64_t*>(first->frame->function->constants.data()));
  context_.instruction = &kind;
  const auto lane = static_cast<std::uint32_t>(std::countr_zero(first->mask));
  for (Group& group : warp.groups) ++group.pc;
  arrive(warp, kind, lane, true);
  return true;
}

bool Worker::run_warp(Warp& warp) {
  context_.slice = slice_instructions;
  context_.warp = &warp;
  bool ran = false;
  while (context_.slice > 0 and not warp.groups.empty()) {
    if (warp.groups.size() > 1) merge(warp);
    int group = choose(warp);
    if (group < 0) {
      if (wake(warp) or release_meeting(warp)) continue;
      break;
    }
    if (warp.groups.size() > 1 and ran) wake(warp);
    ran = true;
    execute(warp, static_cast<std::size_t>(group));
  }
  instructions_ += static_cast<std::uint64_t>(slice_instructions - context_.slice);
  return ran;
}

void Worker::check_hang(const std::vector<std::unique_ptr<Cluster>>& clusters) {
  if (context_.progress) {
    context_.progress = false;
    ++state_.progress;
  }
  const std::uint64_t now = state_.progress.load(std::memory_order_relaxed);
  if (now != seen_progress_) {
    seen_progress_ = now;
    instructions_at_progress_ = instructions_;
    time_at_progress_ = std::chrono::steady_clock::now();
  } else if (instructions_ - instructions_at_progress_ > longest_without_progress or
             std::chrono::steady_clock::now() - time_at_progress_ > longest_wait) {
    hang(clusters, "nothing was stored for too long");
  }
}

std::string Worker::where(const Warp& warp, const Frame& frame, std::uint32_t pc,
                          unsigned lane) const {
  const Dim3 block = warp.block->at;
  const auto triple = [](unsigned x, unsigned y, unsigned z) {
    std::string text(1, '(');
    return text.append(std::to_string(x))
        .append(",")
        .append(std::to_string(y))
        .append(",")
        .append(std::to_string(z))
        .append(")");
  };
  std::string text = "block " + triple(block.x, block.y, block.z) + ", thread " +
                     triple(warp.tid_x[lane], warp.tid_y[lane], warp.tid_z[lane]);
  const std::string_view all = *state_.kernel.text;
  const std::size_t at = frame.function->instructions[pc].source;
  std::size_t begin = all.rfind('\n', at), end = all.find_first_of(";\n", at);
  begin = begin == std::string_view::npos ? 0 : begin + 1;
  end = std::min(end, all.size());
  const auto line =
      1 + std::count(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(at), '\n');
  std::string source;
  for (const char c : all.substr(begin, std::min<std::size_t>(end - begin, 200))) {
    const char kept = c == '\t' ? ' ' : c;
    if (kept != ' ' or (not source.empty() and source.back() != ' ')) source += kept;
  }
  return text + ", at line " + std::to_string(line) + " of its PTX, " + source;
}

void Worker::hang(const std::vector<std::unique_ptr<Cluster>>& clusters, const char* why) {
  std::string text = std::string(why) + "; waiting:";
  int told = 0;
  for (const auto& cluster : clusters) {
    for (const auto& block : cluster->blocks) {
      for (const auto& warp : block->warps) {
        for (const Group& group : warp->groups) {
          if (told++ >= 8) continue;
          const bool past = group.state == GroupState::parked or
                            group.state == GroupState::at_barrier or
                            group.state == GroupState::at_cluster;
          const std::uint32_t pc = past and group.pc > 0 ? group.pc - 1 : group.pc;
          text += "\n  " + where(*warp, *group.frame, pc,
                                 static_cast<unsigned>(std::countr_zero(group.mask)));
        }
      }
    }
  }
  if (told > 8) text += "\n  and " + std::to_string(told - 8) + " more";
  context_.instruction = nullptr;
  throw Stop{Fault::Kind::hang, text, 0};
}

std::optional<Fault> run(const Launch& launch, const Memory& memory, Statistics* statistics) {
  const KernelCode& kernel = *launch.kernel->code;
  LaunchState state(launch, memory, kernel);
  const std::uint64_t blocks = std::uint64_t{launch.grid.x} * launch.grid.y * launch.grid.z;
  const Dim3 shape = launch.cluster;
  const std::uint64_t of_cluster = std::uint64_t{shape.x} * shape.y * shape.z;
  if (of_cluster == 0 or launch.grid.x % shape.x != 0 or launch.grid.y % shape.y != 0 or
      launch.grid.z % shape.z != 0) {
    return Fault{Fault::Kind::illegal_instruction,
                 "kernel " + kernel.name + ": the grid is not a multiple of the cluster"};
  }
  state.clusters = blocks / of_cluster;
  const auto threads = static_cast<unsigned>(
      std::min<std::uint64_t>(std::max(1u, std::thread::hardware_concurrency()), state.clusters));
  const auto work = [&](unsigned index) {
    Worker worker(state);
    if (launch.cooperative) {
      worker.run_together(index, threads);
    } else {
      worker.run_one_by_one();
    }
  };
  std::vector<std::thread> others;
  for (unsigned t = 1; t < threads; ++t) others.emplace_back(work, t);
  if (threads > 0) work(0);
  for (std::thread& other : others) other.join();
  if (statistics != nullptr) statistics->warp_instructions += state.instructions;
  return state.fault;
}

}  // namespace quantloom::emulator
