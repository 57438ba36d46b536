// The one forward pass, over the operations of any device and every architecture of the table.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "model/architecture.h"
#include "model/weights.h"
#include "ops/operations.h"

namespace quantloom::model {

// What all calls of a model share.
struct Network {
  const Description& description;
  const Weights& weights;
};

// Activations of one call, in device memory; made once, so that a pass allocates nothing.
struct Workspace {
  Workspace(ops::Operations& operations, const Network& network, std::int64_t tokens);

  std::int64_t tokens;  // the most that one pass can take
  ops::Buffer memory;
  float* residual = nullptr;      // [tokens, embedding]
  float* query = nullptr;         // [tokens, heads, head_size]
  float* key = nullptr;           // [tokens, kv_heads, head_size]
  float* value = nullptr;         // [tokens, kv_heads, head_size]
  float* attention = nullptr;     // [tokens, heads, head_size]
  float* feed_forward = nullptr;  // [tokens, feed_forward]
  // Only where the feed-forward has biases, which the fused operation does not take.
  float* normed = nullptr;  // [tokens, embedding]
  float* up = nullptr;      // [tokens, feed_forward]
};

// Called between layers; may throw to stop. Must be empty inside Operations::replay().
using Checkpoint = std::function<void()>;

// Layers first, ..., last - 1, which is what one device computes.
struct LayerRange {
  std::int64_t first = 0;
  std::int64_t last = 0;
};

// Embeddings of tokens [count], in device memory, to workspace.residual.
void forward_embed(ops::Operations& operations, const Network& network, Workspace& workspace,
                   const std::int32_t* tokens, std::int64_t count);

// Takes workspace.residual [positions.count, embedding] through a range of layers, whose caches
// `cache` holds. The sequence of operation calls depends on nothing but the arguments.
void forward_layers(ops::Operations& operations, const Network& network, Workspace& workspace,
                    const LayerRange& range, std::span<const ops::CacheLayer> cache,
                    const ops::Positions& positions, const Checkpoint& checkpoint);

// logits [rows, vocabulary] of hidden states [first_row, first_row + rows) of workspace.residual.
void forward_head(ops::Operations& operations, const Network& network, Workspace& workspace,
                  std::int64_t first_row, std::int64_t rows, float* logits);

}  // namespace quantloom::model
