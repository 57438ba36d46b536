#include "copies.h"

#include <algorithm>

#include "tensor_map.h"
#include "values.h"

namespace quantloom::emulator {
namespace {

std::uint32_t swizzled(std::uint32_t address, unsigned width) {
  const std::uint32_t bits = width == 128 ? 7u : width == 64 ? 3u : width == 32 ? 1u : 0u;
  return address ^ ((address >> 7 & bits) << 4);
}

void check_global(Context& c, u64 address, u64 bytes, unsigned lane) {
  if (bytes == 0) return;
  global_at(c, address, 1, lane);
  global_at(c, address + bytes - 1, 1, lane);
  if (address < c.range.begin or c.range.end - address < bytes) {
    stop(Fault::Kind::illegal_address, lane,
         "a copy of " + std::to_string(bytes) + " bytes goes beyond the end of an allocation");
  }
}

const TensorMap& map_at(Context& c, u64 address, unsigned lane) {
  const std::byte* place = global_at(c, address, 64, lane);
  check_global(c, address, sizeof(TensorMap), lane);
  const auto& map = *reinterpret_cast<const TensorMap*>(place);
  if (map.mark != tensor_map_mark) {
    stop(Fault::Kind::illegal_instruction, lane, "this is not a tensor map");
  }
  return map;
}

u32 box_bytes(const TensorMap& map) {
  u32 bytes = map.element_bytes;
  for (unsigned d = 0; d < map.rank; ++d) bytes *= map.box[d];
  return bytes;
}

// One row of the box along the innermost dimension, zero where it is outside of the tensor.
void copy_row(Context& c, const TensorMap& map, const PendingCopy& copy,
              const std::array<std::int64_t, 5>& at, u32 to) {
  std::byte row[256 * 16];
  const u64 row_bytes = u64{map.box[0]} * map.element_bytes;
  std::memset(row, 0, row_bytes);
  bool inside = true;
  u64 from = map.base;
  for (unsigned d = 1; d < map.rank; ++d) {
    inside = inside and at[d] >= 0 and at[d] < static_cast<s64>(map.sizes[d]);
    if (inside) from += static_cast<u64>(at[d]) * map.strides[d - 1];
  }
  const s64 first = std::max<s64>(at[0], 0);
  const s64 last = std::min<s64>(at[0] + map.box[0], map.sizes[0]);
  if (inside and first < last) {
    from += static_cast<u64>(first) * map.element_bytes;
    const u64 bytes = static_cast<u64>(last - first) * map.element_bytes;
    check_global(c, from, bytes, 0);
    std::memcpy(row + static_cast<u64>(first - at[0]) * map.element_bytes,
                reinterpret_cast<const std::byte*>(from), bytes);
  }
  for (u32 n = 0; n < row_bytes; n += 16) {
    std::memcpy(copy.to_block->shared + swizzled(to + n, map.swizzle), row + n, 16);
  }
}

void copy_box(Context& c, const PendingCopy& copy) {
  const TensorMap& map = map_at(c, copy.from, 0);
  const u32 row_bytes = map.box[0] * map.element_bytes;
  std::array<u32, 5> index{};
  u32 to = copy.to;
  while (true) {
    std::array<std::int64_t, 5> at{};
    for (unsigned d = 0; d < map.rank; ++d) at[d] = s64{copy.at[d]} + (d == 0 ? 0 : index[d]);
    copy_row(c, map, copy, at, to);
    to += row_bytes;
    unsigned d = 1;
    for (; d < map.rank; ++d) {
      if (++index[d] < map.box[d]) break;
      index[d] = 0;
    }
    if (d >= map.rank) return;
  }
}

void do_copy(Context& c, const PendingCopy& copy) {
  if (copy.rank != 0) {
    copy_box(c, copy);
  } else {
    std::memcpy(copy.to_block->shared + copy.to, reinterpret_cast<const std::byte*>(copy.from),
                copy.bytes);
  }
  complete_bytes(c, copy.to_block->shared + copy.barrier, copy.bytes);
}

constexpr u32 offset_mask = (1u << cluster_rank_shift) - 1;

Block* block_of(Context& c, u32 address, unsigned lane) {
  const u32 rank = address >> cluster_rank_shift;
  if (rank == 0) return c.block;
  if (rank > c.cluster->blocks.size()) bad_shared(c, address, 1, lane);
  return c.cluster->blocks[rank - 1].get();
}

// To every block of the mask, or to the address's own.
void queue(Context& c, PendingCopy copy, u32 to, u32 barrier, std::optional<u32> blocks,
           unsigned lane) {
  shared_at(c, barrier, 8, lane);
  if (copy.bytes > 0) {
    shared_at(c, to, 16, lane);
    if ((to & offset_mask) + copy.bytes > block_of(c, to, lane)->shared_end) {
      bad_shared(c, to, copy.bytes, lane);
    }
  }
  copy.to = to & offset_mask;
  copy.barrier = barrier & offset_mask;
  if (not blocks) {
    copy.to_block = block_of(c, to, lane);
    if (block_of(c, barrier, lane) != copy.to_block) {
      stop(Fault::Kind::illegal_instruction, lane, "a copy's mbarrier lies in another block");
    }
    c.cluster->copies.push_back(copy);
    return;
  }
  for_lanes(*blocks, [&](unsigned rank) {
    if (rank >= c.cluster->blocks.size()) {
      stop(Fault::Kind::illegal_instruction, lane, "a copy to a block beyond the cluster");
    }
    copy.to_block = c.cluster->blocks[rank].get();
    c.cluster->copies.push_back(copy);
  });
}

// to, from, bytes, mbarrier, blocks
template <bool multicast>
void bulk_copy(Context& c, const Instruction& i, u32 mask) {
  for_lanes(mask, [&](unsigned l) {
    PendingCopy copy;
    copy.from = read<u64>(c, i.op[1], l);
    copy.bytes = read<u32>(c, i.op[2], l);
    if (copy.bytes % 16 != 0 or copy.from % 16 != 0) {
      stop(Fault::Kind::misaligned_address, l,
           "a bulk copy's address and bytes are multiples of 16, not " + std::to_string(copy.from) +
               " and " + std::to_string(copy.bytes));
    }
    check_global(c, copy.from, copy.bytes, l);
    std::optional<u32> blocks;
    if constexpr (multicast) blocks = read<u16>(c, i.op[4], l);
    queue(c, copy, read<u32>(c, i.op[0], l), read<u32>(c, i.op[3], l), blocks, l);
  });
  c.progress = true;
}

// to, map and coordinates, mbarrier, blocks
template <bool multicast>
void tensor_copy(Context& c, const Instruction& i, u32 mask) {
  for_lanes(mask, [&](unsigned l) {
    PendingCopy copy;
    copy.from = read<u64>(c, i.op[1], l);
    const TensorMap& map = map_at(c, copy.from, l);
    copy.rank = map.rank;
    if (map.rank != i.mode or map.rank != i.list_size) {
      stop(Fault::Kind::illegal_instruction, l, "a tensor map of another rank");
    }
    for (unsigned d = 0; d < map.rank; ++d) {
      copy.at[d] = read<s32>(c, c.frame->function->lists[i.list + d], l);
    }
    copy.bytes = box_bytes(map);
    const u32 to = read<u32>(c, i.op[0], l);
    if (to % 128 != 0) {
      stop(Fault::Kind::misaligned_address, l, "a box's shared address is a multiple of 128");
    }
    std::optional<u32> blocks;
    if constexpr (multicast) blocks = read<u16>(c, i.op[3], l);
    queue(c, copy, to, read<u32>(c, i.op[2], l), blocks, l);
  });
  c.progress = true;
}

void nothing(Context&, const Instruction&, u32) {}

// shared to global: done at once
void bulk_store(Context& c, const Instruction& i, u32 mask) {
  for_lanes(mask, [&](unsigned l) {
    const u64 to = read<u64>(c, i.op[0], l);
    const u32 from = read<u32>(c, i.op[1], l), bytes = read<u32>(c, i.op[2], l);
    if (bytes % 16 != 0 or to % 16 != 0) {
      stop(Fault::Kind::misaligned_address, l, "a bulk copy in other than units of 16 bytes");
    }
    if (bytes == 0) return;
    check_global(c, to, bytes, l);
    const std::byte* source = shared_at(c, from, 16, l);
    if ((from & offset_mask) + bytes > c.block->shared_end) bad_shared(c, from, bytes, l);
    std::memcpy(reinterpret_cast<std::byte*>(to), source, bytes);
  });
  c.progress = true;
}

// to, values, mbarrier: done at once
template <unsigned count>
void store_and_count(Context& c, const Instruction& i, u32 mask) {
  for_lanes(mask, [&](unsigned l) {
    const u32 to = read<u32>(c, i.op[0], l), barrier = read<u32>(c, i.op[2], l);
    if (block_of(c, barrier, l) != block_of(c, to, l)) {
      stop(Fault::Kind::illegal_instruction, l, "a store's mbarrier lies in another block");
    }
    u32 values[count];
    for (unsigned n = 0; n < count; ++n) {
      values[n] = read<u32>(c, count == 1 ? i.op[1] : c.frame->function->lists[i.list + n], l);
    }
    std::memcpy(shared_at(c, to, sizeof values, l), values, sizeof values);
    complete_bytes(c, shared_at(c, barrier, 8, l), sizeof values);
  });
  c.progress = true;
}

// cp.async: to, from, bytes, bytes that are read (the rest is zero)
void small_copy(Context& c, const Instruction& i, u32 mask) {
  for_lanes(mask, [&](unsigned l) {
    AsyncCopy copy;
    copy.to = read<u32>(c, i.op[0], l);
    copy.from = read<u64>(c, i.op[1], l);
    copy.bytes = static_cast<u8>(read<u32>(c, i.op[2], l));
    copy.filled = i.op[3] == no_operand ? copy.bytes : static_cast<u8>(read<u32>(c, i.op[3], l));
    shared_at(c, copy.to, copy.bytes, l);
    if (copy.filled > 0) global_at(c, copy.from, copy.bytes, l);
    c.warp->open_copies[l].push_back(copy);
  });
}
void commit(Context& c, const Instruction&, u32 mask) {
  for_lanes(mask, [&](unsigned l) {
    c.warp->committed_copies[l].push_back(std::move(c.warp->open_copies[l]));
    c.warp->open_copies[l].clear();
  });
}
void do_small(Context& c, const std::vector<AsyncCopy>& copies, unsigned lane) {
  for (const AsyncCopy& copy : copies) {
    std::byte* to = shared_at(c, copy.to, copy.bytes, lane);
    std::memset(to, 0, copy.bytes);
    std::memcpy(to, reinterpret_cast<const std::byte*>(copy.from), copy.filled);
  }
  c.progress = true;
}
template <bool all>
void wait_groups(Context& c, const Instruction& i, u32 mask) {
  const std::size_t left = all ? 0 : static_cast<std::size_t>(i.immediate);
  for_lanes(mask, [&](unsigned l) {
    auto& groups = c.warp->committed_copies[l];
    while (groups.size() > left) {
      do_small(c, groups.front(), l);
      groups.pop_front();
    }
    if constexpr (all) {
      do_small(c, c.warp->open_copies[l], l);
      c.warp->open_copies[l].clear();
    }
  });
}

}  // namespace

void do_copies_at(Context& c, std::byte* barrier) {
  auto& copies = c.cluster->copies;
  for (std::size_t n = 0; n < copies.size();) {
    if (copies[n].to_block->shared + copies[n].barrier != barrier) {
      ++n;
      continue;
    }
    const PendingCopy copy = copies[n];
    copies.erase(copies.begin() + static_cast<std::ptrdiff_t>(n));
    do_copy(c, copy);
  }
}

std::size_t do_copies(Context& c) {
  const std::size_t count = c.cluster->copies.size();
  while (not c.cluster->copies.empty()) {
    const PendingCopy copy = c.cluster->copies.front();
    c.cluster->copies.pop_front();
    do_copy(c, copy);
  }
  return count;
}

void add_async_forms(Forms& forms) {
  add_mbarrier_forms(forms);
  for (const std::string to : {"shared::cluster", "shared::cta"}) {
    const std::string plain = "cp.async.bulk." + to + ".global.mbarrier::complete_tx::bytes";
    forms[plain] = {bulk_copy<false>, "mgwm"};
    forms[plain + ".L2::cache_hint"] = {bulk_copy<false>, "mgwm*"};
    forms[plain + ".multicast::cluster"] = {bulk_copy<true>, "mgwmw"};
    forms[plain + ".multicast::cluster.L2::cache_hint"] = {bulk_copy<true>, "mgwmw*"};
    for (std::uint8_t rank = 1; rank <= 5; ++rank) {
      for (const char* tile : {"", ".tile"}) {
        const std::string box = "cp.async.bulk.tensor." + std::to_string(rank) + "d." + to +
                                ".global" + tile + ".mbarrier::complete_tx::bytes";
        forms[box] = {tensor_copy<false>, "mtm", Kind::plain, rank};
        forms[box + ".L2::cache_hint"] = {tensor_copy<false>, "mtm*", Kind::plain, rank};
        forms[box + ".multicast::cluster"] = {tensor_copy<true>, "mtmw", Kind::plain, rank};
        forms[box + ".multicast::cluster.L2::cache_hint"] = {tensor_copy<true>, "mtmw*",
                                                             Kind::plain, rank};
      }
    }
  }
  for (const std::string weak : {"", ".weak"}) {
    const std::string store = "st.async" + weak + ".shared::cluster.mbarrier::complete_tx::bytes";
    for (const char* type : {".b32", ".u32", ".s32", ".f32"}) {
      forms[store + type] = {store_and_count<1>, "mwm"};
      forms[store + ".v2" + type] = {store_and_count<2>, "mvm"};
      forms[store + ".v4" + type] = {store_and_count<4>, "mvm"};
    }
  }
  forms["cp.async.bulk.global.shared::cta.bulk_group"] = {bulk_store, "gmw"};
  forms["cp.async.bulk.commit_group"] = {nothing, ""};
  forms["cp.async.bulk.wait_group"] = {nothing, "i"};
  forms["cp.async.bulk.wait_group.read"] = {nothing, "i"};
  forms["cp.async.bulk.prefetch.L2.global"] = {nothing, "*"};
  forms["cp.async.bulk.prefetch.L2.global.L2::cache_hint"] = {nothing, "*"};
  for (const char* kind : {"ca", "cg"}) {
    for (const char* hint : {"", ".L2::64B", ".L2::128B", ".L2::256B"}) {
      for (const char* space : {"shared", "shared::cta"}) {
        forms[std::string("cp.async.") + kind + "." + space + ".global" + hint] = {small_copy,
                                                                                   "mgw?w"};
      }
    }
  }
  forms["cp.async.commit_group"] = {commit, ""};
  forms["cp.async.wait_group"] = {wait_groups<false>, "i"};
  forms["cp.async.wait_all"] = {wait_groups<true>, ""};
}

}  // namespace quantloom::emulator
