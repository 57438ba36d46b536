#include "gguf/value.h"

#include <optional>
#include <string>

#include "base/error.h"
#include "base/quote.h"

namespace quantloom::gguf {
namespace {

struct TypeRow {
  std::string_view name;
  std::uint64_t size;
};

constexpr TypeRow type_rows[value_type_count] = {
    {"uint8", 1},  {"int8", 1},    {"uint16", 2},  {"int16", 2},  {"uint32", 4},
    {"int32", 4},  {"float32", 4}, {"bool", 1},    {"string", 0}, {"array", 0},
    {"uint64", 8}, {"int64", 8},   {"float64", 8},
};

}  // namespace

std::string_view value_type_name(ValueType type) {
  return type_rows[static_cast<std::size_t>(type)].name;
}

std::uint64_t value_type_size(ValueType type) {
  return type_rows[static_cast<std::size_t>(type)].size;
}

void Array::require_element_type(ValueType wanted) const {
  if (element_type_ == wanted) return;
  throw Error(ErrorKind::model, "an array of " + std::string(value_type_name(element_type_)) +
                                    " where one of " + std::string(value_type_name(wanted)) +
                                    " is wanted");
}

void Array::fail_lengths(std::string_view key) const {
  throw Error(ErrorKind::gguf,
              "metadata key " + in_quotes(key) + ": its " + std::to_string(size_) +
                  " strings no longer fill their " + std::to_string(data_.size()) +
                  " bytes; the file has changed since it was opened",
              shortened(key), std::nullopt, data_.size());
}

}  // namespace quantloom::gguf
