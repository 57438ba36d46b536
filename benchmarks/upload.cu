// Times the upload of a mapped file in the page cache against a plain copy from pinned memory in
// the same run, and checks every byte that arrives.
//   benchmark_upload FILE [GiB, default 4]      FILE is written and removed
#include <cuda_runtime.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "base/error.h"
#include "base/faults.h"
#include "device/memory.h"
#include "device/upload.h"

namespace {

namespace device = quantloom::device;
namespace faults = quantloom::faults;
using device::Transfer;

__host__ __device__ std::uint64_t word_at(std::uint64_t i) {
  std::uint64_t x = i * 0x9e3779b97f4a7c15u;
  x ^= x >> 32;
  return x * 0xd6e8feb86659fd93u;
}

__global__ void count_wrong(const std::uint64_t* words, std::uint64_t first, std::uint64_t count,
                            unsigned long long* wrong) {
  const std::uint64_t step = static_cast<std::uint64_t>(gridDim.x) * blockDim.x;
  for (std::uint64_t i = static_cast<std::uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
       i < count; i += step) {
    if (words[i] != word_at(first + i)) atomicAdd(wrong, 1ull);
  }
}

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(status));
  std::exit(2);
}

template <typename Work>
double best_seconds(Work work, int repeats) {
  double best = 1e30;
  for (int i = 0; i < repeats; ++i) {
    const auto begin = std::chrono::steady_clock::now();
    work();
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - begin;
    best = std::min(best, spent.count());
  }
  return best;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  const std::uint64_t bytes = (argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 4) << 30;
  const int file = open(argv[1], O_RDWR | O_CREAT | O_TRUNC, 0600);
  if (file < 0 || ftruncate(file, static_cast<off_t>(bytes)) != 0) {
    std::fprintf(stderr, "cannot write %s\n", argv[1]);
    return 2;
  }
  unlink(argv[1]);
  {
    std::vector<std::uint64_t> words(1 << 20);
    for (std::uint64_t first = 0; first < bytes / 8; first += words.size()) {
      for (std::uint64_t i = 0; i < words.size(); ++i) words[i] = word_at(first + i);
      if (write(file, words.data(), 8 * words.size()) != static_cast<ssize_t>(8 * words.size())) {
        return 2;
      }
    }
  }
  void* mapped = mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, file, 0);
  if (mapped == MAP_FAILED) return 2;
  const auto* source = static_cast<const std::byte*>(mapped);

  const device::Device gpu{device::DeviceType::cuda, 0};
  const device::Buffer target = device::allocate(gpu, bytes, "the target");
  const device::Buffer counter = device::allocate_pinned(gpu, 8, "the counter");
  auto* wrong = static_cast<unsigned long long*>(counter.get());
  *wrong = 0;
  const auto verify = [&](const char* what) {
    const unsigned long long before = *wrong;
    count_wrong<<<1024, 256>>>(static_cast<const std::uint64_t*>(target.get()), 0, bytes / 8,
                               wrong);
    check(cudaDeviceSynchronize(), what);
    std::printf("%s: %llu words differ\n", what, *wrong - before);
    check(cudaMemset(target.get(), 0xa5, bytes), "cudaMemset");
  };

  double pinned = 0;
  {
    const std::size_t piece = std::size_t{256} << 20;
    const device::Buffer from = device::allocate_pinned(gpu, piece, "the pinned copy");
    const double seconds = best_seconds(
        [&] {
          for (int i = 0; i < 8; ++i) {
            check(cudaMemcpyAsync(target.get(), from.get(), piece, cudaMemcpyHostToDevice, nullptr),
                  "copy");
          }
          check(cudaDeviceSynchronize(), "copy");
        },
        3);
    pinned = 8.0 * static_cast<double>(piece) / seconds;
  }
  std::printf("pinned copy %.1f GB/s\n", pinned * 1e-9);

  for (const bool reads : {false, true}) {
    for (const int threads : {2, 4, 8, 10, 12}) {
      for (const std::size_t kibibytes : {1024, 2048}) {
        device::UploadOptions options;
        options.threads = threads;
        options.piece_bytes = kibibytes << 10;
        // A fresh mapping each time: a model is loaded from pages that this process has not
        // touched.
        const double seconds = best_seconds(
            [&] {
              void* fresh = mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, file, 0);
              Transfer transfer;
              transfer.name = "t";
              transfer.source = {static_cast<const std::byte*>(fresh), bytes};
              transfer.file = reads ? file : -1;
              transfer.destination = target.get();
              device::upload(gpu, {&transfer, 1}, options);
              munmap(fresh, bytes);
            },
            2);
        const double rate = static_cast<double>(bytes) / seconds;
        std::printf("%s, threads %2d, pieces of %4zu KiB: %5.1f GB/s, %.2f of the pinned copy\n",
                    reads ? "read" : "mapped", threads, kibibytes, rate * 1e-9, rate / pinned);
      }
    }
  }
  verify("to a destination");

  // Many tensors of odd sizes, passing through device buffers in whole units.
  std::vector<Transfer> transfers;
  std::uint64_t next = 0;
  for (std::uint64_t size = 210 * 8; next < bytes; size = size * 5 / 3 / 8 * 8) {
    const std::uint64_t here = std::min(size, bytes - next);
    const std::uint64_t first = next;
    Transfer transfer;
    transfer.name = "t" + std::to_string(transfers.size());
    transfer.source = {source + first, here};
    transfer.file = transfers.size() % 2 == 0 ? file : -1;
    transfer.file_offset = first;
    transfer.unit = 210 * 16;
    transfer.consume = [&, first](const device::Piece& piece) {
      check(cudaMemcpyAsync(static_cast<std::byte*>(target.get()) + first + piece.first, piece.data,
                            piece.bytes, cudaMemcpyDeviceToDevice, piece.stream),
            "consume");
    };
    transfers.push_back(transfer);
    next += here;
  }
  const double staged = best_seconds([&] { device::upload(gpu, transfers); }, 2);
  std::printf("through device buffers: %.1f GB/s, %.2f of the pinned copy\n",
              static_cast<double>(bytes) / staged * 1e-9,
              static_cast<double>(bytes) / staged / pinned);
  verify("through device buffers");

  bool fine = *wrong == 0;
  const std::size_t before = device::memory_statistics(gpu).in_use;
  device::UploadOptions options;
  options.progress = [](std::uint64_t done, std::uint64_t) { return done < 1; };
  const auto fails = [&](const char* what, quantloom::ErrorKind kind, auto work) {
    try {
      work();
      std::printf("%s: no error\n", what);
      fine = false;
    } catch (const quantloom::Error& error) {
      fine = fine && error.kind() == kind && device::memory_statistics(gpu).in_use == before;
      std::printf("%s: %s\n", what, error.what());
    }
  };
  fails("cancelled", quantloom::ErrorKind::cancelled,
        [&] { device::upload(gpu, transfers, options); });
  for (const int n : {1, 9, 40, 200}) {
    faults::arm(faults::Point::cuda_call, static_cast<std::uint64_t>(n));
    fails("a call fails", quantloom::ErrorKind::device, [&] { device::upload(gpu, transfers); });
    faults::arm(faults::Point::cuda_call, 0);
  }
  faults::arm(faults::Point::host_allocation, 1);
  fails("no pinned memory", quantloom::ErrorKind::out_of_memory,
        [&] { device::upload(gpu, transfers); });
  faults::arm(faults::Point::host_allocation, 0);
  Transfer past = transfers.back();
  past.file = file;
  past.file_offset = bytes - 8;
  fails("a file that became shorter", quantloom::ErrorKind::io,
        [&] { device::upload(gpu, {&past, 1}); });
  device::upload(gpu, transfers);
  verify("after the errors");
  return fine && *wrong == 0 ? 0 : 1;
}
