#include "loader/model_file.h"

#include <string>
#include <utility>

#include "base/error.h"
#include "base/quote.h"

namespace quantloom::loader {
namespace {

gguf::File parse(const MappedFile& mapped) {
  try {
    return gguf::parse(mapped.bytes());
  } catch (const Error& error) {
    throw Error(error.kind(), mapped.path().filename().string() + ": " + error.message(),
                error.subject(), error.offset(), error.limit());
  }
}

std::vector<MappedFile> map_shards(const std::filesystem::path& path, std::uint32_t count) {
  auto name = gguf::parse_split_name(path.filename().string());
  if (not name || name->count != count) {
    throw Error(ErrorKind::gguf,
                path.filename().string() + ": it says that it is one of " + std::to_string(count) +
                    " shards, but is not named <name>-00001-of-" +
                    gguf::to_string({"", count, count}).substr(10, 5) + ".gguf",
                std::string(gguf::key_split_count), std::nullopt, count);
  }
  std::vector<MappedFile> shards;
  for (name->number = 1; name->number <= count; ++name->number) {
    shards.emplace_back(path.parent_path() / gguf::to_string(*name));
  }
  return shards;
}

}  // namespace

std::shared_ptr<const ModelFile> ModelFile::open(const std::filesystem::path& path) {
  std::vector<MappedFile> shards;
  shards.emplace_back(path);
  gguf::File file = parse(shards.front());
  const std::uint32_t count = gguf::split_count(file);
  if (count > 1) {
    shards = map_shards(path, count);
    std::vector<gguf::File> files;
    for (const MappedFile& shard : shards) files.push_back(parse(shard));
    file = gguf::merge(std::move(files));
  }
  return std::shared_ptr<const ModelFile>(new ModelFile(std::move(shards), std::move(file)));
}

ModelFile::ModelFile(std::vector<MappedFile> shards, gguf::File file)
    : shards_(std::move(shards)), file_(std::move(file)) {}

std::uint64_t ModelFile::total_bytes() const {
  std::uint64_t total = 0;
  for (const MappedFile& shard : shards_) total += shard.size();
  return total;
}

std::span<const std::byte> ModelFile::tensor_bytes(const gguf::TensorInfo& tensor) const {
  if (not file_.has_data()) {
    throw Error(ErrorKind::gguf,
                "tensor " + in_quotes(tensor.name) + " has no data: the file ends at byte " +
                    std::to_string(file_.data_offset()) + ", where it would begin",
                tensor.name, tensor.offset, file_.data_offset());
  }
  return shards_[tensor.shard].bytes().subspan(static_cast<std::size_t>(tensor.offset),
                                               static_cast<std::size_t>(tensor.bytes));
}

void ModelFile::check_unchanged() const {
  for (const MappedFile& shard : shards_) shard.check_unchanged();
}

}  // namespace quantloom::loader
