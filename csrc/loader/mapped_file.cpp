#include "loader/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include "base/error.h"

namespace quantloom::loader {
namespace {

[[noreturn]] void fail(const std::string& action, const std::filesystem::path& path, int code,
                       const std::string& reason) {
  throw Error(ErrorKind::io, "cannot " + action + " '" + path.string() + "': " + reason,
              path.string(), std::nullopt, std::nullopt, code);
}

[[noreturn]] void fail(const std::string& action, const std::filesystem::path& path, int code) {
  fail(action, path, code, std::generic_category().message(code));
}

std::int64_t modified_nanoseconds(const struct stat& status) {
#if defined(__APPLE__)
  const timespec& time = status.st_mtimespec;
#else
  const timespec& time = status.st_mtim;
#endif
  return static_cast<std::int64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
}

}  // namespace

MappedFile::MappedFile(const std::filesystem::path& path) : path_(path) {
  // Without O_NONBLOCK a named pipe would hang here before fstat can refuse it.
  descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (descriptor_ < 0) fail("open", path, errno);
  try {
    struct stat status{};
    if (::fstat(descriptor_, &status) != 0) fail("open", path, errno);
    if (S_ISDIR(status.st_mode)) fail("open", path, EISDIR, "it is a folder");
    if (not S_ISREG(status.st_mode)) fail("open", path, ENODEV, "it is not a regular file");
    size_ = static_cast<std::size_t>(status.st_size);
    modified_nanoseconds_ = modified_nanoseconds(status);
    if (size_ > 0) {
      void* mapped = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, descriptor_, 0);
      if (mapped == MAP_FAILED) fail("map", path, errno);
      data_ = static_cast<const std::byte*>(mapped);
    }
  } catch (...) {
    release();
    throw;
  }
}

MappedFile::~MappedFile() { release(); }

MappedFile::MappedFile(MappedFile&& other) noexcept { *this = std::move(other); }

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  if (this == &other) return *this;
  release();
  path_ = std::move(other.path_);
  data_ = std::exchange(other.data_, nullptr);
  size_ = std::exchange(other.size_, 0);
  descriptor_ = std::exchange(other.descriptor_, -1);
  modified_nanoseconds_ = other.modified_nanoseconds_;
  return *this;
}

void MappedFile::release() noexcept {
  if (data_) ::munmap(const_cast<std::byte*>(data_), size_);
  if (descriptor_ >= 0) ::close(descriptor_);
  data_ = nullptr;
  size_ = 0;
  descriptor_ = -1;
}

void MappedFile::check_unchanged() const {
  struct stat status{};
  if (::fstat(descriptor_, &status) != 0) fail("read", path_, errno);
  if (static_cast<std::size_t>(status.st_size) != size_ ||
      modified_nanoseconds(status) != modified_nanoseconds_) {
    fail("read", path_, ESTALE, "it has changed on disk since it was opened");
  }
}

}  // namespace quantloom::loader
