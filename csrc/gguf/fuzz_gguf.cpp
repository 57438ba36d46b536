// libFuzzer target: whatever the bytes, parse() gives a File that holds what it promises or one
// Error of kind gguf. tests/fuzz/run.sh makes the corpus and runs it.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "gguf/file.h"
#include "gguf/split.h"
#include "gguf/utf8.h"

namespace {

using quantloom::Error;
using quantloom::ErrorKind;
using namespace quantloom::gguf;

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "broken promise: %s\n", what);
  std::abort();
}

template <typename Function>
void expect_error_of(ErrorKind kind, Function&& function) {
  try {
    function();
  } catch (const Error& error) {
    require(error.kind() == kind, "the kind of an error");
    require(not error.message().empty() && error.message().size() < 1000, "a readable message");
    require(not error.subject().empty(), "a subject");
  }
}

template <typename T>
void look_up(const File& file, std::string_view key) {
  expect_error_of(ErrorKind::model, [&] { (void)file.find<T>(key); });
}

bool strings_fill(const KeyValue& record, const Array& array) {
  try {
    array.each_string(record.key, [](std::string_view) {});
    return true;
  } catch (const Error&) {
    return false;
  }
}

void check_metadata(const File& file) {
  for (const KeyValue& record : file.metadata()) {
    require(file.value(record.key) == &record.value, "a key is found by its name");
    require(is_utf8(record.key) && not record.key.empty(), "a key is text");
    look_up<std::int64_t>(file, record.key);
    look_up<std::uint64_t>(file, record.key);
    look_up<double>(file, record.key);
    look_up<bool>(file, record.key);
    look_up<std::string_view>(file, record.key);
    look_up<Array>(file, record.key);
    if (const auto* array = std::get_if<Array>(&record.value)) {
      if (array->element_type() == ValueType::string) {
        require(strings_fill(record, *array), "an array's strings fill its bytes");
      } else {
        require(array->data().size() == array->size() * value_type_size(array->element_type()),
                "an array's bytes");
      }
    }
  }
}

void check_tensors(const File& file, std::uint64_t file_size) {
  std::uint64_t end = file.data_offset();
  for (const TensorInfo& tensor : file.tensors()) {
    require(file.tensor(tensor.name) == &tensor, "a tensor is found by its name");
    require(tensor.offset >= end, "tensors do not overlap");
    require(tensor.offset % file.alignment() == 0, "tensors are aligned");
    require(tensor.bytes <= std::numeric_limits<std::uint64_t>::max() - tensor.offset, "the end");
    end = tensor.offset + tensor.bytes;
    require(not file.has_data() || end <= file_size, "tensors lie inside the file");
    std::uint64_t elements = 1;
    for (const std::int64_t dimension : tensor.dimensions) {
      require(dimension >= 1, "dimensions are positive");
      elements *= static_cast<std::uint64_t>(dimension);
    }
    require(elements == tensor.elements && tensor.rows() >= 1, "elements");
    require(tensor.bytes == elements / tensor.type->elements * tensor.type->bytes, "bytes");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto bytes = std::as_bytes(std::span(data, size));
  expect_error_of(ErrorKind::gguf, [&] {
    const File file = parse(bytes);
    check_metadata(file);
    check_tensors(file, size);
  });
  // The same header at the head of a file of 2^40 bytes, so that large tensors pass the bound.
  constexpr std::uint64_t large = std::uint64_t{1} << 40;
  expect_error_of(ErrorKind::gguf, [&] { check_tensors(parse(bytes, large), large); });
  expect_error_of(ErrorKind::gguf, [&] {
    std::vector<File> shards;
    const std::uint32_t count = split_count(shards.emplace_back(parse(bytes)));
    if (count == 2) shards.push_back(parse(bytes));
    const File merged = merge(std::move(shards));
    for (const TensorInfo& tensor : merged.tensors()) {
      require(merged.tensor(tensor.name) == &tensor, "a merged tensor is found by its name");
    }
  });
  (void)parse_split_name({reinterpret_cast<const char*>(data), size});
  return 0;
}
