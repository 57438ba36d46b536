#include "model/model.h"

#include <algorithm>
#include <string>
#include <utility>

#include "base/error.h"
#include "base/large.h"
#include "base/thread_pool.h"
#include "formats/decode.h"
#include "formats/types.h"
#include "model/backend.h"
#include "model/cache.h"
#include "model/check.h"
#include "model/forward.h"
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
  auto values = with_room<float>(static_cast<std::size_t>(tensor.elements), "norms and biases");
  values.resize(static_cast<std::size_t>(tensor.elements));
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

// Bytes of a vector of floats that starts on 256 bytes, as the next one shall.
std::uint64_t padded_bytes(std::uint64_t floats) {
  constexpr std::uint64_t alignment = 256;
  return (floats * sizeof(float) + alignment - 1) / alignment * alignment;
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
  const Hyperparameters& h = model->hyperparameters();
  Cache::bytes_needed(h, options.cache_type, model->context_length_, h.block_count);
  for (const gguf::TensorInfo* tensor : binding->tensors) model->weight_bytes_ += tensor->bytes;

  std::unique_ptr<ops::Operations> gpu;
  if (options.device.type != device::DeviceType::cpu) {
    gpu = model::make_operations(options.device, options.precision);
  }
  const PlacementSizes sizes{
      .cache_type = options.cache_type,
      .context = model->context_length_,
      .limits = model->limits(std::min(default_pass_tokens(options.device, h.embedding_length),
                                       model->context_length_))};
  GpuLayers wanted = options.gpu_layers;
  if (gpu != nullptr and wanted.count.value_or(1) > 0) {
    std::vector<const ops::Weight*> weights;
    const std::int64_t layers = wanted.count.value_or(h.block_count);
    for (const MatrixBinding& matrix : binding->matrices) {
      if (matrix.layer < layers or layers == h.block_count) weights.push_back(matrix.weight);
    }
    model->gpu_obstacle_ = gpu->obstacle(sizes.limits, weights);
    if (not model->gpu_obstacle_.empty()) {
      if (not wanted.as_fit) {
        throw Error(ErrorKind::device,
                    "this model does not run on " + device::to_string(options.device) + ": " +
                        model->gpu_obstacle_,
                    "device");
      }
      wanted.count = 0;
    }
  }
  model->stages_ = choose_stages(gpu.get(), *binding, h, sizes, wanted);
  for (const Stage& stage : model->stages_) {
    const bool on_gpu = stage.device.type != device::DeviceType::cpu;
    model->operations_.push_back(on_gpu ? std::move(gpu)
                                        : model::make_operations(stage.device, options.precision));
  }

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
  model->place_matrices(*binding, report((passes - 1) * model->weight_bytes_));
  model->upload_vectors(*binding);
  model->list_tensors(*binding);
  model->file_->check_unchanged();
  model->weights_ = std::move(binding->weights);
  if (progress) progress(total, total);
  return model;
}

void Model::require_unchanged() const {
  const auto reads_the_map = [](const Stage& stage) {
    return stage.device.type == device::DeviceType::cpu;
  };
  if (std::ranges::any_of(stages_, reads_the_map)) file_->check_unchanged();
}

std::size_t Model::stage_of(std::int64_t layer) const {
  return stages_.size() == 1 or layer < stages_.front().layers.last ? 0 : 1;
}

std::int64_t Model::gpu_layers() const {
  const Stage& front = stages_.front();
  return front.device.type == device::DeviceType::cpu ? 0 : front.layers.last;
}

std::int64_t Model::most_pass_tokens() const {
  std::int64_t most = context_length_;
  for (const auto& operations : operations_) most = std::min(most, operations->most_tokens());
  return most;
}

void Model::place_matrices(Binding& binding, const LoadProgress& progress) {
  Weights& weights = binding.weights;
  const bool split_tie = weights.tied and stages_.size() > 1;
  if (split_tie) {
    // The GPU looks rows up, the CPU multiplies from the mapped file: no second copy either.
    weights.head = weights.token_embedding;
    weights.token_embedding.multiplied = false;
  }
  std::vector<std::vector<ops::Weight*>> of_stage(stages_.size());
  for (const MatrixBinding& matrix : binding.matrices) {
    of_stage[stage_of(matrix.layer)].push_back(matrix.weight);
  }
  if (split_tie) of_stage.back().push_back(&weights.head);
  for (std::size_t i = 0; i < stages_.size(); ++i) {
    for (ops::Buffer& buffer : operations_[i]->place(of_stage[i], progress)) {
      buffers_.push_back(std::move(buffer));
    }
  }
  if (weights.tied and not split_tie) weights.head = weights.token_embedding;
}

void Model::upload_vectors(Binding& binding) {
  std::vector<std::vector<float>> vectors;
  std::vector<float> factors;
  for (const VectorBinding& vector : binding.vectors) {
    vectors.push_back(decode_vector(*file_, *vector.tensor));
    if (vector.field == &binding.weights.rope_factors) factors = vectors.back();
  }
  check_rope_factors(factors);
  const std::vector<float> table = rope_table(hyperparameters(), factors, context_length_);

  for (std::size_t stage = 0; stage < stages_.size(); ++stage) {
    const auto here = [&](std::size_t i) { return stage_of(binding.vectors[i].layer) == stage; };
    std::uint64_t total = padded_bytes(table.size());
    for (std::size_t i = 0; i < vectors.size(); ++i) {
      if (here(i)) total += padded_bytes(vectors[i].size());
    }
    ops::Operations& operations = *operations_[stage];
    buffers_.push_back(operations.allocate(total, "norms, biases and RoPE table"));
    auto* next = static_cast<std::byte*>(buffers_.back().get());
    const auto upload = [&](const std::vector<float>& values) {
      operations.write(next, values.data(), values.size() * sizeof(float));
      const auto* start = reinterpret_cast<const float*>(next);
      next += padded_bytes(values.size());
      return start;
    };
    for (std::size_t i = 0; i < vectors.size(); ++i) {
      if (here(i)) *binding.vectors[i].field = upload(vectors[i]);
    }
    const float* angles = upload(table);
    const LayerRange& range = stages_[stage].layers;
    for (std::int64_t i = range.first; i < range.last; ++i) {
      binding.weights.layers[static_cast<std::size_t>(i)].rope_table = angles;
    }
    operations.synchronize();
  }
}

// Why the GPU of the first stage computes a token by several kernels, with one position and with
// all.
void Model::find_step_obstacles(const Binding& binding) {
  if (gpu_layers() == 0) return;
  ops::Operations& operations = *operations_.front();
  const LayerRange& range = stages_.front().layers;
  const Network network{description_, binding.weights};
  Workspace workspace(operations, network, 1);
  const Cache cache(operations, hyperparameters(), options_.cache_type, 1,
                    range.last - range.first);
  const ops::Buffer position = operations.allocate(sizeof(std::int32_t), "a position");
  const ops::Buffer logits = operations.allocate(
      static_cast<std::size_t>(hyperparameters().vocabulary) * sizeof(float), "logits");
  const auto with = [&](std::int64_t positions_seen) {
    const ops::Positions positions{.first = static_cast<const std::int32_t*>(position.get()),
                                   .count = 1,
                                   .bound = positions_seen};
    return operations.step_obstacle([&] {
      forward_layers(operations, network, workspace, range, cache.layers(), positions, {});
      if (stages_.size() > 1) return;
      forward_head(operations, network, workspace, 0, 1, static_cast<float*>(logits.get()));
    });
  };
  step_obstacle_ = with(1);
  full_step_obstacle_ = with(context_length_);
}

void Model::list_tensors(const Binding& binding) {
  find_step_obstacles(binding);
  const auto where = [&](std::int64_t layer) {
    return device::to_string(stages_[stage_of(layer)].device);
  };
  const auto add = [&](const ops::Weight& weight, std::size_t stage) {
    const formats::TypeInfo* type = formats::type_info(static_cast<std::uint32_t>(weight.format));
    const ops::Operations& operations = *operations_[stage];
    const std::uint64_t placed = operations.placed_bytes(weight);
    const auto blocks = static_cast<std::uint64_t>(weight.rows * weight.columns) / type->elements;
    tensors_.push_back({.name = weight.name,
                        .type = type->name,
                        .device = device::to_string(stages_[stage].device),
                        .kernel = operations.kernel_name(weight, step_obstacle_.empty()),
                        .bytes = placed != 0 ? placed : blocks * type->bytes});
  };
  for (const MatrixBinding& matrix : binding.matrices) {
    add(*matrix.weight, stage_of(matrix.layer));
  }
  if (binding.weights.tied and stages_.size() > 1) add(binding.weights.head, 1);
  for (const VectorBinding& vector : binding.vectors) {
    tensors_.push_back({.name = vector.tensor->name,
                        .type = vector.tensor->type->name,
                        .device = where(vector.layer),
                        .kernel = "",
                        .bytes = padded_bytes(vector.tensor->elements)});
  }
  const auto angles =
      static_cast<std::uint64_t>(context_length_ * hyperparameters().rope_dimensions);
  for (const Stage& stage : stages_) {
    tensors_.push_back({.name = "(RoPE table)",
                        .type = "F32",
                        .device = device::to_string(stage.device),
                        .kernel = "",
                        .bytes = padded_bytes(angles)});
  }
}

ops::Limits Model::limits(std::int64_t tokens) const {
  const Hyperparameters& h = hyperparameters();
  const auto is_ternary = [](const gguf::TensorInfo& tensor) {
    const auto format = static_cast<formats::Format>(tensor.type->id);
    return format == formats::Format::tq1_0 or format == formats::Format::tq2_0;
  };
  return {
      .tokens = tokens,
      .width = std::max({h.embedding_length, h.head_count * h.key_length, h.feed_forward_length}),
      .context = context_length_,
      .heads = static_cast<int>(h.head_count),
      .head_size = static_cast<int>(h.key_length),
      .vocabulary = h.vocabulary,
      .batch_invariant = options_.batch_invariant,
      .ternary = std::ranges::any_of(file_->file().tensors(), is_ternary)};
}

std::unique_ptr<ops::Operations> Model::make_operations(const Stage& stage,
                                                        std::int64_t tokens) const {
  auto operations = model::make_operations(stage.device, options_.precision);
  operations->reserve(limits(tokens));
  return operations;
}

}  // namespace quantloom::model
