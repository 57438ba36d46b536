#include "device/upload.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "base/error.h"
#include "device/memory.h"

namespace quantloom::device {

namespace {

struct Job {
  const Transfer* transfer = nullptr;
  std::size_t first = 0;
  std::size_t bytes = 0;
};

// One of a thread's two buffers, with what must have happened before it is filled again.
struct Slot {
  std::byte* pinned = nullptr;
  Buffer staging;  // on the device; null where every transfer has a destination
  std::unique_ptr<Event> copied;
  std::unique_ptr<Event> consumed;
  bool used = false;
};

std::vector<Job> cut(std::span<const Transfer> transfers, std::size_t piece_bytes,
                     std::size_t& largest) {
  std::vector<Job> jobs;
  for (const Transfer& transfer : transfers) {
    const std::size_t unit = std::max<std::size_t>(transfer.unit, 1);
    const std::size_t step = std::max(piece_bytes / unit, std::size_t{1}) * unit;
    for (std::size_t first = 0; first < transfer.source.size(); first += step) {
      const std::size_t bytes = std::min(step, transfer.source.size() - first);
      jobs.push_back({&transfer, first, bytes});
      largest = std::max(largest, bytes);
    }
  }
  return jobs;
}

// Maps the pages of a file in one call; touching them one by one costs a fault for every few.
void populate(const std::byte* begin, std::size_t bytes) {
#if defined(MADV_POPULATE_READ)
  static const auto page = static_cast<std::uintptr_t>(sysconf(_SC_PAGESIZE));
  const std::uintptr_t first = reinterpret_cast<std::uintptr_t>(begin) / page * page;
  const std::uintptr_t last = reinterpret_cast<std::uintptr_t>(begin) + bytes;
  madvise(reinterpret_cast<void*>(first), last - first, MADV_POPULATE_READ);  // only a hint
#else
  (void)begin;
  (void)bytes;
#endif
}

void read_file(const Transfer& transfer, std::size_t first, std::size_t bytes, std::byte* to) {
  std::size_t done = 0;
  while (done < bytes) {
    const ssize_t got = pread(transfer.file, to + done, bytes - done,
                              static_cast<off_t>(transfer.file_offset + first + done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      throw Error(ErrorKind::io,
                  "tensor " + transfer.name + " could not be read: " +
                      (got < 0 ? std::strerror(errno) : "the file has become shorter"),
                  transfer.name, transfer.file_offset + first + done);
    }
    done += static_cast<std::size_t>(got);
  }
}

void fetch(const Transfer& transfer, std::size_t first, std::size_t bytes, std::byte* to) {
  if (transfer.file >= 0) {
    read_file(transfer, first, bytes, to);
    return;
  }
  populate(transfer.source.data() + first, bytes);
  std::memcpy(to, transfer.source.data() + first, bytes);
}

class Upload {
 public:
  Upload(const Device& device, std::span<const Transfer> transfers, const UploadOptions& options)
      : device_(device), options_(options), copy_stream_(device), work_stream_(device) {
    std::size_t largest = 0;
    jobs_ = cut(transfers, std::max<std::size_t>(options.piece_bytes, 4096), largest);
    for (const Transfer& transfer : transfers) {
      total_ += transfer.source.size();
      staged_ = staged_ || transfer.destination == nullptr;
    }
    const int cores = static_cast<int>(std::max(std::thread::hardware_concurrency(), 1u));
    int threads = options.threads > 0 ? options.threads : std::min(cores, 10);
    threads =
        static_cast<int>(std::min<std::size_t>(static_cast<std::size_t>(threads), jobs_.size()));
    slots_.resize(2 * static_cast<std::size_t>(threads));
    // One allocation: pinning costs about 0.3 ms a MiB and a millisecond a call.
    const std::size_t stride = (largest + 4095) / 4096 * 4096;
    pinned_ = allocate_pinned(device, stride * slots_.size(), "the upload buffers");
    std::byte* next = static_cast<std::byte*>(pinned_.get());
    for (Slot& slot : slots_) {
      slot.pinned = next;
      next += stride;
      if (staged_) {
        slot.staging = allocate(device, largest, copy_stream_.get(), "an upload buffer");
        slot.consumed = std::make_unique<Event>(device);
      }
      slot.copied = std::make_unique<Event>(device);
    }
  }

  // Buffers are freed only when no copy reads them.
  ~Upload() {
    stop_.store(true);
    for (std::thread& thread : threads_) thread.join();
    copy_stream_.drain();
    work_stream_.drain();
  }

  void run() {
    // Destinations may still be in use by earlier work of this process.
    order(device_, compute_stream(device_), copy_stream_.get());
    threads_.reserve(slots_.size() / 2);
    for (std::size_t t = 0; t < slots_.size() / 2; ++t) {
      try {
        threads_.emplace_back([this, t] { work(&slots_[2 * t]); });
      } catch (const std::system_error&) {  // fewer threads upload the same
        break;
      }
    }
    running_ = std::max(threads_.size(), std::size_t{1});
    if (threads_.empty()) work(slots_.data());
    wait();
    synchronize(device_, copy_stream_.get());
    synchronize(device_, work_stream_.get());
    report();
  }

 private:
  void wait() {
    std::unique_lock lock(mutex_);
    while (finished_ < running_) {
      changed_.wait_for(lock, std::chrono::milliseconds(50));
      if (failure_ != nullptr || stop_.load()) continue;
      lock.unlock();
      try {
        report();
      } catch (...) {
        stop_.store(true);
        lock.lock();
        failure_ = std::current_exception();
        continue;
      }
      lock.lock();
    }
    if (failure_ != nullptr) std::rethrow_exception(failure_);
  }

  void report() {
    if (options_.progress && !options_.progress(done_.load(), total_)) {
      throw Error(ErrorKind::cancelled, "the upload was cancelled");
    }
  }

  void work(Slot* pair) {
    try {
      std::size_t turn = 0;
      while (!stop_.load(std::memory_order_relaxed)) {
        const std::size_t next = next_job_.fetch_add(1, std::memory_order_relaxed);
        if (next >= jobs_.size()) break;
        transfer(jobs_[next], pair[turn++ % 2]);
      }
    } catch (...) {
      stop_.store(true);
      const std::lock_guard lock(mutex_);
      if (failure_ == nullptr) failure_ = std::current_exception();
    }
    const std::lock_guard lock(mutex_);
    ++finished_;
    changed_.notify_one();
  }

  void transfer(const Job& job, Slot& slot) {
    if (slot.used) slot.copied->synchronize();
    fetch(*job.transfer, job.first, job.bytes, slot.pinned);
    const bool staged = job.transfer->destination == nullptr;
    void* target = staged ? slot.staging.get()
                          : static_cast<std::byte*>(job.transfer->destination) + job.first;
    {
      const std::lock_guard lock(queue_mutex_);
      if (staged && slot.used) slot.consumed->wait_on(copy_stream_.get());
      copy(target, device_, slot.pinned, {}, job.bytes, copy_stream_.get());
      slot.copied->record(copy_stream_.get());
      slot.used = true;
      if (job.transfer->consume) {
        slot.copied->wait_on(work_stream_.get());
        job.transfer->consume({target, job.first, job.bytes, work_stream_.get()});
      }
      if (slot.consumed != nullptr) slot.consumed->record(work_stream_.get());
    }
    done_.fetch_add(job.bytes, std::memory_order_relaxed);
  }

  Device device_;
  const UploadOptions& options_;
  OwnedStream copy_stream_;
  OwnedStream work_stream_;
  std::vector<Job> jobs_;
  Buffer pinned_;
  std::vector<Slot> slots_;
  std::uint64_t total_ = 0;
  bool staged_ = false;
  std::atomic<std::size_t> next_job_{0};
  std::atomic<std::uint64_t> done_{0};
  std::atomic<bool> stop_{false};
  std::mutex queue_mutex_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::size_t running_ = 0;  // threads, or the caller's alone
  std::size_t finished_ = 0;
  std::exception_ptr failure_;
  std::vector<std::thread> threads_;
};

}  // namespace

void upload(const Device& device, std::span<const Transfer> transfers,
            const UploadOptions& options) {
  require_usable(device);
  if (device.type == DeviceType::cpu) {
    throw Error(ErrorKind::invalid_argument, "an upload goes to a GPU, not to 'cpu'", "device");
  }
  for (const Transfer& transfer : transfers) {
    if (transfer.destination == nullptr && !transfer.consume) {
      throw Error(ErrorKind::invalid_argument,
                  "the transfer of " + transfer.name + " has neither a destination nor a consumer",
                  transfer.name);
    }
  }
  Upload work(device, transfers, options);
  work.run();
}

}  // namespace quantloom::device
