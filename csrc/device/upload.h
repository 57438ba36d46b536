// Host memory (a mapped file) to a GPU through pinned double buffers: several threads fill them
// while a copy stream empties them, and what is done with a piece on the GPU runs behind its copy
// on a second stream.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

#include "device/device.h"
#include "device/runtime.h"

namespace quantloom::device {

// A run of a transfer's bytes in device memory.
struct Piece {
  const void* data = nullptr;
  std::size_t first = 0;  // offset into the transfer's source
  std::size_t bytes = 0;
  Stream stream = nullptr;  // work on it goes here
};

struct Transfer {
  std::string name;  // of the tensor, for errors
  std::span<const std::byte> source;
  // Where the source is part of a file: its descriptor and the source's offset in it. The file is
  // then read, not touched through its mapping, which is faster (no page tables to fill) and turns
  // a file that was cut short meanwhile into an Error instead of a signal.
  int file = -1;
  std::uint64_t file_offset = 0;
  // Device memory of source.size() bytes. Null: the bytes pass through device buffers of the upload
  // instead, and `consume` must queue what reads them.
  void* destination = nullptr;
  std::size_t unit = 1;  // every piece is a multiple of it, except the last
  // Called once for each piece, in no particular order but never by two threads at once. It may
  // only queue work on piece.stream, and may throw.
  std::function<void(const Piece&)> consume;
};

struct UploadOptions {
  std::size_t piece_bytes = std::size_t{2} << 20;
  int threads = 0;  // that fill pinned memory; 0: up to 10, as many as the machine has
  // Bytes done and in all, on the calling thread, about 20 times a second. Returning false, or
  // throwing, ends the upload.
  std::function<bool(std::uint64_t, std::uint64_t)> progress;
};

// Returns when everything has arrived and was consumed. Holds 2 * threads pinned buffers meanwhile,
// and as many on the device where there are transfers without a destination; all of it is given
// back also after an error, when nothing of it is under way any more. Errors: out_of_memory,
// device, cancelled, whatever `consume` and `progress` throw.
void upload(const Device& device, std::span<const Transfer> transfers,
            const UploadOptions& options = {});

}  // namespace quantloom::device
