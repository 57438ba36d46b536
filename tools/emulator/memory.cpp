// Which addresses may be accessed.
#include <cstdio>

#include "state.h"

namespace quantloom::emulator {

void Memory::add(const void* begin, std::size_t bytes) {
  const std::unique_lock lock(mutex_);
  const auto address = reinterpret_cast<std::uintptr_t>(begin);
  ranges_[address] = address + bytes;
}

void Memory::remove(const void* begin) {
  const std::unique_lock lock(mutex_);
  ranges_.erase(reinterpret_cast<std::uintptr_t>(begin));
}

Memory::Range Memory::find(std::uintptr_t address) const {
  const std::shared_lock lock(mutex_);
  auto after = ranges_.upper_bound(address);
  if (after == ranges_.begin()) return {};
  --after;
  if (address >= after->second) return {};
  return {after->first, after->second};
}

void stop(Fault::Kind kind, unsigned lane, std::string text) {
  throw Stop{kind, std::move(text), lane};
}

namespace {

std::string hexadecimal(std::uint64_t value) {
  char text[24];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

[[noreturn]] void misaligned(const char* space, std::uint64_t address, unsigned bytes,
                             unsigned lane) {
  stop(Fault::Kind::misaligned_address, lane,
       std::string(space) + " address " + hexadecimal(address) + " is not a multiple of " +
           std::to_string(bytes));
}

}  // namespace

std::byte* find_global(Context& context, std::uint64_t address, unsigned bytes, unsigned lane) {
  Memory::Range range = context.memory->find(address);
  if (range.end == 0) {
    const auto parameters = reinterpret_cast<std::uintptr_t>(context.launch->parameters);
    if (address >= parameters and address - parameters < context.kernel->parameter_bytes) {
      range = {parameters, parameters + context.kernel->parameter_bytes};
    }
  }
  if (range.end == 0) {
    const Memory::Range before = address != 0 ? context.memory->find(address - 1) : range;
    std::string text = "global address " + hexadecimal(address) + " is in no allocation";
    if (before.end != 0) {
      text += ": the first after one of " + std::to_string(before.end - before.begin) + " bytes";
    }
    stop(Fault::Kind::illegal_address, lane, std::move(text));
  }
  if (range.end - address < bytes) {
    stop(Fault::Kind::illegal_address, lane,
         std::to_string(bytes) + " bytes at global address " + hexadecimal(address) +
             " go beyond the end of an allocation, which is at " + hexadecimal(range.end));
  }
  if ((address & (bytes - 1)) != 0) misaligned("global", address, bytes, lane);
  context.range = range;
  return reinterpret_cast<std::byte*>(address);
}

void bad_shared(Context& context, std::uint32_t address, unsigned bytes, unsigned lane) {
  const std::uint32_t offset = address & ((1u << cluster_rank_shift) - 1);
  stop(Fault::Kind::illegal_address, lane,
       std::to_string(bytes) + " bytes at shared address " + hexadecimal(address) + " (offset " +
           std::to_string(static_cast<std::int64_t>(offset) - shared_begin) +
           ") are not in the block's " + std::to_string(context.block->shared_end - shared_begin) +
           " bytes");
}

std::byte* other_shared(Context& context, std::uint32_t address, unsigned bytes, unsigned lane) {
  const std::uint32_t rank = address >> cluster_rank_shift;
  const std::uint32_t offset = address & ((1u << cluster_rank_shift) - 1);
  Block* block = context.block;
  if (rank != 0) {
    if (rank > context.cluster->blocks.size()) bad_shared(context, address, bytes, lane);
    block = context.cluster->blocks[rank - 1].get();
  }
  if (offset < shared_begin or offset >= block->shared_end or block->shared_end - offset < bytes) {
    bad_shared(context, address, bytes, lane);
  }
  if ((offset & (bytes - 1)) != 0) misaligned("shared", address, bytes, lane);
  return block->shared + offset;
}

std::byte* local_at(Context& context, std::uint32_t address, unsigned bytes, unsigned lane) {
  Warp& warp = *context.warp;
  if (address >= warp.local_bytes or warp.local_bytes - address < bytes) {
    stop(Fault::Kind::illegal_address, lane,
         std::to_string(bytes) + " bytes at local address " + hexadecimal(address) +
             " are not in the thread's " + std::to_string(warp.local_bytes) + " bytes");
  }
  if ((address & (bytes - 1)) != 0) misaligned("local", address, bytes, lane);
  return warp.local.data() + lane * warp.local_bytes + address;
}

std::byte* generic_at(Context& context, std::uint64_t address, unsigned bytes, unsigned lane) {
  const std::uint64_t window = address & window_mask;
  if (window == shared_window) {
    return shared_at(context, static_cast<std::uint32_t>(address), bytes, lane);
  }
  if (window == local_window) {
    return local_at(context, static_cast<std::uint32_t>(address), bytes, lane);
  }
  return global_at(context, address, bytes, lane);
}

}  // namespace quantloom::emulator
