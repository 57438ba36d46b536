// The memory pool's bookkeeping over a device that is only counted.
#include <cstdlib>
#include <map>
#include <string>
#include <vector>

#include "base/faults.h"
#include "check.h"
#include "device/pool.h"

namespace {

using quantloom::device::Pool;
using quantloom::device::size_class;
using quantloom::device::Stream;

class CountedDevice final : public quantloom::device::PoolBackend {
 public:
  explicit CountedDevice(std::size_t total) : total_(total) {}
  ~CountedDevice() override {
    for (const auto& [memory, bytes] : live) std::free(memory);
  }

  void* allocate(std::size_t bytes) override {
    if (bytes > free_bytes()) return nullptr;
    void* memory = std::aligned_alloc(256, 256);
    live[memory] = bytes;
    used_ += bytes;
    return memory;
  }
  void release(void* memory) noexcept override {
    used_ -= live[memory];
    live.erase(memory);
    std::free(memory);
  }
  CUevent_st* record(Stream) noexcept override { return reinterpret_cast<CUevent_st*>(++events); }
  void wait(Stream, CUevent_st*) override { ++waits; }
  void recycle(CUevent_st*) noexcept override { ++recycled; }
  void synchronize() override { ++synchronizations; }
  std::size_t free_bytes() override { return total_ - used_; }
  std::size_t total_bytes() override { return total_; }
  std::string name() const override { return "cuda:7"; }
  bool usable() const noexcept override { return alive; }

  std::map<void*, std::size_t> live;
  std::uintptr_t events = 0;
  int waits = 0;
  std::uintptr_t recycled = 0;
  int synchronizations = 0;
  bool alive = true;

 private:
  std::size_t total_;
  std::size_t used_ = 0;
};

const Stream first_stream = reinterpret_cast<Stream>(std::uintptr_t{0x100});
const Stream second_stream = reinterpret_cast<Stream>(std::uintptr_t{0x200});

constexpr std::size_t mebibyte = std::size_t{1} << 20;

}  // namespace

TEST(size_classes_waste_little) {
  CHECK(size_class(0) == std::size_t{512});
  CHECK(size_class(513) == std::size_t{1024});
  for (std::size_t bytes = 1; bytes < (std::size_t{1} << 34); bytes += 1 + bytes / 3) {
    const std::size_t size = size_class(bytes);
    CHECK(size >= bytes);
    CHECK(size % 512 == 0);
    CHECK(bytes < mebibyte || size - bytes <= bytes / 64);
    CHECK(size_class(size) == size);
  }
}

TEST(a_block_comes_back_on_the_same_stream_without_waiting) {
  CountedDevice device(16 * mebibyte);
  Pool pool(device);
  void* memory = pool.allocate(3000, first_stream, "x");
  CHECK(pool.statistics().in_use == size_class(3000));
  pool.release(memory);
  CHECK(pool.statistics().in_use == std::size_t{0});
  CHECK(pool.statistics().cached == size_class(3000));
  CHECK(pool.allocate(3000, first_stream, "x") == memory);
  CHECK(device.waits == 0);
  CHECK(device.synchronizations == 0);
  CHECK(pool.statistics().device_allocations == std::uint64_t{1});
  CHECK(device.recycled == device.events);
}

TEST(another_stream_waits_for_the_last_use) {
  CountedDevice device(16 * mebibyte);
  Pool pool(device);
  pool.release(pool.allocate(3000, first_stream, "x"));
  pool.allocate(3000, second_stream, "x");
  CHECK(device.waits == 1);
}

TEST(a_shared_block_waits_for_the_whole_device) {
  CountedDevice device(16 * mebibyte);
  Pool pool(device);
  void* memory = pool.allocate(3000, first_stream, "x");
  pool.mark_shared(memory);
  pool.release(memory);
  pool.allocate(3000, first_stream, "x");
  CHECK(device.synchronizations == 1);
}

TEST(a_part_of_a_block_that_is_shared_shares_the_block) {
  CountedDevice device(16 * mebibyte);
  Pool pool(device);
  void* before = pool.allocate(3000, first_stream, "x");
  auto* memory = static_cast<std::byte*>(pool.allocate(5000, first_stream, "x"));
  pool.mark_shared(memory + 4999);
  pool.release(before);
  pool.allocate(3000, first_stream, "x");
  CHECK(device.synchronizations == 0);
  pool.release(memory);
  pool.allocate(5000, first_stream, "x");
  CHECK(device.synchronizations == 1);
}

TEST(memory_that_is_not_the_pools_is_not_shared) {
  CountedDevice device(16 * mebibyte);
  Pool pool(device);
  auto* memory = static_cast<std::byte*>(pool.allocate(3000, first_stream, "x"));
  pool.mark_shared(memory - 1);
  pool.mark_shared(memory + size_class(3000));
  pool.release(memory);
  pool.allocate(3000, first_stream, "x");
  CHECK(device.synchronizations == 0);
}

TEST(a_shared_block_is_the_last_choice) {
  CountedDevice device(16 * mebibyte);
  Pool pool(device);
  void* shared = pool.allocate(3000, first_stream, "x");
  void* own = pool.allocate(3000, first_stream, "x");
  pool.mark_shared(shared);
  pool.release(shared);
  pool.release(own);
  CHECK(pool.allocate(3000, second_stream, "x") == own);
  CHECK(device.waits == 1);
  CHECK(device.synchronizations == 0);
}

TEST(a_block_that_outlives_its_stream_records_nothing_on_it) {
  CountedDevice device(16 * mebibyte);
  Pool pool(device);
  void* memory = pool.allocate(3000, first_stream, "x");
  pool.forget(first_stream);
  pool.release(memory);
  CHECK(device.events == std::uintptr_t{0});
  pool.allocate(3000, second_stream, "x");
  CHECK(device.synchronizations == 1);
}

TEST(cached_memory_is_given_up_before_an_error) {
  CountedDevice device(8 * mebibyte);
  Pool pool(device);
  pool.release(pool.allocate(5 * mebibyte, first_stream, "x"));
  pool.release(pool.allocate(6 * mebibyte, first_stream, "y"));
  CHECK(device.live.size() == std::size_t{1});
  CHECK(pool.statistics().cached == 6 * mebibyte);
}

TEST(out_of_memory_says_what_was_asked_and_what_is_free) {
  CountedDevice device(8 * mebibyte);
  Pool pool(device);
  void* memory = pool.allocate(5 * mebibyte, first_stream, "x");
  CHECK_THROWS(out_of_memory,
               "cuda:7 has no memory for the weights: 4194304 bytes asked, 3145728 free of 8388608",
               pool.allocate(4 * mebibyte, first_stream, "the weights"));
  CHECK(pool.statistics().in_use == 5 * mebibyte);
  CHECK(pool.statistics().blocks == std::uint64_t{1});
  pool.release(memory);
  pool.release(pool.allocate(7 * mebibyte, first_stream, "the weights"));
}

TEST(the_cap_holds_in_use_and_cached_together) {
  CountedDevice device(64 * mebibyte);
  Pool pool(device);
  pool.set_cap(8 * mebibyte);
  pool.release(pool.allocate(3 * mebibyte, first_stream, "x"));
  void* memory = pool.allocate(6 * mebibyte, first_stream, "x");
  const auto after = pool.statistics();
  CHECK(after.in_use + after.cached <= 8 * mebibyte);
  CHECK_THROWS(out_of_memory,
               "2097152 free of 67108864, 6291456 in use by this process's tensors, under a cap of "
               "8388608",
               pool.allocate(3 * mebibyte, first_stream, "x"));
  pool.release(memory);
  pool.set_cap(2 * mebibyte);
  CHECK(pool.statistics().cached <= 2 * mebibyte);
  pool.set_cap(0);
  pool.release(pool.allocate(32 * mebibyte, first_stream, "x"));
}

TEST(trim_and_peak) {
  CountedDevice device(64 * mebibyte);
  Pool pool(device);
  pool.release(pool.allocate(4 * mebibyte, first_stream, "x"));
  pool.release(pool.allocate(1 * mebibyte, first_stream, "x"));
  CHECK(pool.statistics().peak == 4 * mebibyte);
  pool.reset_peak();
  CHECK(pool.statistics().peak == std::size_t{0});
  pool.trim(1 * mebibyte);
  CHECK(pool.statistics().cached == 1 * mebibyte);
  pool.trim();
  CHECK(device.live.size() == std::size_t{0});
  CHECK(pool.statistics().free == 64 * mebibyte);
}

TEST(an_armed_fault_fails_the_nth_allocation_once) {
  CountedDevice device(64 * mebibyte);
  Pool pool(device);
  quantloom::faults::arm(quantloom::faults::Point::device_allocation, 2);
  void* memory = pool.allocate(1000, first_stream, "x");
  CHECK_THROWS(out_of_memory, "1000 bytes asked", pool.allocate(1000, first_stream, "x"));
  pool.release(pool.allocate(1000, first_stream, "x"));
  CHECK(quantloom::faults::passed(quantloom::faults::Point::device_allocation) == std::uint64_t{3});
  quantloom::faults::arm(quantloom::faults::Point::device_allocation, 0);
  pool.release(memory);
}

TEST(nothing_is_given_back_to_a_device_that_cannot_be_used) {
  CountedDevice device(64 * mebibyte);
  Pool pool(device);
  void* memory = pool.allocate(1000, first_stream, "x");
  const std::size_t in_use = pool.statistics().in_use;
  device.alive = false;
  pool.release(memory);
  CHECK(device.events == std::uintptr_t{0});
  CHECK(pool.statistics().in_use == in_use);
  CHECK(pool.statistics().cached == std::size_t{0});
}

int main() { return quantloom::check::run_all(); }
