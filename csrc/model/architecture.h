// What quantloom knows of each model architecture: a row in a table, and the ranges of the
// hyperparameters that a file gives for it. Key names: the GGUF specification and gguf-py's
// constants.
#pragma once

#include <cstdint>

#include "gguf/file.h"
#include "ops/operations.h"

namespace quantloom::model {

// Token ids pass through 32-bit kernels; the largest vocabularies in use are near 2^18.
inline constexpr std::int64_t largest_vocabulary = 1 << 24;

enum class Presence { absent, optional, required };

struct Architecture {
  const char* name;  // general.architecture, and the prefix of its keys
  // Converters permute the rows of llama's Q and K so that a rotated pair stands side by side.
  bool interleaved_rope;
  ops::Activation activation;
  Presence qkv_bias;
  Presence attention_output_bias;
  Presence feed_forward_bias;
  Presence qk_norm;  // RMS norm of each head of q and k before RoPE
};

enum class RopeScaling { none, linear, yarn };

struct Hyperparameters {
  std::int64_t context_length = 0;  // positions the model was trained for
  std::int64_t embedding_length = 0;
  std::int64_t block_count = 0;
  std::int64_t feed_forward_length = 0;
  std::int64_t head_count = 0;
  std::int64_t head_count_kv = 0;
  std::int64_t key_length = 0;      // size of a head
  std::int64_t value_length = 0;    // equal to key_length
  std::int64_t sliding_window = 0;  // 0: attention sees everything
  std::int64_t vocabulary = 0;
  double norm_epsilon = 0;
  double attention_scale = 0;     // of q k^T; 1 / sqrt(key_length) where the file gives none
  double attention_soft_cap = 0;  // 0: none
  double logit_soft_cap = 0;      // 0: none

  RopeScaling rope_scaling = RopeScaling::none;
  std::int64_t rope_dimensions = 0;
  std::int64_t rope_original_context = 0;
  double rope_base = 0;
  double rope_factor = 1;            // linear and YaRN: positions are divided by this
  double rope_extrapolation = 1;     // YaRN's weight of the unscaled fast dimensions
  double rope_attention_factor = 1;  // multiplies cosine and sine
  double rope_beta_fast = 32;
  double rope_beta_slow = 1;
};

struct Description {
  const Architecture* architecture = nullptr;
  Hyperparameters hyperparameters;
};

// Reads and checks architecture and hyperparameters. `file` may have no tensors.
// Errors: model naming the key and its range; an architecture that is not in the table is named
// with the list of those that are.
Description describe(const gguf::File& file);

}  // namespace quantloom::model
