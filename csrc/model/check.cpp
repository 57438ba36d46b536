#include "model/check.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "loader/scan.h"

namespace quantloom::model {
namespace {

// Small enough that a stop is quick, large enough that the counter costs nothing.
constexpr std::uint64_t piece_bytes = 4u << 20;

struct Piece {
  const gguf::TensorInfo* tensor;
  std::uint64_t first_block;
  std::uint64_t block_count;
  std::uint64_t bytes;
};

std::vector<Piece> divide(std::span<const gguf::TensorInfo* const> tensors) {
  std::vector<Piece> pieces;
  for (const gguf::TensorInfo* tensor : tensors) {
    const std::uint64_t block_bytes = tensor->type->bytes;
    const std::uint64_t blocks = tensor->bytes / block_bytes;
    const std::uint64_t step = std::max<std::uint64_t>(1, piece_bytes / block_bytes);
    for (std::uint64_t first = 0; first < blocks; first += step) {
      const std::uint64_t count = std::min(step, blocks - first);
      pieces.push_back({tensor, first, count, count * block_bytes});
    }
  }
  return pieces;
}

}  // namespace

void check_finite(const loader::ModelFile& file, std::span<const gguf::TensorInfo* const> tensors,
                  int threads, const ops::Progress& progress) {
  const std::vector<Piece> pieces = divide(tensors);
  std::uint64_t total = 0;
  for (const Piece& piece : pieces) total += piece.bytes;

  std::atomic<std::size_t> next{0};
  std::atomic<std::size_t> bad{pieces.size()};
  std::atomic<std::uint64_t> done{0};
  std::atomic<bool> stop{false};
  std::condition_variable advanced;
  std::size_t running = static_cast<std::size_t>(threads);

  std::mutex mutex;
  std::exception_ptr failure;
  const auto fail = [&] {
    const std::lock_guard lock(mutex);
    if (not failure) failure = std::current_exception();
    stop.store(true);
  };

  const auto work = [&] {
    while (not stop.load(std::memory_order_relaxed)) {
      const std::size_t index = next.fetch_add(1);
      if (index >= pieces.size()) break;
      const Piece& piece = pieces[index];
      try {
        // A page that is cut off meanwhile is a bus error: look before every piece.
        file.check_unchanged();
      } catch (...) {
        fail();
        break;
      }
      if (loader::find_non_finite(*piece.tensor->type, file.tensor_bytes(*piece.tensor),
                                  piece.first_block, piece.block_count)) {
        std::size_t least = bad.load();
        while (index < least and not bad.compare_exchange_weak(least, index)) {
        }
        stop.store(true);
      }
      done.fetch_add(piece.bytes);
      advanced.notify_one();
    }
    const std::lock_guard lock(mutex);
    --running;
    advanced.notify_one();
  };

  {
    std::vector<std::jthread> workers;
    for (int i = 0; i < threads; ++i) {
      try {
        workers.emplace_back(work);
      } catch (const std::system_error&) {  // fewer threads than asked for find the same
        const std::lock_guard lock(mutex);
        running -= static_cast<std::size_t>(threads - i);
        break;
      }
    }
    if (workers.empty()) {
      ++running;
      work();
    }
    std::unique_lock lock(mutex);
    while (running > 0) {
      advanced.wait_for(lock, std::chrono::milliseconds(50));
      if (not progress or failure) continue;
      lock.unlock();
      try {
        progress(done.load(), total);
      } catch (...) {
        fail();
      }
      lock.lock();
    }
  }
  if (failure) std::rethrow_exception(failure);
  if (bad.load() < pieces.size()) {
    const gguf::TensorInfo& tensor = *pieces[bad.load()].tensor;
    loader::require_finite(tensor, file.tensor_bytes(tensor));
  }
}

}  // namespace quantloom::model
