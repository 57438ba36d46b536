// Runs blocks' warps in turn.
#pragma once

#include <mutex>

#include "state.h"

namespace quantloom::emulator {

// What the workers of a launch share.
struct LaunchState {
  LaunchState(const Launch& its_launch, const Memory& its_memory, const KernelCode& its_kernel)
      : launch(its_launch), memory(its_memory), kernel(its_kernel) {}
  const Launch& launch;
  const Memory& memory;
  const KernelCode& kernel;
  std::uint64_t clusters = 0;
  std::atomic<std::uint64_t> next_cluster{0};
  std::atomic<std::uint64_t> progress{0};  // grows with every slice that stored something
  std::atomic<std::uint64_t> instructions{0};
  std::atomic<bool> stopped{false};
  std::mutex mutex;
  std::optional<Fault> fault;

  void set_fault(Fault fault);
};

std::unique_ptr<Cluster> make_cluster(const LaunchState& state, std::uint64_t number);

class Worker {
 public:
  explicit Worker(LaunchState& state);
  void run_one_by_one();                             // clusters as they come
  void run_together(unsigned first, unsigned step);  // the clusters first, first + step ...

 private:
  enum class Event { merge, slice };

  void run(const std::vector<std::unique_ptr<Cluster>>& clusters);
  bool run_warp(Warp& warp);  // whether it executed anything
  void merge(Warp& warp);
  int choose(Warp& warp);
  bool wake(Warp& warp);  // groups whose wait has ended
  bool release_meeting(Warp& warp);
  std::uint32_t limit_of(const Warp& warp, std::size_t group) const;
  void execute(Warp& warp, std::size_t group);
  // Instructions that are not plain; false where the group stops running for now.
  bool special(Warp& warp, std::size_t group, const Instruction& instruction, std::uint32_t mask);
  bool branch(Warp& warp, std::size_t group, const Instruction& instruction, std::uint32_t mask,
              std::uint32_t target);
  bool indexed_branch(Warp& warp, std::size_t group, const Instruction& instruction,
                      std::uint32_t mask);
  bool meet(Warp& warp, std::size_t group, const Instruction& instruction, std::uint32_t mask);
  void call(Warp& warp, std::size_t group, const Instruction& instruction, std::uint32_t mask);
  void leave(Warp& warp, std::size_t group, std::uint32_t mask);
  void exit(Warp& warp, std::size_t group, std::uint32_t mask);
  void split(Warp& warp, std::size_t group, std::uint32_t mask);  // the lanes that go on alone
  void arrive(Warp& warp, const Instruction& instruction, std::uint32_t lane, bool waits);
  void release(Block& block, unsigned number);
  void end_cluster_phase(Cluster& cluster);
  void check_hang(const std::vector<std::unique_ptr<Cluster>>& clusters);
  [[noreturn]] void hang(const std::vector<std::unique_ptr<Cluster>>& clusters, const char* why);
  std::string where(const Warp& warp, const Frame& frame, std::uint32_t pc, unsigned lane) const;

  LaunchState& state_;
  Context context_;
  std::uint64_t instructions_ = 0;
  std::uint64_t seen_progress_ = 0, instructions_at_progress_ = 0;
  std::chrono::steady_clock::time_point time_at_progress_;
  unsigned backward_ = 0;  // branches of the group in hand
};

}  // namespace quantloom::emulator
