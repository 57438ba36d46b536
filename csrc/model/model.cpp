#include "model/model.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "base/error.h"
#include "base/thread_pool.h"
#include "formats/decode.h"
#include "model/backend.h"
#include "model/cache.h"
#include "model/check.h"
#include "model/rope.h"

namespace quantloom::model {
namespace {

std::int64_t choose_context(const Hyperparameters& h, std::optional<std::int64_t> wanted) {
  if (not wanted) return std::min(h.context_length, default_context_length);
  if (*wanted < 1 or *wanted > h.context_length) {
    throw Error(ErrorKind::invalid_argument,
                "context_length is " + std::to_string(*wanted) + ", outside 1 to " +
                    std::to_string(h.context_length) + ", what the model was trained for",
                "context_length", std::nullopt, static_cast<std::uint64_t>(h.context_length));
  }
  return *wanted;
}

std::vector<float> decode_vector(const loader::ModelFile& file, const gguf::TensorInfo& tensor) {
  std::vector<float> values(static_cast<std::size_t>(tensor.elements));
  const auto format = static_cast<formats::Format>(tensor.type->id);
  if (not formats::decode_row(format, file.tensor_bytes(tensor).data(),
                              static_cast<std::int64_t>(tensor.elements), values.data())) {
    throw Error(ErrorKind::model,
                "tensor '" + tensor.name + "' of type " + tensor.type->name + " cannot be decoded",
                tensor.name);
  }
  return values;
}

void check_rope_factors(const std::vector<float>& factors) {
  for (const float factor : factors) {
    if (factor > 0) continue;  // false for NaN too
    throw Error(ErrorKind::model,
                "tensor 'rope_freqs.weight' holds " + std::to_string(factor) +
                    "; a frequency is divided by it, so it must be above 0",
                "rope_freqs.weight");
  }
}

}  // namespace

std::shared_ptr<Model> Model::load(std::shared_ptr<const loader::ModelFile> file,
                                   const LoadOptions& options, const LoadProgress& progress) {
  std::shared_ptr<Model> model(new Model());
  model->file_ = std::move(file);
  model->options_ = options;
  model->description_ = describe(model->file_->file());
  const std::unique_ptr<Binding> binding = bind_tensors(*model->file_, model->description_);
  model->context_length_ = choose_context(model->hyperparameters(), options.context_length);
  Cache::bytes_needed(model->hyperparameters(), options.cache_type, model->context_length_);
  for (const gguf::TensorInfo* tensor : binding->tensors) model->weight_bytes_ += tensor->bytes;

  model->operations_ = model::make_operations(options.device, options.precision);
  const std::uint64_t passes = options.check_weights ? 2 : 1;
  const std::uint64_t total = passes * model->weight_bytes_;
  const auto report = [&](std::uint64_t before) -> ops::Progress {
    return [&progress, before, total](std::uint64_t done, std::uint64_t) {
      if (progress) progress(before + done, total);
    };
  };
  model->file_->check_unchanged();
  if (options.check_weights) {
    check_finite(*model->file_, binding->tensors, thread_count(), report(0));
  }
  model->buffers_ =
      model->operations_->place(binding->matrices, report((passes - 1) * model->weight_bytes_));
  model->upload_vectors(*binding);
  model->file_->check_unchanged();
  if (progress) progress(total, total);
  return model;
}

void Model::upload_vectors(Binding& binding) {
  std::vector<std::vector<float>> vectors;
  std::vector<float> factors;
  for (const VectorBinding& vector : binding.vectors) {
    vectors.push_back(decode_vector(*file_, *vector.tensor));
    if (vector.field == &binding.weights.rope_factors) factors = vectors.back();
  }
  check_rope_factors(factors);
  vectors.push_back(rope_table(hyperparameters(), factors, context_length_));

  constexpr std::size_t alignment = 64;  // floats: every vector starts on 256 bytes
  const auto padded = [](std::size_t size) {
    return (size + alignment - 1) / alignment * alignment;
  };
  std::size_t total = 0;
  for (const auto& vector : vectors) total += padded(vector.size());
  buffers_.push_back(operations_->allocate(total * sizeof(float), "norms, biases and RoPE table"));
  auto* next = static_cast<float*>(buffers_.back().get());
  for (std::size_t i = 0; i < vectors.size(); ++i) {
    operations_->write(next, vectors[i].data(), vectors[i].size() * sizeof(float));
    (i < binding.vectors.size() ? *binding.vectors[i].field : binding.weights.rope_table) = next;
    next += padded(vectors[i].size());
  }
  operations_->synchronize();
  if (binding.weights.tied) binding.weights.head = binding.weights.token_embedding;
  weights_ = std::move(binding.weights);
}

std::unique_ptr<ops::Operations> Model::make_operations(std::int64_t tokens) const {
  auto operations = model::make_operations(options_.device, options_.precision);
  const Hyperparameters& h = hyperparameters();
  operations->reserve(
      {.tokens = tokens,
       .width = std::max({h.embedding_length, h.head_count * h.key_length, h.feed_forward_length}),
       .context = context_length_,
       .heads = static_cast<int>(h.head_count),
       .head_size = static_cast<int>(h.key_length),
       .vocabulary = h.vocabulary});
  return operations;
}

}  // namespace quantloom::model
