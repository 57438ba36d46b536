// A file mapped read-only into memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

namespace quantloom::loader {

// The mapping is private and read-only. If another process shortens the file while it is mapped,
// the kernel answers a read past the new end with SIGBUS, which ends the process: no handler is
// installed, because a library must not own process-wide signals. check_unchanged() before a long
// pass over the bytes turns the usual case (a file replaced or cut in place) into an error.
class MappedFile {
 public:
  // Errors: io naming the path when it is absent, not a regular file, or cannot be mapped.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::span<const std::byte> bytes() const { return {data_, size_}; }
  std::uint64_t size() const { return size_; }
  int descriptor() const { return descriptor_; }  // open as long as this object

  // Errors: io when the file's size or modification time differ from those at opening.
  void check_unchanged() const;

 private:
  void release() noexcept;

  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
  int descriptor_ = -1;
  std::int64_t modified_nanoseconds_ = 0;
};

}  // namespace quantloom::loader
