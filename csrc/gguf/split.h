// Split files: <name>-00001-of-00003.gguf and so on, each a GGUF file with part of the tensors.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "gguf/file.h"

namespace quantloom::gguf {

inline constexpr std::string_view key_split_number = "split.no";
inline constexpr std::string_view key_split_count = "split.count";
inline constexpr std::string_view key_split_tensors = "split.tensors.count";

// Shards that one model may have; the largest published ones have about 200.
inline constexpr std::uint32_t max_shards = 1024;

struct SplitName {
  std::string prefix;
  std::uint32_t number;  // from 1
  std::uint32_t count;
};

// Takes "<prefix>-00001-of-00003.gguf" apart; nullopt for any other file name.
std::optional<SplitName> parse_split_name(std::string_view file_name);
std::string to_string(const SplitName& name);

// The number of shards that a file says it belongs to; 1 when it says nothing.
// Errors: gguf when the count is not an integer in 1 to max_shards.
std::uint32_t split_count(const File& file);

// One File of all shards in order: the metadata of the first, the tensors of all.
// Errors: gguf when a shard's split.no or split.count is not that of its place, when the
// tensors are not as many as split.tensors.count says, when two shards hold the same tensor or one
// has no data.
File merge(std::vector<File> shards);

}  // namespace quantloom::gguf
