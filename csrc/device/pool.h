// A caching pool of one device's memory, over a backend so that its bookkeeping runs without a GPU
// too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "device/runtime.h"

namespace quantloom::device {

// What the pool needs of a device.
class PoolBackend {
 public:
  virtual ~PoolBackend() = default;
  // Null when the device has no such memory left. Errors: device for any other failure.
  virtual void* allocate(std::size_t bytes) = 0;
  virtual void release(void* memory) noexcept = 0;
  // An event after the work that `stream` holds now; null when it could not be recorded.
  virtual CUevent_st* record(Stream stream) noexcept = 0;
  virtual void wait(Stream stream, CUevent_st* event) = 0;
  virtual void recycle(CUevent_st* event) noexcept = 0;
  virtual void synchronize() = 0;
  virtual std::size_t free_bytes() = 0;
  virtual std::size_t total_bytes() = 0;
  virtual std::string name() const = 0;
  virtual bool usable()
      const noexcept = 0;  // false: nothing can be given back to the device any more
};

struct MemoryStatistics {
  std::size_t in_use = 0;    // bytes handed out, in whole size classes
  std::size_t peak = 0;      // the largest in_use since the last reset_peak
  std::size_t cached = 0;    // bytes held for reuse
  std::size_t cap = 0;       // the most that in_use + cached may be; 0: what the device has
  std::size_t free = 0;      // bytes the driver says are free on the device
  std::size_t total = 0;     // bytes of the device
  std::uint64_t blocks = 0;  // handed out
  std::uint64_t device_allocations = 0;  // times the driver was asked
};

// Bytes of the size class that holds `bytes`: steps of 1/8 of a power of two below 1 MiB, 1/64
// above, so that at most 1.6% of a large block is lost.
std::size_t size_class(std::size_t bytes);

class Pool {
 public:
  explicit Pool(PoolBackend& backend) : backend_(backend) {}

  // Memory for work on `stream`, 256-byte aligned. A cached block that another stream used last is
  // handed out behind an event, so reuse never overtakes work under way; a shared one, for which
  // the whole device is waited for, where there is no other. Errors: out_of_memory saying what was
  // asked for `what`, what is free and the cap; nothing is kept then.
  void* allocate(std::size_t bytes, Stream stream, const char* what);

  // Back to the cache. Never throws: it runs in destructors.
  void release(void* memory) noexcept;

  // Somebody else's streams use the block that `memory` is in: it is reused only after the whole
  // device was waited for. Memory of nobody's or of another's is none of the pool's.
  void mark_shared(void* memory);

  // `stream` is about to be destroyed with nothing left on it: blocks still handed out for it
  // outlive it.
  void forget(Stream stream);

  // Gives cached blocks back to the driver until at most `keep` bytes are cached.
  void trim(std::size_t keep = 0);

  void set_cap(std::size_t bytes);  // 0: none
  void reset_peak();
  MemoryStatistics statistics();

 private:
  struct Block {
    std::size_t bytes = 0;
    Stream stream = nullptr;
    CUevent_st* event = nullptr;
    bool shared = false;
    void* memory = nullptr;
  };

  bool take_cached(std::size_t bytes, Stream stream, Block& block);
  void trim_locked(std::size_t keep);
  [[noreturn]] void out_of_memory(std::size_t bytes, const char* what);

  PoolBackend& backend_;
  std::mutex mutex_;
  std::map<void*, Block> used_;
  std::map<std::size_t, std::vector<Block>> cached_;
  MemoryStatistics statistics_;
};

}  // namespace quantloom::device
