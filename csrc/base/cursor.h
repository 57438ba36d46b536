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
#include "base/quote.h"

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

  // The key or tensor that errors name; a view that must stay valid until it is replaced.
  void set_subject(std::string_view subject) { subject_ = subject; }

  // The next little-endian T.
  // Errors: gguf naming `what`, the offset and the bytes left, when fewer than sizeof(T) are left.
  template <typename T>
  T read(const char* what) {
    return load_unaligned<T>(take(sizeof(T), what).data());
  }

  // The next `count` bytes, not copied. Errors: as for read.
  std::span<const std::byte> take(std::uint64_t count, const char* what) {
    if (count > remaining()) fail(count, what);
    const auto taken =
        bytes_.subspan(static_cast<std::size_t>(offset_), static_cast<std::size_t>(count));
    offset_ += count;
    return taken;
  }

 private:
  [[noreturn]] void fail(std::uint64_t count, const char* what) const {
    const std::string place = subject_.empty() ? "" : " of " + in_quotes(subject_);
    throw Error(ErrorKind::gguf,
                "the file ends inside the " + std::string(what) + place + ": " +
                    std::to_string(count) + " bytes wanted at byte " + std::to_string(offset_) +
                    ", " + std::to_string(remaining()) + " left",
                subject_.empty() ? what : shortened(subject_), offset_, remaining());
  }

  std::span<const std::byte> bytes_;
  std::uint64_t offset_ = 0;
  std::string_view subject_;
};

}  // namespace quantloom
