#include "model/forward.h"

#include <algorithm>
#include <array>

namespace quantloom::model {
namespace {

bool has_feed_forward_bias(const Layer& layer) {
  return layer.gate_bias != nullptr or layer.up_bias != nullptr;
}

ops::Norm norm_of(const float* weight, const Hyperparameters& h) {
  return {.weight = weight, .epsilon = static_cast<float>(h.norm_epsilon)};
}

void attention_block(ops::Operations& operations, const Network& network, Workspace& w,
                     const Layer& layer, const ops::CacheLayer& cache,
                     const ops::Positions& positions) {
  const Hyperparameters& h = network.description.hyperparameters;
  const std::array projections{
      ops::Projection{.weight = &layer.query, .bias = layer.query_bias, .out = w.query},
      ops::Projection{.weight = &layer.key, .bias = layer.key_bias, .out = w.key},
      ops::Projection{.weight = &layer.value, .bias = layer.value_bias, .out = w.value},
  };
  operations.norm_project(w.residual, positions.count, norm_of(layer.attention_norm, h),
                          projections);
  operations.rope_store({
      .q = w.query,
      .k = w.key,
      .v = w.value,
      .heads = static_cast<int>(h.head_count),
      .q_norm = norm_of(layer.query_norm, h),
      .k_norm = norm_of(layer.key_norm, h),
      .rope = {.table = layer.rope_table,
               .dimensions = static_cast<int>(h.rope_dimensions),
               .interleaved = network.description.architecture->interleaved_rope},
      .positions = positions,
      .cache = cache,
  });
  operations.attention({
      .q = w.query,
      .heads = static_cast<int>(h.head_count),
      .scale = static_cast<float>(h.attention_scale),
      .soft_cap = static_cast<float>(h.attention_soft_cap),
      .window = h.sliding_window,
      .positions = positions,
      .cache = cache,
      .out = w.attention,
  });
  operations.project_add(w.attention, positions.count, layer.attention_output, layer.attention_bias,
                         w.residual);
}

void feed_forward_block(ops::Operations& operations, const Network& network, Workspace& w,
                        const Layer& layer, std::int64_t tokens) {
  const Hyperparameters& h = network.description.hyperparameters;
  const ops::Activation activation = network.description.architecture->activation;
  const ops::Norm norm = norm_of(layer.feed_forward_norm, h);
  if (not has_feed_forward_bias(layer)) {
    return operations.feed_forward({.norm = &norm,
                                    .gate = &layer.gate,
                                    .up = &layer.up,
                                    .down = &layer.down,
                                    .bias = layer.down_bias,
                                    .activation = activation,
                                    .between = w.feed_forward,
                                    .residual = w.residual},
                                   tokens);
  }
  operations.norm(w.residual, tokens, h.embedding_length, norm, w.normed);
  operations.project(w.normed, tokens,
                     {.weight = &layer.gate, .bias = layer.gate_bias, .out = w.feed_forward});
  operations.project(w.normed, tokens, {.weight = &layer.up, .bias = layer.up_bias, .out = w.up});
  operations.activate(w.feed_forward, w.up, tokens * h.feed_forward_length, activation,
                      w.feed_forward);
  operations.project_add(w.feed_forward, tokens, layer.down, layer.down_bias, w.residual);
}

}  // namespace

Workspace::Workspace(ops::Operations& operations, const Network& network, std::int64_t tokens)
    : tokens(tokens) {
  const Hyperparameters& h = network.description.hyperparameters;
  const std::int64_t query_width = h.head_count * h.key_length;
  const std::int64_t key_width = h.head_count_kv * h.key_length;
  const bool biased = std::ranges::any_of(network.weights.layers, has_feed_forward_bias);
  struct Plane {
    float** field;
    std::int64_t width;
  };
  const std::array planes{
      Plane{&residual, h.embedding_length},
      Plane{&query, query_width},
      Plane{&key, key_width},
      Plane{&value, key_width},
      Plane{&attention, query_width},
      Plane{&feed_forward, h.feed_forward_length},
      Plane{&normed, biased ? h.embedding_length : 0},
      Plane{&up, biased ? h.feed_forward_length : 0},
  };
  constexpr std::int64_t alignment = 64;  // floats, so that every plane starts on 256 bytes
  const auto floats = [&](const Plane& plane) {
    return (plane.width * tokens + alignment - 1) / alignment * alignment;
  };
  std::int64_t total = 0;
  for (const Plane& plane : planes) total += floats(plane);
  memory = operations.allocate(static_cast<std::size_t>(total) * sizeof(float), "activations");
  auto* next = static_cast<float*>(memory.get());
  for (const Plane& plane : planes) {
    if (plane.width == 0) continue;
    *plane.field = next;
    next += floats(plane);
  }
}

void forward_embed(ops::Operations& operations, const Network& network, Workspace& workspace,
                   const std::int32_t* tokens, std::int64_t count) {
  operations.embed(network.weights.token_embedding, tokens, count, 1.0f, workspace.residual);
}

void forward_layers(ops::Operations& operations, const Network& network, Workspace& workspace,
                    const LayerRange& range, std::span<const ops::CacheLayer> cache,
                    const ops::Positions& positions, const Checkpoint& checkpoint) {
  for (std::int64_t i = range.first; i < range.last; ++i) {
    const Layer& layer = network.weights.layers[static_cast<std::size_t>(i)];
    attention_block(operations, network, workspace, layer,
                    cache[static_cast<std::size_t>(i - range.first)], positions);
    feed_forward_block(operations, network, workspace, layer, positions.count);
    if (checkpoint) checkpoint();
  }
}

void forward_head(ops::Operations& operations, const Network& network, Workspace& workspace,
                  std::int64_t first_row, std::int64_t rows, float* logits) {
  const Hyperparameters& h = network.description.hyperparameters;
  const std::array projection{
      ops::Projection{.weight = &network.weights.head, .bias = nullptr, .out = logits}};
  operations.norm_project(workspace.residual + first_row * h.embedding_length, rows,
                          norm_of(network.weights.output_norm, h), projection);
  if (h.logit_soft_cap > 0) {
    operations.soft_cap(logits, rows * h.vocabulary, static_cast<float>(h.logit_soft_cap));
  }
}

}  // namespace quantloom::model
