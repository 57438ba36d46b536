// Kernels of a transformer's operations besides the matrix products: norms, rotary embedding with
// the cache write, elementwise operations and attention. Raw device pointers, sizes and a stream;
// activations are float32, row-major. Each call returns the launch's status; nothing here allocates
// or synchronizes.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "device/activation.h"

namespace quantloom::kernels {

constexpr int largest_head = 512;
constexpr int most_pass_tokens = 65535;  // of a call; what a grid's second dimension has room for

enum class CacheType { f16, f32, q8_0 };

// One layer's keys and values, head-major [kv_heads, capacity, head_size]; q8_0 is int8 with one
// half scale per 32 values in key_scales, value_scales [kv_heads, capacity, head_size / 32].
struct Cache {
  CacheType type;
  std::int64_t capacity;
  int kv_heads;
  int head_size;
  void* keys;
  void* values;
  void* key_scales;
  void* value_scales;
  bool operator==(const Cache&) const = default;
};

// out = x / sqrt(mean(x^2) + epsilon) * weight over each row (arXiv 1910.07467).
struct RmsNorm {
  const float* x;       // [rows, width]
  const float* weight;  // [width]
  float epsilon;
  int rows;
  int width;
  float* out;  // [rows, width]; may be x
};
cudaError_t rms_norm(const RmsNorm& arguments, cudaStream_t stream);

// Per-head norm of q and k where a weight is given, rotation in place (arXiv 2104.09864), cache
// write of k and v.
struct RopeStore {
  float* q;        // [tokens, heads, head_size]
  float* k;        // [tokens, kv_heads, head_size]
  const float* v;  // [tokens, kv_heads, head_size]
  int tokens;
  int heads;
  const float* q_norm;  // [head_size] or null
  const float* k_norm;  // [head_size] or null
  float q_epsilon;
  float k_epsilon;
  const float* table;  // [capacity, dimensions / 2, 2]: cosine, sine
  int dimensions;
  bool interleaved;
  const std::int32_t* first;  // position of token 0, in device memory
  Cache cache;
  bool operator==(const RopeStore&) const = default;
};
cudaError_t rope_store(const RopeStore& arguments, cudaStream_t stream);

cudaError_t add(const float* a, const float* b, std::int64_t count, float* out,
                cudaStream_t stream);
// out = activation(gate) * up; up may be null for the activation alone.
cudaError_t activate(const float* gate, const float* up, std::int64_t count, Activation activation,
                     float* out, cudaStream_t stream);
// x = cap * tanh(x / cap), in place.
cudaError_t soft_cap(float* x, std::int64_t count, float cap, cudaStream_t stream);

// high = x rounded to the 11 bits of a half, rest = x - high, exactly; high is x where that is not
// finite.
cudaError_t split_bits(const float* x, std::int64_t count, float* high, float* rest,
                       cudaStream_t stream);

// Causal softmax(q k^T * scale) v over the cache, which already holds the keys and values of these
// tokens.
struct Attention {
  const float* q;  // [tokens, heads, head_size]
  float* out;      // [tokens, heads, head_size]
  int tokens;
  int heads;
  float scale;
  float soft_cap;             // cap * tanh(score / cap) where above 0
  std::int64_t window;        // last positions that a token sees, itself included; 0: all
  const std::int32_t* first;  // position of token 0, in device memory
  std::int64_t bound;         // upper bound of first + tokens
  Cache cache;
  void* workspace;  // attention_workspace_bytes() of device memory, for the partial sums of a split
                    // cache
  bool invariant = false;  // a token's bits do not depend on how many there are: the kernels of
                           // many tokens for any number
  bool operator==(const Attention&) const = default;
};
// Bytes of workspace that any call with at most these sizes needs.
std::int64_t attention_workspace_bytes(int head_size);
cudaError_t attention(const Attention& arguments, cudaStream_t stream);

}  // namespace quantloom::kernels
