// Making the blocks of a launch.
#include "scheduler.h"

namespace quantloom::emulator {
namespace {

// Shared memory and registers begin as this: a NaN of every type.
constexpr int poison = 0xff;

Dim3 split_number(std::uint64_t number, const Dim3& sizes) {
  return {static_cast<unsigned>(number % sizes.x),
          static_cast<unsigned>(number / sizes.x % sizes.y),
          static_cast<unsigned>(number / sizes.x / sizes.y)};
}

std::unique_ptr<Warp> make_warp(const LaunchState& state, Block& block, unsigned index,
                                unsigned threads) {
  auto warp = std::make_unique<Warp>();
  warp->block = &block;
  warp->index = index;
  const unsigned first = index * 32;
  const unsigned lanes = std::min(32u, threads - first);
  warp->live = lanes == 32 ? 0xffffffffu : (1u << lanes) - 1;
  for (unsigned l = 0; l < 32; ++l) {
    const Dim3 at = split_number(first + l, state.launch.block);
    warp->tid_x[l] = at.x, warp->tid_y[l] = at.y, warp->tid_z[l] = at.z;
  }
  warp->local_bytes = state.kernel.functions.front()->stack_bytes;
  warp->local.assign(warp->local_bytes * 32, std::byte{poison});
  warp->groups.reserve(32);
  return warp;
}

}  // namespace

std::unique_ptr<Cluster> make_cluster(const LaunchState& state, std::uint64_t number) {
  const Launch& launch = state.launch;
  auto cluster = std::make_unique<Cluster>();
  const Dim3 shape = launch.cluster;
  const Dim3 clusters{launch.grid.x / shape.x, launch.grid.y / shape.y, launch.grid.z / shape.z};
  const Dim3 at = split_number(number, clusters);
  const unsigned threads = launch.block.x * launch.block.y * launch.block.z;
  for (unsigned rank = 0; rank < shape.x * shape.y * shape.z; ++rank) {
    auto block = std::make_unique<Block>();
    block->cluster = cluster.get();
    block->rank = rank;
    block->at_in_cluster = split_number(rank, shape);
    block->at = {at.x * shape.x + block->at_in_cluster.x, at.y * shape.y + block->at_in_cluster.y,
                 at.z * shape.z + block->at_in_cluster.z};
    block->number =
        (std::uint64_t{block->at.z} * launch.grid.y + block->at.y) * launch.grid.x + block->at.x;
    const std::size_t end = state.kernel.dynamic_shared_at + launch.dynamic_shared_bytes;
    block->shared_end = static_cast<std::uint32_t>(
        launch.dynamic_shared_bytes == 0 ? shared_begin + state.kernel.static_shared_bytes : end);
    block->shared_storage.assign(block->shared_end + 1024, std::byte{poison});
    const auto begin = reinterpret_cast<std::uintptr_t>(block->shared_storage.data());
    block->shared = block->shared_storage.data() + (1024 - begin % 1024) % 1024;
    for (unsigned w = 0; w * 32 < threads; ++w) {
      block->warps.push_back(make_warp(state, *block, w, threads));
    }
    block->live_warps = static_cast<unsigned>(block->warps.size());
    cluster->live_warps += block->live_warps;
    cluster->live_threads += threads;
    cluster->blocks.push_back(std::move(block));
  }
  return cluster;
}

}  // namespace quantloom::emulator
