#include "model/weights.h"

#include <array>
#include <string>
#include <unordered_set>

#include "base/checked.h"
#include "base/error.h"
#include "base/quote.h"
#include "formats/types.h"

namespace quantloom::model {
namespace {

using enum Presence;

// The lengths that tensors have, as expressions over the hyperparameters.
enum class Length { embedding, query, key_value, head, feed_forward, vocabulary, rope_pairs };

std::int64_t evaluate(Length length, const Hyperparameters& h) {
  switch (length) {
    case Length::embedding:
      return h.embedding_length;
    case Length::query:
      return h.head_count * h.key_length;
    case Length::key_value:
      return h.head_count_kv * h.key_length;
    case Length::head:
      return h.key_length;
    case Length::feed_forward:
      return h.feed_forward_length;
    case Length::vocabulary:
      return h.vocabulary;
    case Length::rope_pairs:
      return h.rope_dimensions / 2;
  }
  throw Error(ErrorKind::model, "a tensor length without an expression");
}

// What makes a tensor needed: always, or as the architecture's row says.
using Part = Presence Architecture::*;

template <typename Owner>
struct MatrixRule {
  const char* name;
  Length rows;
  Length columns;
  ops::Weight Owner::* field;
};

template <typename Owner>
struct VectorRule {
  const char* name;
  Length length;
  const float* Owner::* field;
  Part part = nullptr;  // null: required
};

using enum Length;

// Names after "blk.<layer>."
constexpr std::array layer_matrices{
    MatrixRule<Layer>{"attn_q.weight", query, embedding, &Layer::query},
    MatrixRule<Layer>{"attn_k.weight", key_value, embedding, &Layer::key},
    MatrixRule<Layer>{"attn_v.weight", key_value, embedding, &Layer::value},
    MatrixRule<Layer>{"attn_output.weight", embedding, query, &Layer::attention_output},
    MatrixRule<Layer>{"ffn_gate.weight", feed_forward, embedding, &Layer::gate},
    MatrixRule<Layer>{"ffn_up.weight", feed_forward, embedding, &Layer::up},
    MatrixRule<Layer>{"ffn_down.weight", embedding, feed_forward, &Layer::down},
};

using A = Architecture;

constexpr std::array layer_vectors{
    VectorRule<Layer>{"attn_norm.weight", embedding, &Layer::attention_norm},
    VectorRule<Layer>{"ffn_norm.weight", embedding, &Layer::feed_forward_norm},
    VectorRule<Layer>{"attn_q.bias", query, &Layer::query_bias, &A::qkv_bias},
    VectorRule<Layer>{"attn_k.bias", key_value, &Layer::key_bias, &A::qkv_bias},
    VectorRule<Layer>{"attn_v.bias", key_value, &Layer::value_bias, &A::qkv_bias},
    VectorRule<Layer>{"attn_output.bias", embedding, &Layer::attention_bias,
                      &A::attention_output_bias},
    VectorRule<Layer>{"attn_q_norm.weight", head, &Layer::query_norm, &A::qk_norm},
    VectorRule<Layer>{"attn_k_norm.weight", head, &Layer::key_norm, &A::qk_norm},
    VectorRule<Layer>{"ffn_gate.bias", feed_forward, &Layer::gate_bias, &A::feed_forward_bias},
    VectorRule<Layer>{"ffn_up.bias", feed_forward, &Layer::up_bias, &A::feed_forward_bias},
    VectorRule<Layer>{"ffn_down.bias", embedding, &Layer::down_bias, &A::feed_forward_bias},
};

constexpr MatrixRule<Weights> token_embedding_rule{"token_embd.weight", vocabulary, embedding,
                                                   &Weights::token_embedding};
constexpr MatrixRule<Weights> head_rule{"output.weight", vocabulary, embedding, &Weights::head};
constexpr VectorRule<Weights> output_norm_rule{"output_norm.weight", embedding,
                                               &Weights::output_norm};
constexpr VectorRule<Weights> rope_factors_rule{"rope_freqs.weight", rope_pairs,
                                                &Weights::rope_factors};

std::string shape_text(const std::vector<std::int64_t>& dimensions) {
  std::string text;
  for (const std::int64_t dimension : dimensions) {
    text += (text.empty() ? "" : " x ") + std::to_string(dimension);
  }
  return text;
}

class Binder {
 public:
  Binder(const loader::ModelFile& file, const Description& description, Binding& binding)
      : file_(file), description_(description), binding_(binding) {}

  template <typename Owner>
  void matrix(const std::string& prefix, const MatrixRule<Owner>& rule, Owner& owner,
              std::int64_t layer) {
    const gguf::TensorInfo& tensor =
        take(prefix + rule.name, {length(rule.columns), length(rule.rows)});
    require_aligned(tensor);
    ops::Weight& weight = owner.*rule.field;
    weight = {.name = tensor.name,
              .format = static_cast<formats::Format>(tensor.type->id),
              .rows = narrow_to_int32(length(rule.rows), tensor.name + " rows"),
              .columns = narrow_to_int32(length(rule.columns), tensor.name + " columns"),
              .blocks = file_.tensor_bytes(tensor).data(),
              .file = file_.shards()[tensor.shard].descriptor(),
              .file_offset = tensor.offset};
    binding_.matrices.push_back({&weight, layer});
  }

  template <typename Owner>
  void vector(const std::string& prefix, const VectorRule<Owner>& rule, Owner& owner,
              std::int64_t layer) {
    const std::string name = prefix + rule.name;
    const Presence presence =
        rule.part == nullptr ? required : description_.architecture->*rule.part;
    if (presence == absent) return;
    if (presence == optional and not has(name)) return;
    const gguf::TensorInfo& tensor = take(name, {length(rule.length)});
    binding_.vectors.push_back({&tensor, &(owner.*rule.field), layer});
  }

  bool has(const std::string& name) const { return file_.file().tensor(name) != nullptr; }

  void require_all_taken() const {
    for (const gguf::TensorInfo& tensor : file_.file().tensors()) {
      if (taken_.contains(&tensor)) continue;
      throw Error(ErrorKind::model,
                  "tensor " + in_quotes(tensor.name) + " is not part of a " +
                      description_.architecture->name +
                      " model as quantloom computes it; leaving it out would give wrong answers",
                  shortened(tensor.name));
    }
  }

 private:
  std::int64_t length(Length length) const {
    return evaluate(length, description_.hyperparameters);
  }

  // Only a file whose general.alignment is below the format's own 8 can break this.
  static void require_aligned(const gguf::TensorInfo& tensor) {
    const std::uint32_t alignment = formats::block_alignment(*tensor.type);
    if (tensor.offset % alignment == 0) return;
    throw Error(ErrorKind::model,
                "tensor '" + tensor.name + "' begins at byte " + std::to_string(tensor.offset) +
                    "; " + tensor.type->name + " is computed with where it lies, which must be a " +
                    "multiple of " + std::to_string(alignment),
                tensor.name, tensor.offset, alignment);
  }

  const gguf::TensorInfo& take(const std::string& name, const std::vector<std::int64_t>& shape) {
    const gguf::TensorInfo& tensor = file_.file().require_tensor(name);
    if (tensor.dimensions != shape) {
      throw Error(ErrorKind::model,
                  "tensor '" + name + "' has shape " + shape_text(tensor.dimensions) +
                      "; the hyperparameters call for " + shape_text(shape),
                  name);
    }
    if (tensor.type->state != formats::TypeState::served) {
      throw Error(ErrorKind::model,
                  "tensor '" + name + "' has type " + tensor.type->name +
                      ", which quantloom lists but cannot compute with",
                  name);
    }
    taken_.insert(&tensor);
    binding_.tensors.push_back(&tensor);
    return tensor;
  }

  const loader::ModelFile& file_;
  const Description& description_;
  Binding& binding_;
  std::unordered_set<const gguf::TensorInfo*> taken_;
};

// The number of tokens, which the file states up to three times.
std::int64_t vocabulary_of(const gguf::File& file, const Architecture& architecture,
                           std::int64_t stated) {
  const gguf::TensorInfo& table = file.require_tensor(token_embedding_rule.name);
  const std::int64_t rows = table.rows();
  const auto check = [&](std::int64_t count, const std::string& source) {
    if (count == rows) return;
    throw Error(ErrorKind::model,
                "tensor '" + table.name + "' has " + std::to_string(rows) + " rows, but " + source +
                    " says " + std::to_string(count) + " tokens",
                table.name);
  };
  if (rows < 1 or rows > largest_vocabulary) {
    throw Error(ErrorKind::model,
                "tensor '" + table.name + "' has " + std::to_string(rows) + " rows, outside 1 to " +
                    std::to_string(largest_vocabulary),
                table.name, std::nullopt, largest_vocabulary);
  }
  if (stated != 0) check(stated, std::string("'") + architecture.name + ".vocab_size'");
  if (const auto tokens = file.find<gguf::Array>("tokenizer.ggml.tokens")) {
    check(static_cast<std::int64_t>(tokens->size()), "'tokenizer.ggml.tokens'");
  }
  return rows;
}

}  // namespace

std::unique_ptr<Binding> bind_tensors(const loader::ModelFile& file, Description& description) {
  Hyperparameters& h = description.hyperparameters;
  h.vocabulary = vocabulary_of(file.file(), *description.architecture, h.vocabulary);

  auto binding = std::make_unique<Binding>();
  Weights& weights = binding->weights;
  Binder binder(file, description, *binding);
  binder.matrix("", token_embedding_rule, weights, -1);
  weights.layers.resize(static_cast<std::size_t>(h.block_count));
  for (std::size_t i = 0; i < weights.layers.size(); ++i) {
    const std::string prefix = "blk." + std::to_string(i) + ".";
    const auto layer = static_cast<std::int64_t>(i);
    for (const auto& rule : layer_matrices) binder.matrix(prefix, rule, weights.layers[i], layer);
    for (const auto& rule : layer_vectors) binder.vector(prefix, rule, weights.layers[i], layer);
  }
  binder.vector("", output_norm_rule, weights, h.block_count);
  weights.tied = not binder.has(head_rule.name);
  weights.token_embedding.looked_up = true;
  weights.token_embedding.multiplied = weights.tied;
  if (not weights.tied) binder.matrix("", head_rule, weights, h.block_count);
  if (binder.has(rope_factors_rule.name)) binder.vector("", rope_factors_rule, weights, -1);
  binder.require_all_taken();
  return binding;
}

}  // namespace quantloom::model
