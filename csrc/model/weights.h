// A model's weights: every tensor with its shape. Matrices stay in their GGUF blocks; norms and
// biases are float32. All pointers are memory of the device that computes with them.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "loader/model_file.h"
#include "model/architecture.h"
#include "ops/operations.h"

namespace quantloom::model {

struct Layer {
  const float* attention_norm = nullptr;     // [embedding]
  ops::Weight query;                         // [heads * head_size, embedding]
  ops::Weight key;                           // [kv_heads * head_size, embedding]
  ops::Weight value;                         // [kv_heads * head_size, embedding]
  ops::Weight attention_output;              // [embedding, heads * head_size]
  const float* query_bias = nullptr;         // [heads * head_size], or null
  const float* key_bias = nullptr;           // [kv_heads * head_size], or null
  const float* value_bias = nullptr;         // [kv_heads * head_size], or null
  const float* attention_bias = nullptr;     // [embedding], or null
  const float* query_norm = nullptr;         // [head_size], or null
  const float* key_norm = nullptr;           // [head_size], or null
  const float* feed_forward_norm = nullptr;  // [embedding]
  ops::Weight gate;                          // [feed_forward, embedding]
  ops::Weight up;                            // [feed_forward, embedding]
  ops::Weight down;                          // [embedding, feed_forward]
  const float* gate_bias = nullptr;          // [feed_forward], or null
  const float* up_bias = nullptr;            // [feed_forward], or null
  const float* down_bias = nullptr;          // [embedding], or null
  const float* rope_table = nullptr;         // [context, rope_dimensions / 2, 2], of all layers
};

struct Weights {
  ops::Weight token_embedding;  // [vocabulary, embedding]
  std::vector<Layer> layers;
  const float* output_norm = nullptr;   // [embedding]
  ops::Weight head;                     // [vocabulary, embedding]
  bool tied = false;                    // head is token_embedding
  const float* rope_factors = nullptr;  // [rope_dimensions / 2], or null
};

// A matrix of Weights, and the layer that it belongs to: -1 before the first, block_count after the
// last.
struct MatrixBinding {
  ops::Weight* weight = nullptr;
  std::int64_t layer = 0;
};

// A float32 vector in the file that a pointer of Weights shall show.
struct VectorBinding {
  const gguf::TensorInfo* tensor = nullptr;
  const float** field = nullptr;
  std::int64_t layer = 0;
};

// The tensors of a file, matched to the fields of `weights`.
struct Binding {
  Weights weights;
  std::vector<const gguf::TensorInfo*> tensors;  // all that the model reads
  std::vector<MatrixBinding> matrices;           // into weights; a tied head only once
  std::vector<VectorBinding> vectors;            // into weights
};

// Matches the file's tensors with those that the architecture and the hyperparameters call for;
// sets hyperparameters.vocabulary. Reads no tensor data. The matrices' `blocks` point into the map.
// Errors: model naming the tensor that is missing, has another shape or a type that quantloom does
// not serve, or that the architecture has no use for.
std::unique_ptr<Binding> bind_tensors(const loader::ModelFile& file, Description& description);

}  // namespace quantloom::model
