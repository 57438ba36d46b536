#include "device/pool.h"

#include <algorithm>
#include <bit>

#include "base/error.h"
#include "base/faults.h"

namespace quantloom::device {

std::size_t size_class(std::size_t bytes) {
  constexpr std::size_t smallest = 512;
  constexpr std::size_t large = std::size_t{1} << 20;
  if (bytes <= smallest) return smallest;
  const std::size_t steps = bytes < large ? 8 : 64;
  const std::size_t step = std::max(std::bit_floor(bytes) / steps, smallest);
  if (bytes > SIZE_MAX - step) return bytes;
  return (bytes + step - 1) / step * step;
}

bool Pool::take_cached(std::size_t bytes, Stream stream, Block& block) {
  const auto found = cached_.find(bytes);
  if (found == cached_.end()) return false;
  std::vector<Block>& blocks = found->second;
  auto best = std::find_if(blocks.begin(), blocks.end(), [stream](const Block& candidate) {
    return candidate.stream == stream && !candidate.shared;
  });
  if (best == blocks.end()) {
    best = std::find_if(blocks.begin(), blocks.end(),
                        [](const Block& candidate) { return !candidate.shared; });
  }
  if (best == blocks.end()) best = blocks.begin();
  if (best->shared) {
    backend_.synchronize();
  } else if (best->stream != stream && best->event != nullptr) {
    backend_.wait(stream, best->event);
  }
  block = *best;
  *best = blocks.back();
  blocks.pop_back();
  if (blocks.empty()) cached_.erase(found);
  if (block.event != nullptr) backend_.recycle(block.event);
  statistics_.cached -= bytes;
  return true;
}

void* Pool::allocate(std::size_t bytes, Stream stream, const char* what) {
  const std::size_t size = size_class(bytes);
  const std::lock_guard lock(mutex_);
  if (faults::fails(faults::Point::device_allocation)) out_of_memory(bytes, what);
  Block block;
  if (!take_cached(size, stream, block)) {
    const std::size_t cap = statistics_.cap;
    if (cap != 0 && (size > cap || statistics_.in_use > cap - size)) out_of_memory(bytes, what);
    if (cap != 0 && statistics_.in_use + statistics_.cached > cap - size) {
      trim_locked(cap - size - statistics_.in_use);
    }
    block.memory = backend_.allocate(size);
    if (block.memory == nullptr && statistics_.cached > 0) {
      trim_locked(0);
      block.memory = backend_.allocate(size);
    }
    if (block.memory == nullptr) out_of_memory(bytes, what);
    ++statistics_.device_allocations;
  }
  block.bytes = size;
  block.stream = stream;
  block.event = nullptr;
  block.shared = false;
  used_.emplace(block.memory, block);
  statistics_.in_use += size;
  statistics_.peak = std::max(statistics_.peak, statistics_.in_use);
  ++statistics_.blocks;
  return block.memory;
}

void Pool::release(void* memory) noexcept {
  // First, without the lock: after a fork another thread of the parent may hold it for ever.
  if (!backend_.usable()) return;
  const std::lock_guard lock(mutex_);
  const auto found = used_.find(memory);
  if (found == used_.end()) return;
  Block block = found->second;
  used_.erase(found);
  statistics_.in_use -= block.bytes;
  --statistics_.blocks;
  if (!block.shared) {
    block.event = backend_.record(block.stream);
    if (block.event == nullptr) block.shared = true;
  }
  statistics_.cached += block.bytes;
  cached_[block.bytes].push_back(block);
}

void Pool::mark_shared(void* memory) {
  const std::lock_guard lock(mutex_);
  auto found = used_.upper_bound(memory);
  if (found == used_.begin()) return;
  --found;
  const auto* begin = static_cast<const std::byte*>(found->first);
  if (static_cast<const std::byte*>(memory) < begin + found->second.bytes) {
    found->second.shared = true;
  }
}

void Pool::forget(Stream stream) {
  const std::lock_guard lock(mutex_);
  for (auto& [memory, block] : used_) {
    if (block.stream == stream) block.shared = true;
  }
}

void Pool::trim_locked(std::size_t keep) {
  if (statistics_.cached <= keep) return;
  backend_.synchronize();
  while (statistics_.cached > keep && !cached_.empty()) {
    const auto largest = std::prev(cached_.end());
    const Block block = largest->second.back();
    largest->second.pop_back();
    if (largest->second.empty()) cached_.erase(largest);
    if (block.event != nullptr) backend_.recycle(block.event);
    backend_.release(block.memory);
    statistics_.cached -= block.bytes;
  }
}

void Pool::trim(std::size_t keep) {
  const std::lock_guard lock(mutex_);
  trim_locked(keep);
}

void Pool::set_cap(std::size_t bytes) {
  const std::lock_guard lock(mutex_);
  if (bytes != 0 && statistics_.in_use + statistics_.cached > bytes) {
    trim_locked(bytes > statistics_.in_use ? bytes - statistics_.in_use : 0);
  }
  statistics_.cap = bytes;
}

void Pool::reset_peak() {
  const std::lock_guard lock(mutex_);
  statistics_.peak = statistics_.in_use;
}

MemoryStatistics Pool::statistics() {
  const std::lock_guard lock(mutex_);
  MemoryStatistics answer = statistics_;
  answer.free = backend_.free_bytes();
  answer.total = backend_.total_bytes();
  return answer;
}

void Pool::out_of_memory(std::size_t bytes, const char* what) {
  const std::size_t free = backend_.free_bytes();
  std::size_t available = free + statistics_.cached;
  if (statistics_.cap != 0) {
    const std::size_t left = statistics_.cap - std::min(statistics_.cap, statistics_.in_use);
    available = std::min(available, left);
  }
  std::string message = backend_.name() + " has no memory for " + what + ": " +
                        std::to_string(bytes) + " bytes asked, " + std::to_string(available) +
                        " free of " + std::to_string(backend_.total_bytes()) + ", " +
                        std::to_string(statistics_.in_use) + " in use by this process's tensors";
  if (statistics_.cap != 0) message += ", under a cap of " + std::to_string(statistics_.cap);
  throw Error(ErrorKind::out_of_memory, message, what, std::nullopt, available);
}

}  // namespace quantloom::device
