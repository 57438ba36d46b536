#include "gguf/file.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "base/error.h"
#include "base/quote.h"

namespace quantloom::gguf {
namespace {

std::string describe(const Value& value) {
  const std::string name(value_type_name(type_of(value)));
  if (const auto* array = std::get_if<Array>(&value)) {
    return "an array of " + std::string(value_type_name(array->element_type()));
  }
  return "of type " + name;
}

template <typename T>
constexpr std::string_view wanted_name() {
  if constexpr (std::is_same_v<T, bool>) return "bool";
  if constexpr (std::is_same_v<T, std::string_view>) return "string";
  if constexpr (std::is_same_v<T, Array>) return "array";
  if constexpr (std::is_floating_point_v<T>) return "float";
  return "integer";
}

[[noreturn]] void fail_type(const KeyValue& record, const std::string& wanted) {
  throw Error(ErrorKind::model,
              "metadata key " + in_quotes(record.key) + " is " + describe(record.value) +
                  ", wanted " + wanted,
              shortened(record.key), record.offset);
}

template <typename T>
[[noreturn]] void fail_range(const KeyValue& record, const std::string& found, T low, T high) {
  throw Error(ErrorKind::model,
              "metadata key " + in_quotes(record.key) + " is " + found + ", outside " +
                  std::to_string(low) + " to " + std::to_string(high),
              shortened(record.key), record.offset, static_cast<std::uint64_t>(high));
}

template <typename T, typename Stored>
concept SameFamily = std::is_same_v<T, Stored> ||
                     (std::is_floating_point_v<T> && std::is_floating_point_v<Stored>) ||
                     (std::is_integral_v<T> && std::is_integral_v<Stored> &&
                      not std::is_same_v<T, bool> && not std::is_same_v<Stored, bool>);

// One stored scalar as a T. Integers must fit [low, high], floats must be finite.
template <typename T, typename Stored>
T convert(const KeyValue& record, const Stored& stored, T low, T high) {
  if constexpr (std::is_floating_point_v<T>) {
    if (not std::isfinite(static_cast<T>(stored))) {
      throw Error(ErrorKind::model,
                  "metadata key " + in_quotes(record.key) + " is " + std::to_string(stored) +
                      ", wanted a finite number",
                  shortened(record.key), record.offset);
    }
    return static_cast<T>(stored);
  } else if constexpr (std::is_integral_v<T> && not std::is_same_v<T, bool>) {
    if (std::cmp_less(stored, low) || std::cmp_greater(stored, high)) {
      fail_range(record, std::to_string(stored), low, high);
    }
    return static_cast<T>(stored);
  } else {
    return stored;
  }
}

template <typename T>
T scalar(const KeyValue& record, T low, T high) {
  return std::visit(
      [&](const auto& stored) -> T {
        using Stored = std::decay_t<decltype(stored)>;
        if constexpr (SameFamily<T, Stored>) {
          return convert<T>(record, stored, low, high);
        } else {
          fail_type(record, std::string(wanted_name<T>()));
        }
      },
      record.value);
}

}  // namespace

NameIndex::NameIndex(const std::vector<std::string_view>& names) {
  sorted_.reserve(names.size());
  for (std::size_t i = 0; i < names.size(); ++i) sorted_.emplace_back(names[i], i);
  std::sort(sorted_.begin(), sorted_.end());
  for (std::size_t i = 1; i < sorted_.size(); ++i) {
    if (sorted_[i].first != sorted_[i - 1].first) continue;
    if (not duplicate_ || sorted_[i].second < *duplicate_) duplicate_ = sorted_[i].second;
  }
}

std::optional<std::size_t> NameIndex::find(std::string_view name) const {
  const auto found = std::lower_bound(
      sorted_.begin(), sorted_.end(), name,
      [](const auto& entry, std::string_view wanted) { return entry.first < wanted; });
  if (found == sorted_.end() || found->first != name) return std::nullopt;
  return found->second;
}

File::File(std::uint32_t version, std::vector<KeyValue> metadata)
    : version_(version), alignment_(default_alignment), metadata_(std::move(metadata)) {
  std::vector<std::string_view> keys;
  keys.reserve(metadata_.size());
  for (const KeyValue& record : metadata_) keys.push_back(record.key);
  key_index_ = NameIndex(keys);
  if (const auto duplicate = key_index_.duplicate()) {
    const KeyValue& record = metadata_[*duplicate];
    throw Error(ErrorKind::gguf,
                "metadata key " + in_quotes(record.key) + " occurs again at byte " +
                    std::to_string(record.offset),
                shortened(record.key), record.offset);
  }
}

void File::set_tensors(std::vector<TensorInfo> tensors) {
  tensors_ = std::move(tensors);
  std::vector<std::string_view> names;
  names.reserve(tensors_.size());
  for (const TensorInfo& tensor : tensors_) names.emplace_back(tensor.name);
  tensor_index_ = NameIndex(names);
  if (const auto duplicate = tensor_index_.duplicate()) {
    const TensorInfo& tensor = tensors_[*duplicate];
    throw Error(ErrorKind::gguf,
                "tensor " + in_quotes(tensor.name) + " occurs again at byte " +
                    std::to_string(tensor.record_offset),
                shortened(tensor.name), tensor.record_offset);
  }
}

const KeyValue* File::record(std::string_view key) const {
  const auto position = key_index_.find(key);
  return position ? &metadata_[*position] : nullptr;
}

const Value* File::value(std::string_view key) const {
  const KeyValue* found = record(key);
  return found ? &found->value : nullptr;
}

const TensorInfo* File::tensor(std::string_view name) const {
  const auto position = tensor_index_.find(name);
  return position ? &tensors_[*position] : nullptr;
}

const TensorInfo& File::require_tensor(std::string_view name) const {
  if (const TensorInfo* found = tensor(name)) return *found;
  throw Error(ErrorKind::model, "tensor " + in_quotes(name) + " is missing", shortened(name));
}

void File::fail_missing(std::string_view key) {
  throw Error(ErrorKind::model, "metadata key " + in_quotes(key) + " is missing", shortened(key));
}

template <typename T>
std::optional<T> File::find(std::string_view key) const {
  const KeyValue* found = record(key);
  if (not found) return std::nullopt;
  if constexpr (std::is_arithmetic_v<T>) {
    return scalar<T>(*found, std::numeric_limits<T>::lowest(), std::numeric_limits<T>::max());
  } else if constexpr (std::is_same_v<T, Array>) {
    if (const auto* array = std::get_if<Array>(&found->value)) return *array;
    fail_type(*found, "array");
  } else {
    return scalar<T>(*found, {}, {});
  }
}

template <std::integral T>
std::optional<T> File::find(std::string_view key, T low, T high) const {
  const KeyValue* found = record(key);
  if (not found) return std::nullopt;
  return scalar<T>(*found, low, high);
}

template <typename T>
T File::require(std::string_view key) const {
  const auto found = find<T>(key);
  if (not found) fail_missing(key);
  return *found;
}

template <std::integral T>
T File::require(std::string_view key, T low, T high) const {
  const auto found = find<T>(key, low, high);
  if (not found) fail_missing(key);
  return *found;
}

#define QL_SCALAR(T)                                            \
  template std::optional<T> File::find(std::string_view) const; \
  template T File::require(std::string_view) const;
#define QL_RANGE(T)                                                   \
  template std::optional<T> File::find(std::string_view, T, T) const; \
  template T File::require(std::string_view, T, T) const;
#define QL_INTEGER(T) QL_SCALAR(T) QL_RANGE(T)
QL_INTEGER(std::int64_t)
QL_INTEGER(std::uint64_t)
QL_SCALAR(double)
QL_SCALAR(bool)
QL_SCALAR(std::string_view)
QL_SCALAR(Array)
#undef QL_SCALAR
#undef QL_RANGE
#undef QL_INTEGER

}  // namespace quantloom::gguf
