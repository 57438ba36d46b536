#include "gguf/split.h"

#include <algorithm>
#include <charconv>
#include <iterator>

#include "base/error.h"

namespace quantloom::gguf {
namespace {

constexpr std::size_t digits = 5;
constexpr std::string_view between = "-of-";
constexpr std::string_view extension = ".gguf";

std::optional<std::uint32_t> parse_number(std::string_view text) {
  std::uint32_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

std::string five_digits(std::uint32_t number) {
  const std::string text = std::to_string(number);
  return std::string(digits - std::min(digits, text.size()), '0') + text;
}

// A split.* key of one shard, whose errors are faults of the file and not of the model.
std::uint64_t split_key(const File& shard, std::string_view key, std::uint64_t low,
                        std::uint64_t high) {
  try {
    return shard.require<std::uint64_t>(key, low, high);
  } catch (const Error& error) {
    throw Error(ErrorKind::gguf, error.message(), error.subject(), error.offset(), error.limit());
  }
}

}  // namespace

std::optional<SplitName> parse_split_name(std::string_view file_name) {
  constexpr std::size_t tail = 1 + digits + between.size() + digits + extension.size();
  if (file_name.size() <= tail) return std::nullopt;
  const std::string_view end = file_name.substr(file_name.size() - tail);
  if (end[0] != '-' || end.substr(1 + digits, between.size()) != between ||
      not end.ends_with(extension)) {
    return std::nullopt;
  }
  const auto number = parse_number(end.substr(1, digits));
  const auto count = parse_number(end.substr(1 + digits + between.size(), digits));
  if (not number || not count || *number < 1 || *number > *count) return std::nullopt;
  return SplitName{std::string(file_name.substr(0, file_name.size() - tail)), *number, *count};
}

std::string to_string(const SplitName& name) {
  return name.prefix + "-" + five_digits(name.number) + std::string(between) +
         five_digits(name.count) + std::string(extension);
}

std::uint32_t split_count(const File& file) {
  if (not file.value(key_split_count)) return 1;
  return static_cast<std::uint32_t>(split_key(file, key_split_count, 1, max_shards));
}

File merge(std::vector<File> shards) {
  const auto count = static_cast<std::uint32_t>(shards.size());
  std::vector<TensorInfo> tensors;
  std::uint64_t claimed = 0;
  for (std::uint32_t i = 0; i < count; ++i) {
    File& shard = shards[i];
    split_key(shard, key_split_count, count, count);
    split_key(shard, key_split_number, i, i);
    if (i == 0) claimed = split_key(shard, key_split_tensors, 0, max_tensors);
    if (not shard.has_data()) {
      const std::string name = "shard " + std::to_string(i + 1) + " of " + std::to_string(count);
      throw Error(ErrorKind::gguf, name + " ends before its tensor data", name,
                  shard.data_offset());
    }
    for (TensorInfo& tensor : shard.tensors_) tensor.shard = i;
    std::move(shard.tensors_.begin(), shard.tensors_.end(), std::back_inserter(tensors));
  }
  if (tensors.size() != claimed) {
    throw Error(ErrorKind::gguf,
                "the shards hold " + std::to_string(tensors.size()) +
                    " tensors, and split.tensors.count says " + std::to_string(claimed),
                std::string(key_split_tensors), std::nullopt, claimed);
  }
  File merged = std::move(shards.front());
  merged.set_tensors(std::move(tensors));
  return merged;
}

}  // namespace quantloom::gguf
