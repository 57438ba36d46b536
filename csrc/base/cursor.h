// A bounded reader over bytes of untrusted origin: every read is checked against what is left.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

#include "base/error.h"

namespace quantloom {

static_assert(std::endian::native == std::endian::little, "files are little-endian and so are we");

// Loads a T from unaligned bytes. The caller guarantees `sizeof(T)` readable bytes.
template <typename T>
T load_unaligned(const std::byte* source) {
  static_assert(std::is_trivially_copyable_v<T>);
  T value;
  std::memcpy(&value, source, sizeof(T));
  return value;
}

class Cursor {
 public:
  // Reads run from offset 0 of `bytes`; offsets in errors count from there.
  explicit Cursor(std::span<const std::byte> bytes) : bytes_(bytes) {}

  std::uint64_t offset() const { return offset_; }
  std::uint64_t remaining() const { return bytes_.size() - offset_; }

  // The next little-endian T.
  // Errors: gguf naming `what`, the offset and the bytes left, when fewer than sizeof(T) are left.
  template <typename T>
  T read(std::string_view what) {
    return load_unaligned<T>(take(sizeof(T), what).data());
  }

  // The next `count` bytes, not copied. Errors: as for read.
  std::span<const std::byte> take(std::uint64_t count, std::string_view what) {
    if (count > remaining()) fail(count, what);
    const auto taken =
        bytes_.subspan(static_cast<std::size_t>(offset_), static_cast<std::size_t>(count));
    offset_ += count;
    return taken;
  }

 private:
  [[noreturn]] void fail(std::uint64_t count, std::string_view what) const {
    throw Error(ErrorKind::gguf,
                "the file ends inside " + std::string(what) + ": " + std::to_string(count) +
                    " bytes wanted at byte " + std::to_string(offset_) + ", " +
                    std::to_string(remaining()) + " left",
                std::string(what), offset_, remaining());
  }

  std::span<const std::byte> bytes_;
  std::uint64_t offset_ = 0;
};

}  // namespace quantloom
