#include "model/architecture.h"

#include <array>
#include <cmath>
#include <cstdio>
#include <string>

#include "base/error.h"
#include "base/quote.h"

namespace quantloom::model {
namespace {

using enum Presence;
using ops::Activation;

constexpr std::array table{
    Architecture{.name = "llama",
                 .interleaved_rope = true,
                 .activation = Activation::silu,
                 .qkv_bias = optional,
                 .attention_output_bias = optional,
                 .feed_forward_bias = optional,
                 .qk_norm = absent},
    Architecture{.name = "qwen2",
                 .interleaved_rope = false,
                 .activation = Activation::silu,
                 .qkv_bias = required,
                 .attention_output_bias = absent,
                 .feed_forward_bias = absent,
                 .qk_norm = absent},
    Architecture{.name = "qwen3",
                 .interleaved_rope = false,
                 .activation = Activation::silu,
                 .qkv_bias = absent,
                 .attention_output_bias = absent,
                 .feed_forward_bias = absent,
                 .qk_norm = required},
};

struct IntegerRule {
  const char* key;  // after the architecture's prefix
  std::int64_t Hyperparameters::* field;
  Presence presence;
  std::int64_t low;
  std::int64_t high;
};

struct RealRule {
  const char* key;
  double Hyperparameters::* field;
  Presence presence;
  double low;
  double high;
};

using H = Hyperparameters;

constexpr std::array integer_rules{
    IntegerRule{"context_length", &H::context_length, required, 1, 1 << 24},
    IntegerRule{"embedding_length", &H::embedding_length, required, 1, 1 << 20},
    IntegerRule{"block_count", &H::block_count, required, 1, 4096},
    IntegerRule{"feed_forward_length", &H::feed_forward_length, required, 1, 1 << 22},
    IntegerRule{"attention.head_count", &H::head_count, required, 1, 4096},
    IntegerRule{"attention.head_count_kv", &H::head_count_kv, optional, 1, 4096},
    IntegerRule{"attention.key_length", &H::key_length, optional, 1, 4096},
    IntegerRule{"attention.value_length", &H::value_length, optional, 1, 4096},
    IntegerRule{"attention.sliding_window", &H::sliding_window, optional, 0, 1 << 30},
    IntegerRule{"vocab_size", &H::vocabulary, optional, 1, largest_vocabulary},
    IntegerRule{"rope.dimension_count", &H::rope_dimensions, optional, 2, 4096},
    IntegerRule{"rope.scaling.original_context_length", &H::rope_original_context, optional, 1,
                1 << 24},
};

// rope.scaling.yarn_attn_factor is not read: converters write YaRN's whole magnitude there or a
// factor on it, and llama.cpp computes the magnitude of these architectures without it.
constexpr std::array real_rules{
    RealRule{"attention.layer_norm_rms_epsilon", &H::norm_epsilon, required, 0, 1},
    RealRule{"attention.scale", &H::attention_scale, optional, 1e-6, 1e6},
    RealRule{"attn_logit_softcapping", &H::attention_soft_cap, optional, 0, 1e6},
    RealRule{"final_logit_softcapping", &H::logit_soft_cap, optional, 0, 1e6},
    RealRule{"rope.freq_base", &H::rope_base, optional, 1, 1e12},
    RealRule{"rope.scale_linear", &H::rope_factor, optional, 1e-3, 1e6},  // the older name
    RealRule{"rope.scaling.factor", &H::rope_factor, optional, 1e-3, 1e6},
    RealRule{"rope.scaling.yarn_ext_factor", &H::rope_extrapolation, optional, 0, 1},
    RealRule{"rope.scaling.attn_factor", &H::rope_attention_factor, optional, 1e-3, 1e3},
    RealRule{"rope.scaling.yarn_beta_fast", &H::rope_beta_fast, optional, 1e-3, 1e6},
    RealRule{"rope.scaling.yarn_beta_slow", &H::rope_beta_slow, optional, 1e-3, 1e6},
};

std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", value);
  return text;
}

[[noreturn]] void fail(const std::string& key, const std::string& why) {
  throw Error(ErrorKind::model, "metadata key '" + key + "': " + why, key);
}

const Architecture& find_architecture(const gguf::File& file) {
  const auto name = file.require<std::string_view>("general.architecture");
  std::string known;
  for (const Architecture& row : table) {
    if (name == row.name) return row;
    known += (known.empty() ? "" : ", ") + std::string(row.name);
  }
  throw Error(ErrorKind::model,
              "architecture " + in_quotes(name) + " is not supported; supported are " + known,
              "general.architecture");
}

void read_real(const gguf::File& file, const std::string& prefix, const RealRule& rule, H& h) {
  const std::string key = prefix + rule.key;
  const auto found =
      rule.presence == required ? std::optional(file.require<double>(key)) : file.find<double>(key);
  if (not found) return;
  if (not(*found >= rule.low and *found <= rule.high)) {
    fail(key, number(*found) + " is outside " + number(rule.low) + " to " + number(rule.high));
  }
  h.*rule.field = *found;
}

void read_integer(const gguf::File& file, const std::string& prefix, const IntegerRule& rule,
                  H& h) {
  const std::string key = prefix + rule.key;
  const auto found = rule.presence == required
                         ? std::optional(file.require<std::int64_t>(key, rule.low, rule.high))
                         : file.find<std::int64_t>(key, rule.low, rule.high);
  if (found) h.*rule.field = *found;
}

// A factor without a type is linear: files older than the type key hold such.
RopeScaling read_rope_scaling(const gguf::File& file, const std::string& prefix) {
  const std::string key = prefix + "rope.scaling.type";
  const auto type = file.find<std::string_view>(key);
  if (type and *type == "none") return RopeScaling::none;
  if (not type or *type == "linear") return RopeScaling::linear;
  if (*type == "yarn") return RopeScaling::yarn;
  fail(key, in_quotes(*type) + " is not supported; supported are none, linear, yarn");
}

// Defaults and conditions that tie several keys together.
void complete(const gguf::File& file, const std::string& prefix, H& h) {
  if (h.head_count_kv == 0) h.head_count_kv = h.head_count;
  if (h.head_count % h.head_count_kv != 0) {
    fail(prefix + "attention.head_count_kv", std::to_string(h.head_count_kv) +
                                                 " does not divide attention.head_count, " +
                                                 std::to_string(h.head_count));
  }
  if (h.key_length == 0) {
    if (h.embedding_length % h.head_count != 0) {
      fail(prefix + "embedding_length", std::to_string(h.embedding_length) +
                                            " is not divisible by attention.head_count, " +
                                            std::to_string(h.head_count));
    }
    h.key_length = h.embedding_length / h.head_count;
  }
  if (h.value_length == 0) h.value_length = h.key_length;
  if (h.value_length != h.key_length) {
    fail(prefix + "attention.value_length", std::to_string(h.value_length) +
                                                " differs from the key length, " +
                                                std::to_string(h.key_length));
  }
  if (h.attention_scale == 0) {
    h.attention_scale = 1 / std::sqrt(static_cast<double>(h.key_length));
  }
  if (h.rope_dimensions == 0) h.rope_dimensions = h.key_length;
  if (h.rope_dimensions > h.key_length or h.rope_dimensions % 2 != 0) {
    fail(prefix + "rope.dimension_count", std::to_string(h.rope_dimensions) +
                                              " is not an even number up to the head size, " +
                                              std::to_string(h.key_length));
  }
  if (h.rope_base == 0) h.rope_base = 10000;
  if (h.rope_original_context == 0) h.rope_original_context = h.context_length;
  if (const auto causal = file.find<bool>(prefix + "attention.causal"); causal and not *causal) {
    fail(prefix + "attention.causal", "models that look ahead do not generate and are not run");
  }
}

}  // namespace

Description describe(const gguf::File& file) {
  Description description{.architecture = &find_architecture(file), .hyperparameters = {}};
  const std::string prefix = std::string(description.architecture->name) + ".";
  H& h = description.hyperparameters;
  if (file.value(prefix + "expert_count") != nullptr and
      file.require<std::int64_t>(prefix + "expert_count") > 0) {
    fail(prefix + "expert_count", "mixture-of-experts models (such as Mixtral) are not supported");
  }
  for (const IntegerRule& rule : integer_rules) read_integer(file, prefix, rule, h);
  for (const RealRule& rule : real_rules) read_real(file, prefix, rule, h);
  h.rope_scaling = read_rope_scaling(file, prefix);
  complete(file, prefix, h);
  return description;
}

}  // namespace quantloom::model
