#include "model/placement.h"

#include <string>

#include "base/error.h"
#include "model/cache.h"

namespace quantloom::model {
namespace {

// For recorded steps, the upload's buffers and what the driver takes for itself.
constexpr std::uint64_t margin = std::uint64_t{192} << 20;

std::uint64_t tensor_bytes(const ops::Operations& gpu, const Binding& binding,
                           const Hyperparameters& h, std::int64_t layers) {
  const bool all = layers == h.block_count;
  const auto here = [&](std::int64_t layer) { return layer < layers or all; };
  std::uint64_t bytes = 0;
  for (const MatrixBinding& matrix : binding.matrices) {
    if (not here(matrix.layer)) continue;
    ops::Weight weight = *matrix.weight;
    if (weight.looked_up) weight.multiplied = binding.weights.tied and all;
    bytes += gpu.placed_bytes(weight);
  }
  for (const VectorBinding& vector : binding.vectors) {
    if (here(vector.layer)) bytes += (vector.tensor->elements * sizeof(float) + 255) / 256 * 256;
  }
  return bytes;
}

std::uint64_t session_bytes(const ops::Operations& gpu, const Hyperparameters& h,
                            const PlacementSizes& sizes, std::int64_t layers) {
  const std::int64_t activations =
      sizes.limits.tokens * (h.embedding_length + 2 * h.head_count * h.key_length +
                             2 * h.head_count_kv * h.key_length + h.feed_forward_length);
  return gpu.reserved_bytes(sizes.limits) +
         static_cast<std::uint64_t>(activations + h.vocabulary) * sizeof(float) +
         Cache::bytes_needed(h, sizes.cache_type, sizes.context, layers);
}

std::string bytes_text(std::uint64_t bytes) {
  const bool small = bytes < 1'000'000'000;
  const std::uint64_t hundredth = small ? 10'000 : 10'000'000;
  std::string text = std::to_string((bytes + hundredth / 2) / hundredth);
  while (text.size() < 3) text.insert(0, "0");
  return text.insert(text.size() - 2, ".") + (small ? " MB" : " GB");
}

}  // namespace

std::uint64_t gpu_bytes(const ops::Operations& gpu, const Binding& binding,
                        const Hyperparameters& h, const PlacementSizes& sizes,
                        std::int64_t layers) {
  if (layers == 0) return 0;
  const auto rope = static_cast<std::uint64_t>(sizes.context * h.rope_dimensions) * sizeof(float);
  return tensor_bytes(gpu, binding, h, layers) + rope + session_bytes(gpu, h, sizes, layers) +
         margin;
}

std::vector<Stage> choose_stages(const ops::Operations* gpu, const Binding& binding,
                                 const Hyperparameters& h, const PlacementSizes& sizes,
                                 const GpuLayers& wanted) {
  const std::int64_t all = h.block_count;
  if (wanted.count and (*wanted.count < 0 or *wanted.count > all)) {
    throw Error(ErrorKind::invalid_argument,
                "gpu_layers is " + std::to_string(*wanted.count) + ", outside 0 to " +
                    std::to_string(all) + ", the layers of this model",
                "gpu_layers", std::nullopt, static_cast<std::uint64_t>(all));
  }
  const Stage cpu{.device = {}, .layers = {0, all}};
  if (gpu == nullptr) {
    if (wanted.count.value_or(0) == 0) return {cpu};
    throw Error(ErrorKind::invalid_argument,
                "gpu_layers is " + std::to_string(*wanted.count) + ", but the device is 'cpu'",
                "gpu_layers");
  }
  const std::int64_t asked = wanted.count.value_or(all);
  const std::uint64_t free = gpu->available_bytes();
  std::int64_t layers = asked;
  while (layers > 0 and gpu_bytes(*gpu, binding, h, sizes, layers) > free) --layers;
  if (layers < asked and not wanted.as_fit) {
    throw Error(ErrorKind::out_of_memory,
                std::to_string(asked) + " of " + std::to_string(all) +
                    " layers with one session of " + std::to_string(sizes.context) +
                    " tokens need " + bytes_text(gpu_bytes(*gpu, binding, h, sizes, asked)) +
                    " on " + device::to_string(gpu->device()) + ", and " + bytes_text(free) +
                    " are free; gpu_layers=" + std::to_string(layers) + " fits",
                "gpu_layers", std::nullopt, static_cast<std::uint64_t>(layers));
  }
  if (layers == 0) return {cpu};
  const Stage front{.device = gpu->device(), .layers = {0, layers}};
  if (layers == all) return {front};
  return {front, {.device = {}, .layers = {layers, all}}};
}

}  // namespace quantloom::model
