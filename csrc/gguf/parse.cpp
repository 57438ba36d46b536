#include <algorithm>
#include <bit>
#include <string>

#include "base/checked.h"
#include "base/cursor.h"
#include "base/quote.h"
#include "gguf/file.h"
#include "gguf/utf8.h"

namespace quantloom::gguf {
namespace {

// Smallest records that the format allows: they bound a count by the bytes that are left.
constexpr std::uint64_t smallest_key_record = 8 + 1 + 4 + 1;             // key, type, value
constexpr std::uint64_t smallest_tensor_record = 8 + 1 + 4 + 8 + 4 + 8;  // name ... offset
constexpr std::uint64_t smallest_string = 8;

std::string at(std::uint64_t offset) { return " at byte " + std::to_string(offset); }

std::string_view characters(std::span<const std::byte> bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::optional<std::uint64_t> pad(std::uint64_t size, std::uint64_t alignment) {
  const auto raised = try_add(size, alignment - 1);
  return raised ? std::optional(*raised & ~(alignment - 1)) : std::nullopt;
}

}  // namespace

class Parser {
 public:
  Parser(std::span<const std::byte> bytes, std::uint64_t file_size)
      : cursor_(bytes), bytes_(bytes), file_size_(file_size) {}

  File run() {
    read_magic();
    const std::uint32_t version = read_version();
    const auto tensor_count =
        read_count("tensor count", smallest_tensor_record, max_tensors, 8 /* the key count */);
    const auto key_count = read_count("metadata key count", smallest_key_record, max_keys, 0);
    std::vector<KeyValue> metadata;
    for (std::uint64_t i = 0; i < key_count; ++i) metadata.push_back(read_key_value());
    cursor_.set_subject({});
    File file(version, std::move(metadata));
    file.alignment_ = alignment_ = read_alignment(file);

    std::vector<TensorInfo> tensors;
    for (std::uint64_t i = 0; i < tensor_count; ++i) tensors.push_back(read_tensor());
    file.data_offset_ = place_data(file, tensors);
    file.set_tensors(std::move(tensors));
    return file;
  }

 private:
  [[noreturn]] static void fail(std::string message, std::string_view subject, std::uint64_t offset,
                                std::optional<std::uint64_t> limit = std::nullopt) {
    throw Error(ErrorKind::gguf, std::move(message), shortened(subject), offset, limit);
  }

  void read_magic() {
    const std::string_view magic = characters(cursor_.take(4, "magic"));
    if (magic == "GGUF") return;
    std::string hint;
    if (characters(bytes_).starts_with("version https://git-lfs")) {
      hint = "; it is a Git LFS pointer, fetch the real file with `git lfs pull`";
    } else if (magic == "tjgg" || magic == "fmgg" || magic == "lmgg") {
      hint = "; it is a GGML file from before GGUF, convert the model again";
    } else if (magic.starts_with("PK\x03\x04")) {
      hint = "; it is a ZIP archive, perhaps a PyTorch checkpoint";
    }
    fail("not a GGUF file: it starts with " + in_quotes(magic) + " instead of 'GGUF'" + hint,
         "magic", 0);
  }

  std::uint32_t read_version() {
    const std::uint64_t offset = cursor_.offset();
    const auto version = cursor_.read<std::uint32_t>("version");
    if (version == 2 || version == 3) return version;
    const std::string number = "GGUF version " + std::to_string(version);
    if (version == 0) fail(number + " does not exist", "version", offset, 3);
    if (version == 1) {
      fail(number + " is obsolete (32-bit sizes); convert the model again", "version", offset, 3);
    }
    if ((version & 0xFFFF) == 0) {
      fail("a big-endian GGUF file (version " + std::to_string(__builtin_bswap32(version)) +
               " with its bytes swapped); convert it to little-endian",
           "version", offset, 3);
    }
    fail(number + " is newer than 3, the newest that is read", "version", offset, 3);
  }

  // Each counted record takes at least `smallest` bytes after the next `skipped` ones.
  std::uint64_t read_count(const char* what, std::uint64_t smallest, std::uint64_t most,
                           std::uint64_t skipped) {
    const std::uint64_t offset = cursor_.offset();
    const auto count = cursor_.read<std::uint64_t>(what);
    const std::uint64_t left = cursor_.remaining() - std::min(cursor_.remaining(), skipped);
    const std::uint64_t limit = std::min(most, left / smallest);
    if (count > limit) {
      fail("the " + std::string(what) + " is " + std::to_string(count) + at(offset) + ", " +
               (limit == most ? "above the cap of " : "and the rest of the file can hold ") +
               std::to_string(limit),
           what, offset, limit);
    }
    return count;
  }

  // A length and as many characters.
  std::string_view read_string(const char* what, std::string_view subject, std::uint64_t most) {
    const std::uint64_t offset = cursor_.offset();
    const auto length = cursor_.read<std::uint64_t>(what);
    const std::uint64_t limit = std::min(most, cursor_.remaining());
    if (length > limit) {
      fail("the " + std::string(what) + (subject.empty() ? "" : " of " + in_quotes(subject)) +
               " is " + std::to_string(length) + " bytes long" + at(offset) + ", " +
               (limit == most ? "above the cap of " : "and the file has ") + std::to_string(limit) +
               (limit == most ? "" : " left"),
           subject.empty() ? what : subject, offset, limit);
    }
    return characters(cursor_.take(length, what));
  }

  // A key or tensor name: not empty, UTF-8, without NUL.
  std::string_view read_name(const char* what, std::uint64_t most) {
    const std::uint64_t offset = cursor_.offset();
    const std::string_view name = read_string(what, {}, most);
    if (name.empty()) fail("an empty " + std::string(what) + at(offset), what, offset, most);
    if (name.find('\0') != std::string_view::npos) {
      fail("the " + std::string(what) + " " + in_quotes(name) + at(offset) + " has a NUL byte",
           name, offset);
    }
    if (not is_utf8(name)) {
      fail("the " + std::string(what) + " " + in_quotes(name) + at(offset) + " is not UTF-8", name,
           offset);
    }
    return name;
  }

  ValueType read_value_type(std::string_view key, const char* what) {
    const std::uint64_t offset = cursor_.offset();
    const auto type = cursor_.read<std::uint32_t>(what);
    if (type >= value_type_count) {
      fail("metadata key " + in_quotes(key) + " has the unknown " + what + " " +
               std::to_string(type) + at(offset),
           key, offset, value_type_count - 1);
    }
    return static_cast<ValueType>(type);
  }

  KeyValue read_key_value() {
    const std::uint64_t offset = cursor_.offset();
    cursor_.set_subject({});
    const std::string_view key = read_name("metadata key", max_key_bytes);
    cursor_.set_subject(key);
    const ValueType type = read_value_type(key, "value type");
    return {key, read_value(key, type), offset};
  }

  Value read_value(std::string_view key, ValueType type) {
    switch (type) {
      case ValueType::uint8:
        return cursor_.read<std::uint8_t>("value");
      case ValueType::int8:
        return cursor_.read<std::int8_t>("value");
      case ValueType::uint16:
        return cursor_.read<std::uint16_t>("value");
      case ValueType::int16:
        return cursor_.read<std::int16_t>("value");
      case ValueType::uint32:
        return cursor_.read<std::uint32_t>("value");
      case ValueType::int32:
        return cursor_.read<std::int32_t>("value");
      case ValueType::float32:
        return cursor_.read<float>("value");
      case ValueType::boolean:
        return cursor_.read<std::uint8_t>("value") != 0;
      case ValueType::string:
        return read_string("value", key, max_string_bytes);
      case ValueType::array:
        return read_array(key);
      case ValueType::uint64:
        return cursor_.read<std::uint64_t>("value");
      case ValueType::int64:
        return cursor_.read<std::int64_t>("value");
      case ValueType::float64:
        return cursor_.read<double>("value");
    }
    return {};  // read_value_type lets no other number pass
  }

  Array read_array(std::string_view key) {
    const std::uint64_t type_offset = cursor_.offset();
    const ValueType type = read_value_type(key, "element type");
    if (type == ValueType::array) {
      fail("metadata key " + in_quotes(key) + " is an array of arrays" + at(type_offset), key,
           type_offset);
    }
    const std::uint64_t offset = cursor_.offset();
    const auto count = cursor_.read<std::uint64_t>("element count");
    const std::uint64_t size = type == ValueType::string ? smallest_string : value_type_size(type);
    const std::uint64_t fitting = cursor_.remaining() / size;
    const std::uint64_t limit = std::min(max_array_elements, fitting);
    if (count > limit) {
      fail("metadata key " + in_quotes(key) + " is an array of " + std::to_string(count) +
               " elements" + at(offset) + ", " +
               (limit == fitting ? "and the rest of the file can hold " : "above the cap of ") +
               std::to_string(limit),
           key, offset, limit);
    }
    const std::uint64_t start = cursor_.offset();
    if (type == ValueType::string) {
      for (std::uint64_t i = 0; i < count; ++i) {
        read_string("string in the array", key, max_string_bytes);
      }
    } else {
      cursor_.take(count * size, "array");
    }
    return {type, count, bytes_.subspan(start, cursor_.offset() - start)};
  }

  static std::uint32_t read_alignment(const File& file) {
    constexpr std::string_view key = "general.alignment";
    const KeyValue* record = file.record(key);
    if (not record) return default_alignment;
    const auto* alignment = std::get_if<std::uint32_t>(&record->value);
    if (not alignment) {
      fail("metadata key 'general.alignment'" + at(record->offset) + " is of type " +
               std::string(value_type_name(type_of(record->value))) + ", wanted uint32",
           key, record->offset);
    }
    if (not std::has_single_bit(*alignment) || *alignment > max_alignment) {
      fail("metadata key 'general.alignment'" + at(record->offset) + " is " +
               std::to_string(*alignment) + ", wanted a power of two of at most " +
               std::to_string(max_alignment),
           key, record->offset, max_alignment);
    }
    return *alignment;
  }

  TensorInfo read_tensor() {
    const std::uint64_t record_offset = cursor_.offset();
    cursor_.set_subject({});
    const std::string_view name = read_name("tensor name", max_tensor_name_bytes);
    cursor_.set_subject(name);
    TensorInfo tensor{};
    tensor.name = name;
    tensor.record_offset = record_offset;
    read_dimensions(tensor);
    read_type(tensor);

    const std::uint64_t offset = cursor_.offset();
    tensor.offset = cursor_.read<std::uint64_t>("data offset");
    if (tensor.offset != data_size_) {
      fail("tensor " + in_quotes(name) + " has its data at " + std::to_string(tensor.offset) +
               " (field" + at(offset) + "); after the tensors before it, padded to " +
               std::to_string(alignment_) + " bytes, it must be at " + std::to_string(data_size_),
           name, offset, data_size_);
    }
    const auto end = try_add(data_size_, tensor.bytes);
    const auto padded = end ? pad(*end, alignment_) : std::nullopt;
    if (not padded) {
      fail("tensor " + in_quotes(name) + at(record_offset) + ": the size of the data wraps", name,
           record_offset, file_size_);
    }
    data_size_ = *padded;
    return tensor;
  }

  void read_dimensions(TensorInfo& tensor) {
    const std::uint64_t count_offset = cursor_.offset();
    const auto count = cursor_.read<std::uint32_t>("number of dimensions");
    if (count == 0 || count > max_dimensions) {
      fail("tensor " + in_quotes(tensor.name) + " has " + std::to_string(count) + " dimensions" +
               at(count_offset) + ", wanted 1 to " + std::to_string(max_dimensions),
           tensor.name, count_offset, max_dimensions);
    }
    constexpr std::uint64_t most = std::numeric_limits<std::int64_t>::max();
    tensor.elements = 1;
    for (std::uint32_t i = 0; i < count; ++i) {
      const std::uint64_t offset = cursor_.offset();
      const auto dimension = cursor_.read<std::int64_t>("dimensions");
      if (dimension < 1) {
        fail("tensor " + in_quotes(tensor.name) + " has dimension " + std::to_string(dimension) +
                 at(offset) + ", wanted at least 1",
             tensor.name, offset, 1);
      }
      const auto product = try_multiply(tensor.elements, static_cast<std::uint64_t>(dimension));
      if (not product || *product > most) {
        fail("tensor " + in_quotes(tensor.name) + at(offset) +
                 ": the product of its dimensions is above " + std::to_string(most),
             tensor.name, offset, most);
      }
      tensor.elements = *product;
      tensor.dimensions.push_back(dimension);
    }
  }

  void read_type(TensorInfo& tensor) {
    const std::uint64_t offset = cursor_.offset();
    const auto id = cursor_.read<std::uint32_t>("tensor type");
    tensor.type = formats::type_info(id);
    const std::string place = "tensor " + in_quotes(tensor.name) + at(offset) + " is of type ";
    if (not tensor.type) {
      fail(place + std::to_string(id) + ", which the format does not define", tensor.name, offset);
    }
    const formats::TypeInfo& type = *tensor.type;
    if (type.state == formats::TypeState::removed) {
      fail(place + type.name + ", which was removed from the format; convert the model again",
           tensor.name, offset);
    }
    if (tensor.dimensions[0] % type.elements != 0) {
      fail(place + type.name + " with rows of " + std::to_string(tensor.dimensions[0]) +
               " elements, not a multiple of its block of " + std::to_string(type.elements),
           tensor.name, offset, type.elements);
    }
    const auto bytes = try_multiply(tensor.elements / type.elements, type.bytes);
    if (not bytes) {
      fail(place + type.name + ": its size in bytes wraps", tensor.name, offset, file_size_);
    }
    tensor.bytes = *bytes;
  }

  // Makes the tensors' offsets absolute, bounds them by the file and returns where the data begins.
  std::uint64_t place_data(File& file, std::vector<TensorInfo>& tensors) const {
    const std::uint64_t header = cursor_.offset();
    const std::uint64_t start = pad(header, alignment_).value_or(header);
    if (tensors.empty()) return start;

    file.has_data_ = not(file_size_ == start && not file.value("general.architecture"));
    for (TensorInfo& tensor : tensors) {
      const auto begin = try_add(start, tensor.offset);
      const auto last = begin ? try_add(*begin, tensor.bytes) : std::nullopt;
      const auto padded = last ? pad(*last, alignment_) : std::nullopt;
      if (not padded || (file.has_data_ && *padded > file_size_)) {
        fail("tensor " + in_quotes(tensor.name) + " needs " + std::to_string(tensor.bytes) +
                 " bytes of data" + (begin ? at(*begin) : "") + ", padded to " +
                 std::to_string(alignment_) + ", and the file ends at byte " +
                 std::to_string(file_size_),
             tensor.name, begin.value_or(tensor.record_offset), file_size_);
      }
      tensor.offset = *begin;
    }
    return start;
  }

  Cursor cursor_;
  std::span<const std::byte> bytes_;
  std::uint64_t file_size_;
  std::uint32_t alignment_ = default_alignment;
  std::uint64_t data_size_ = 0;  // of the tensors read so far, each padded
};

File parse(std::span<const std::byte> bytes, std::uint64_t file_size) {
  return Parser(bytes.first(
                    static_cast<std::size_t>(std::min<std::uint64_t>(bytes.size(), file_size))),
                file_size)
      .run();
}

}  // namespace quantloom::gguf
