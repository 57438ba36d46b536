// The one exception type of the C++ library. `kind` selects the Python class that a caller sees.
#pragma once

#include <cstdint>
#include <exception>
#include <optional>
#include <string>
#include <utility>

namespace quantloom {

// One value per Python exception class in quantloom.errors.
enum class ErrorKind {
  gguf,              // a file that is not valid GGUF
  model,             // a valid file that is not a model we can run
  device,            // a GPU, driver or kernel failure, or a device that is not there
  out_of_memory,     // host or device memory
  context_full,      // a prompt longer than the context
  invalid_argument,  // a value the caller gave
  numerics,          // NaN or Inf where a number must be
  busy,              // two threads on one session
  cancelled,         // stopped by the caller
  io,                // the operating system could not open, map, read or write
  closed,            // use after close()
};

class Error : public std::exception {
 public:
  // `subject` names the key, tensor or argument at fault; `offset` is a byte offset into the file;
  // `limit` is the bound that was passed; `system_code` is the errno of what failed on the file
  // that `subject` names.
  Error(ErrorKind kind, std::string message, std::string subject = {},
        std::optional<std::uint64_t> offset = std::nullopt,
        std::optional<std::uint64_t> limit = std::nullopt,
        std::optional<int> system_code = std::nullopt)
      : kind_(kind),
        message_(std::move(message)),
        subject_(std::move(subject)),
        offset_(offset),
        limit_(limit),
        system_code_(system_code) {}

  const char* what() const noexcept override { return message_.c_str(); }
  ErrorKind kind() const noexcept { return kind_; }
  const std::string& message() const noexcept { return message_; }
  const std::string& subject() const noexcept { return subject_; }
  std::optional<std::uint64_t> offset() const noexcept { return offset_; }
  std::optional<std::uint64_t> limit() const noexcept { return limit_; }
  std::optional<int> system_code() const noexcept { return system_code_; }

 private:
  ErrorKind kind_;
  std::string message_;
  std::string subject_;
  std::optional<std::uint64_t> offset_;
  std::optional<std::uint64_t> limit_;
  std::optional<int> system_code_;
};

}  // namespace quantloom
