// A GGUF file on disk, or all shards of a split one, mapped and parsed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <vector>

#include "gguf/file.h"
#include "gguf/split.h"
#include "loader/mapped_file.h"

namespace quantloom::loader {

class ModelFile {
 public:
  // Maps `path`. A file whose metadata says split.count > 1 must be named
  // <name>-00001-of-0000N.gguf (any of the shards may be given); the other shards are taken by that
  // name from the same folder, whatever the files say.
  // Errors: io when a file or shard cannot be opened; gguf when one is not valid or the shards do
  // not belong together. The message names the file.
  static std::shared_ptr<const ModelFile> open(const std::filesystem::path& path);

  // The metadata of the first shard and the tensors of all of them, in order.
  const gguf::File& file() const { return file_; }

  const std::filesystem::path& path() const { return shards_.front().path(); }
  const std::vector<MappedFile>& shards() const { return shards_; }  // by TensorInfo::shard
  std::uint64_t total_bytes() const;                                 // of all shards

  // The tensor's blocks as they stand in the file, rows in order; valid as long as this object.
  // `tensor` must come from file(). Errors: gguf when the file has no tensor data.
  std::span<const std::byte> tensor_bytes(const gguf::TensorInfo& tensor) const;

  // Errors: io when any shard changed on disk since opening.
  void check_unchanged() const;

 private:
  ModelFile(std::vector<MappedFile> shards, gguf::File file);

  std::vector<MappedFile> shards_;  // before file_, which views into them
  gguf::File file_;
};

}  // namespace quantloom::loader
