// The operations a transformer needs, declared once. The CPU (cpu/) and CUDA (cuda/) each implement
// them; the forward pass (model/) is written over this interface and knows no device.
//
// Activations are float32, row-major, [tokens, width]. Every pointer is memory of `device()`. An
// implementation carries one stream of work: operations run in the order of the calls; on a GPU
// they return before they have run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "device/device.h"
#include "formats/format.h"
#include "ops/sampling.h"

namespace quantloom::ops {

// exact: activations at 16 bits or more, sums in 32. fast: activations may be quantized to 8 bits.
enum class Precision { exact, fast };

enum class Activation { silu, gelu, gelu_tanh };

enum class CacheType { f16, f32, q8_0 };

// A matrix of `rows` x `columns` weights, each row a whole number of blocks.
struct Weight {
  std::string name;  // tensor name in the file
  formats::Format format = formats::Format::f32;
  std::int64_t rows = 0;
  std::int64_t columns = 0;
  const void* blocks =
      nullptr;  // the rows' GGUF blocks as they stand in the file; null where only planes are kept
  int file = -1;  // descriptor of the file that `blocks` are mapped from, before place(), or -1
  std::uint64_t file_offset = 0;  // of the blocks
  const void* planes = nullptr;   // the same bits repacked for the GPU (kernels/); null on the CPU
  bool looked_up = false;         // embed() reads single rows of it
  bool multiplied = true;         // norm_project() and the like multiply by it
};

// out = x * transpose(weight) + bias, with x [tokens, weight.columns].
struct Projection {
  const Weight* weight = nullptr;
  const float* bias = nullptr;  // [rows], or null
  float* out = nullptr;         // [tokens, rows]
};

// Root-mean-square norm: x / sqrt(mean(x^2) + epsilon) * weight  (Zhang and Sennrich 2019, arXiv
// 1910.07467).
struct Norm {
  const float* weight = nullptr;  // [width]
  float epsilon = 0;
};

// One layer's keys and values of one sequence. Head-major, so that a head's history is contiguous:
//   f16, f32:  keys, values [kv_heads, capacity, head_size]
//   q8_0:      the same shape in int8, with one f16 scale per 32 values in key_scales, value_scales
//              [kv_heads, capacity, head_size / 32]
struct CacheLayer {
  CacheType type = CacheType::f16;
  std::int64_t capacity = 0;  // positions
  int kv_heads = 0;
  int head_size = 0;
  void* keys = nullptr;
  void* values = nullptr;
  void* key_scales = nullptr;
  void* value_scales = nullptr;
};

// Consecutive positions of one sequence's tokens.
struct Positions {
  const std::int32_t* first = nullptr;  // device memory: the position of the first token
  std::int64_t count = 0;               // tokens in this call
  std::int64_t bound = 0;               // host's upper bound of *first + count, to size a launch
};

// Rotary position embedding (Su et al. 2021, arXiv 2104.09864).
struct Rope {
  // [capacity, dimensions / 2, 2]: cosine and sine of each pair's angle at each position, already
  // scaled (base, linear, YaRN, llama-3 factors); computed once in float64.
  const float* table = nullptr;
  int dimensions = 0;        // leading dimensions of a head that rotate; the rest pass
  bool interleaved = false;  // pairs (2i, 2i+1); otherwise (i, i + dimensions / 2)
};

// Optional per-head norm of q and k, RoPE in place, and the write of k and v to the cache.
struct RopeStore {
  float* q = nullptr;  // [tokens, heads, head_size], in place
  float* k = nullptr;  // [tokens, kv_heads, head_size], in place
  const float* v = nullptr;
  int heads = 0;
  Norm q_norm;  // weight [head_size]; null weight: no norm
  Norm k_norm;
  Rope rope;
  Positions positions;
  CacheLayer cache;
};

// Causal softmax(q k^T * scale) v over the cache, which already holds this call's keys and values.
struct Attention {
  const float* q = nullptr;  // [tokens, heads, head_size]
  int heads = 0;             // a multiple of cache.kv_heads (grouped-query attention)
  float scale = 0;
  float soft_cap = 0;       // cap * tanh(score / cap) when above 0
  std::int64_t window = 0;  // a token sees this many last positions, itself included; 0: all
  Positions positions;
  CacheLayer cache;
  float* out = nullptr;  // [tokens, heads, head_size]
};

// residual += (activation(norm(x) gate^T) * (norm(x) up^T)) down^T + bias, where x is the residual.
struct FeedForward {
  const Norm* norm = nullptr;
  const Weight* gate = nullptr;
  const Weight* up = nullptr;
  const Weight* down = nullptr;
  const float* bias = nullptr;  // [down.rows], or null
  Activation activation = Activation::silu;
  float* between = nullptr;   // [tokens, gate.rows], for what is neither read nor kept
  float* residual = nullptr;  // [tokens, down.rows]
};

// The largest sizes that calls will have. After reserve() no operation allocates, but replay() may
// for the recording of a step that it has not seen.
struct Limits {
  std::int64_t tokens = 0;   // per call
  std::int64_t width = 0;    // widest activation row
  std::int64_t context = 0;  // cache capacity
  int heads = 0;
  int head_size = 0;
  std::int64_t vocabulary = 0;
  bool batch_invariant = false;  // set_batch_invariant() will be called
  bool ternary = false;          // there are weights of TQ1_0 or TQ2_0
};

// Memory of one device, freed with its last owner.
using Buffer = std::shared_ptr<void>;

// Told of bytes done and bytes in all; may throw to cancel.
using Progress = std::function<void(std::uint64_t, std::uint64_t)>;

class Operations {
 public:
  virtual ~Operations() = default;

  virtual device::Device device() const = 0;
  virtual Precision precision() const = 0;

  // Errors: out_of_memory naming what was asked and what is free.
  virtual Buffer allocate(std::size_t bytes, const char* what) = 0;
  // For a KV cache, which a GPU zeroes: its kernels read whole tiles, also of rows that no token
  // has written yet, and mask what these give. On the CPU pages that nobody writes take no memory.
  virtual Buffer allocate_cache(std::size_t bytes, const char* what) {
    return allocate(bytes, what);
  }
  virtual void write(void* to, const void* host, std::size_t bytes) = 0;
  // read() waits for the work before it; write() leaves `host` free to change. copy() stays inside
  // the device.
  virtual void read(void* host, const void* from, std::size_t bytes) = 0;
  virtual void copy(void* to, const void* from, std::size_t bytes) = 0;
  virtual void reserve(const Limits& limits) = 0;
  virtual void synchronize() = 0;
  // While on, what a token gets does not depend, to the bit, on how many tokens a call has. Off at
  // first: kernels for few tokens, whose sums run in another order, are faster.
  virtual void set_batch_invariant(bool on) = 0;

  // Memory that the device writes and the host reads without a copy (pinned on a GPU), zeroed.
  virtual Buffer allocate_shared(std::size_t bytes, const char* what) = 0;
  // A ticket for the work called so far; wait() returns when that work has run, later work or not.
  virtual std::uint64_t mark() = 0;
  virtual void wait(std::uint64_t ticket) = 0;
  // Runs `calls`, which only calls operations below. Calls under one key are the same every time,
  // pointers included, so an implementation may record them once and replay the recording.
  virtual void replay(std::uint64_t key, const std::function<void()>& calls) = 0;

  // Brings weights to the device. Each comes with `blocks` in host memory (the mapped file) and
  // leaves with what this device's operations read: on the CPU the same pointer, on a GPU its own
  // `blocks` or `planes`. The buffers own what was allocated. Errors: device naming tensor and type
  // where no kernel serves the type; out_of_memory.
  virtual std::vector<Buffer> place(std::span<Weight* const> weights, const Progress& progress) = 0;

  // For the choice of what goes where: bytes of this device that place() takes for a weight (0
  // where it stays in the mapped file), that reserve() takes, and that are free now.
  virtual std::uint64_t placed_bytes(const Weight& weight) const = 0;
  virtual std::uint64_t reserved_bytes(const Limits& limits) const = 0;
  virtual std::uint64_t available_bytes() const = 0;
  // Why calls within the limits, or products with these weights, are none of this device's; empty
  // where it has them all.
  virtual std::string obstacle(const Limits& /*limits*/,
                               std::span<const Weight* const> /*weights*/) const {
    return {};
  }
  // That a call may have.
  virtual std::int64_t most_tokens() const { return std::numeric_limits<std::int32_t>::max(); }
  // Why replay() would not run these calls, of one token between embed() and sample(), as one
  // kernel; empty where it would. They are only taken down: nothing runs, and none of their pointers
  // is followed.
  virtual std::string step_obstacle(const std::function<void()>& /*calls*/) {
    return "this device has no such kernel";
  }
  // Which kernel multiplies one token by a placed weight, or looks up its rows; `fused`: in a step
  // without such an obstacle.
  virtual std::string kernel_name(const Weight& weight, bool fused) const = 0;

  // out[i] = scale * row tokens[i] of the table; tokens [count] in device memory, checked by the
  // caller.
  virtual void embed(const Weight& table, const std::int32_t* tokens, std::int64_t count,
                     float scale, float* out) = 0;

  // Fused. x [tokens, width].
  virtual void norm_project(const float* x, std::int64_t tokens, const Norm& norm,
                            std::span<const Projection> outputs) = 0;
  virtual void rope_store(const RopeStore& arguments) = 0;
  virtual void attention(const Attention& arguments) = 0;
  virtual void project_add(const float* x, std::int64_t tokens, const Weight& weight,
                           const float* bias, float* residual) = 0;
  // out = activation(norm(x) gate^T) * (norm(x) up^T), [tokens, gate.rows].
  virtual void norm_gate_up(const float* x, std::int64_t tokens, const Norm& norm,
                            const Weight& gate, const Weight& up, Activation activation,
                            float* out) = 0;

  // norm_gate_up() and project_add(), unless a device has a shorter way for so many tokens.
  virtual void feed_forward(const FeedForward& a, std::int64_t tokens) {
    norm_gate_up(a.residual, tokens, *a.norm, *a.gate, *a.up, a.activation, a.between);
    project_add(a.between, tokens, *a.down, a.bias, a.residual);
  }

  // Unfused, for what an architecture does differently.
  virtual void norm(const float* x, std::int64_t rows, std::int64_t width, const Norm& norm,
                    float* out) = 0;
  virtual void project(const float* x, std::int64_t tokens, const Projection& output) = 0;
  virtual void add(const float* a, const float* b, std::int64_t count, float* out) = 0;
  virtual void activate(const float* gate, const float* up, std::int64_t count,
                        Activation activation, float* out) = 0;
  virtual void soft_cap(float* x, std::int64_t count, float cap) = 0;

  // Chooses the token after the call's last one (ops/sampling.h).
  virtual void sample(const Sample& arguments) = 0;
};

}  // namespace quantloom::ops
