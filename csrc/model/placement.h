// Which layers a GPU computes and which the CPU, by the memory that they take.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "device/device.h"
#include "model/forward.h"
#include "model/weights.h"
#include "ops/operations.h"

namespace quantloom::model {

// What one device computes. The first stage looks up the embeddings, the last one has the head and
// samples; only activations pass between them.
struct Stage {
  device::Device device;
  LayerRange layers;
};

// How many layers a GPU shall have.
struct GpuLayers {
  std::optional<std::int64_t> count;  // none: all of them
  bool as_fit = false;                // fewer where fewer fit, instead of an error
};

// What the choice depends on besides the tensors.
struct PlacementSizes {
  ops::CacheType cache_type = ops::CacheType::f16;
  std::int64_t context = 0;
  ops::Limits limits;  // of one session
};

// Bytes of a GPU that its first `layers` layers, and embedding or head where it has them, take with
// one session.
std::uint64_t gpu_bytes(const ops::Operations& gpu, const Binding& binding,
                        const Hyperparameters& h, const PlacementSizes& sizes, std::int64_t layers);

// The stages in order; `gpu` is null where everything runs on the CPU.
// Errors: invalid_argument for a count outside 0 to block_count; out_of_memory when the layers
// wanted do not fit, saying what they need, what is free and how many would.
std::vector<Stage> choose_stages(const ops::Operations* gpu, const Binding& binding,
                                 const Hyperparameters& h, const PlacementSizes& sizes,
                                 const GpuLayers& wanted);

}  // namespace quantloom::model
