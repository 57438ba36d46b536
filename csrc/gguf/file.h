// A validated GGUF file: version, metadata and the table of tensors.
//
// parse() is a pure function of bytes. Everything that a File hands out (keys, strings, arrays) is
// a view into the bytes it was parsed from, which must outlive it. Where those are a mapped file
// that changes, contents differ from what was validated: no view is longer than it was, but text
// may not be UTF-8 and lengths inside an array of strings may not fit (Array::each_string checks
// them anew). Source: the GGUF specification,
// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "formats/types.h"
#include "gguf/value.h"

namespace quantloom::gguf {

// What a file may claim before we call it hostile. Real files stay far below each.
inline constexpr std::uint64_t max_string_bytes = 16u << 20;
inline constexpr std::uint64_t max_key_bytes = 65535;
inline constexpr std::uint64_t max_array_elements = 64u << 20;
inline constexpr std::uint64_t max_keys = 1u << 20;
inline constexpr std::uint64_t max_tensors = 1u << 20;
inline constexpr std::uint64_t max_tensor_name_bytes = 63;
inline constexpr std::uint32_t max_dimensions = 4;
inline constexpr std::uint32_t default_alignment = 32;
inline constexpr std::uint32_t max_alignment = 1u << 20;

struct KeyValue {
  std::string_view key;
  Value value;
  std::uint64_t offset;  // byte offset of the record in its file
};

struct TensorInfo {
  std::string name;
  const formats::TypeInfo* type;         // never null; formats that no kernel serves have one too
  std::vector<std::int64_t> dimensions;  // 1 to 4, each at least 1; dimensions[0] is the row length
  std::uint64_t elements;                // product of the dimensions, fits int64
  std::uint64_t bytes;
  std::uint64_t offset;         // of the first byte, from the start of the shard's file
  std::uint64_t record_offset;  // of its entry in the shard's table
  std::uint32_t shard = 0;      // 0 unless the file is split

  std::int64_t columns() const { return dimensions[0]; }
  std::int64_t rows() const { return static_cast<std::int64_t>(elements) / dimensions[0]; }
};

// Positions of names in sorted order: duplicates and look-ups without hashing, so that no choice of
// names makes them slow.
class NameIndex {
 public:
  NameIndex() = default;
  explicit NameIndex(const std::vector<std::string_view>& names);
  // Position of `name` in the vector given to the constructor.
  std::optional<std::size_t> find(std::string_view name) const;
  // Position of the first name that has occurred before.
  std::optional<std::size_t> duplicate() const { return duplicate_; }

 private:
  std::vector<std::pair<std::string_view, std::size_t>> sorted_;
  std::optional<std::size_t> duplicate_;
};

class File {
 public:
  File(File&&) = default;
  File& operator=(File&&) = default;
  File(const File&) = delete;  // the indices view into this object's own tensor names
  File& operator=(const File&) = delete;

  std::uint32_t version() const { return version_; }      // 2 or 3
  std::uint32_t alignment() const { return alignment_; }  // bytes, a power of two
  std::uint64_t data_offset() const { return data_offset_; }
  // False when the file ends where its tensor data would begin (see parse).
  bool has_data() const { return has_data_; }

  const std::vector<KeyValue>& metadata() const { return metadata_; }  // in file order
  const std::vector<TensorInfo>& tensors() const { return tensors_; }  // in file order

  const Value* value(std::string_view key) const;         // null when absent
  const TensorInfo* tensor(std::string_view name) const;  // null when absent
  // Errors: model naming the tensor when absent.
  const TensorInfo& require_tensor(std::string_view name) const;

  // Typed look-ups. T is one of
  //   int64, uint64: any integer type in the file, if the value lies in [low, high];
  //   double:        float32 or float64 in the file, finite;
  //   bool, std::string_view: that type;
  //   Array:         any array (its element type is checked by to_vector and each_string).
  // Errors: model naming the key, what was wanted and what was found, with the record's offset.
  template <typename T>
  std::optional<T> find(std::string_view key) const;
  template <std::integral T>
  std::optional<T> find(std::string_view key, T low, T high) const;
  // As find; an absent key is an error too.
  template <typename T>
  T require(std::string_view key) const;
  template <std::integral T>
  T require(std::string_view key, T low, T high) const;

 private:
  friend class Parser;
  friend File merge(std::vector<File> shards);

  // Errors, here and in set_tensors: gguf for a duplicate name.
  File(std::uint32_t version, std::vector<KeyValue> metadata);
  void set_tensors(std::vector<TensorInfo> tensors);

  const KeyValue* record(std::string_view key) const;
  [[noreturn]] static void fail_missing(std::string_view key);

  std::uint32_t version_;
  std::uint32_t alignment_;
  std::vector<KeyValue> metadata_;
  std::vector<TensorInfo> tensors_;
  std::uint64_t data_offset_ = 0;
  bool has_data_ = true;
  NameIndex key_index_;
  NameIndex tensor_index_;
};

// Reads a whole file, or its head when `file_size` says that more follows. Only the header is
// touched, never tensor data. Errors: gguf for everything that is not valid, with the key or
// tensor, the byte offset and the limit.
//
// A file must hold all the tensor data that its table lists, padding included. One exception: a
// table alone, without general.architecture, may end where its data would begin (has_data() is then
// false); a model that ends there is cut off.
File parse(std::span<const std::byte> bytes, std::uint64_t file_size);
inline File parse(std::span<const std::byte> bytes) { return parse(bytes, bytes.size()); }

}  // namespace quantloom::gguf
