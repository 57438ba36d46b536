// A metadata value of a GGUF file. Strings and arrays are views into the bytes that were parsed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <span>
#include <string_view>
#include <type_traits>
#include <variant>
#include <vector>

#include "base/cursor.h"

namespace quantloom::gguf {

// The numbers are the file format's own.
enum class ValueType : std::uint32_t {
  uint8 = 0,
  int8 = 1,
  uint16 = 2,
  int16 = 3,
  uint32 = 4,
  int32 = 5,
  float32 = 6,
  boolean = 7,
  string = 8,
  array = 9,
  uint64 = 10,
  int64 = 11,
  float64 = 12,
};
inline constexpr std::uint32_t value_type_count = 13;

std::string_view value_type_name(ValueType type);  // "uint8", ..., "string", "array"

// Bytes of one element in the file; 0 for string and array, whose length varies.
std::uint64_t value_type_size(ValueType type);

// The type of file that a C++ type is stored as.
template <typename T>
constexpr ValueType value_type_of() {
  if constexpr (std::is_same_v<T, std::uint8_t>) return ValueType::uint8;
  if constexpr (std::is_same_v<T, std::int8_t>) return ValueType::int8;
  if constexpr (std::is_same_v<T, std::uint16_t>) return ValueType::uint16;
  if constexpr (std::is_same_v<T, std::int16_t>) return ValueType::int16;
  if constexpr (std::is_same_v<T, std::uint32_t>) return ValueType::uint32;
  if constexpr (std::is_same_v<T, std::int32_t>) return ValueType::int32;
  if constexpr (std::is_same_v<T, float>) return ValueType::float32;
  if constexpr (std::is_same_v<T, bool>) return ValueType::boolean;
  if constexpr (std::is_same_v<T, std::uint64_t>) return ValueType::uint64;
  if constexpr (std::is_same_v<T, std::int64_t>) return ValueType::int64;
  if constexpr (std::is_same_v<T, double>) return ValueType::float64;
}

// An array of one element type, already validated (a bool is any byte, true unless 0): `data` holds
// exactly `size` elements. The file packs them without padding, so elements are not aligned in
// memory.
class Array {
 public:
  Array(ValueType element_type, std::uint64_t size, std::span<const std::byte> data)
      : element_type_(element_type), size_(size), data_(data) {}

  ValueType element_type() const { return element_type_; }
  std::uint64_t size() const { return size_; }
  std::span<const std::byte> data() const { return data_; }  // as in the file, strings with lengths

  // All elements, numbers or bools, in order. Errors: model when T is not the element type.
  template <typename T>
  std::vector<T> to_vector() const;

  // Calls take(std::string_view) with each string, in order. Their lengths are read anew.
  // Errors: model when the elements are no strings; gguf naming `key` when the lengths do not fill
  // the bytes as they did when they were validated.
  template <typename Take>
  void each_string(std::string_view key, Take take) const;

 private:
  void require_element_type(ValueType wanted) const;
  [[noreturn]] void fail_lengths(std::string_view key) const;

  ValueType element_type_;
  std::uint64_t size_;
  std::span<const std::byte> data_;
};

using Value = std::variant<std::uint8_t, std::int8_t, std::uint16_t, std::int16_t, std::uint32_t,
                           std::int32_t, float, bool, std::string_view, Array, std::uint64_t,
                           std::int64_t, double>;
static_assert(std::variant_size_v<Value> == value_type_count);

// The alternatives of Value stand in the order of the format's numbers.
inline ValueType type_of(const Value& value) { return static_cast<ValueType>(value.index()); }

template <typename T>
std::vector<T> Array::to_vector() const {
  require_element_type(value_type_of<T>());
  std::vector<T> elements;
  elements.reserve(static_cast<std::size_t>(size_));
  if constexpr (std::is_same_v<T, bool>) {
    for (const std::byte byte : data_) elements.push_back(byte != std::byte{0});
  } else if (size_ > 0) {  // memcpy takes no null pointer, whatever the count
    elements.resize(static_cast<std::size_t>(size_));
    std::memcpy(elements.data(), data_.data(), data_.size());
  }
  return elements;
}

template <typename Take>
void Array::each_string(std::string_view key, Take take) const {
  require_element_type(ValueType::string);
  Cursor cursor(data_);
  for (std::uint64_t i = 0; i < size_; ++i) {
    if (cursor.remaining() < sizeof(std::uint64_t)) fail_lengths(key);
    const auto length = cursor.read<std::uint64_t>("string");
    if (length > cursor.remaining()) fail_lengths(key);
    const auto bytes = cursor.take(length, "string");
    take(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
  }
  if (cursor.remaining() != 0) fail_lengths(key);
}

}  // namespace quantloom::gguf
