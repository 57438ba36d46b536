// A model that is ready to run: its weights on a device, and what makes sessions for it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "device/device.h"
#include "loader/model_file.h"
#include "model/architecture.h"
#include "model/forward.h"
#include "model/placement.h"
#include "model/weights.h"
#include "ops/operations.h"

namespace quantloom::model {

// Context where the caller names none: the model's own, up to this many tokens, so that a model
// trained for 131,072 does not take tens of GB of cache unasked.
inline constexpr std::int64_t default_context_length = 8192;

// Tokens of a prompt that one pass takes at most, where the caller does not say. On an H200 passes
// of 1,024 cost an 8B model 1 to 5% of the rate of one whole prompt of 8,192, but a 1B model 22%:
// its matrices are too small for so few rows. Passes of 4,096 cost it nothing, and passes of 2,048
// the 8B models less than two such measurements differ by.
constexpr std::int64_t default_pass_tokens(const device::Device& device,
                                           std::int64_t embedding_length) {
  if (device.type == device::DeviceType::cpu) return 512;
  return embedding_length > 4096 ? 1024 : embedding_length > 2048 ? 2048 : 4096;
}

struct LoadOptions {
  device::Device device;
  GpuLayers gpu_layers;  // of `device`, where it is a GPU; the CPU has the rest
  ops::Precision precision = ops::Precision::exact;
  ops::CacheType cache_type = ops::CacheType::f16;
  std::optional<std::int64_t> context_length;  // 1 to the model's own
  bool check_weights = true;                   // scan all scales for NaN and Inf
  bool batch_invariant = false;  // sessions' bits do not depend on chunks or reused prefixes
};

// Bytes done and in all; called often, also without progress; may throw to stop the load, which
// then leaves nothing behind.
using LoadProgress = ops::Progress;

// Where one tensor ended up, for people.
struct PlacedTensor {
  std::string name;
  std::string type;
  std::string device;
  std::string kernel;       // that multiplies one token by it, or looks up its rows; "" for vectors
  std::uint64_t bytes = 0;  // of the device's memory, or of the mapped file
};

class Model {
 public:
  // Errors: model, gguf, device, out_of_memory, invalid_argument.
  static std::shared_ptr<Model> load(std::shared_ptr<const loader::ModelFile> file,
                                     const LoadOptions& options, const LoadProgress& progress);

  const Description& description() const { return description_; }
  const Hyperparameters& hyperparameters() const { return description_.hyperparameters; }
  const loader::ModelFile& file() const { return *file_; }
  Network network() const { return {description_, weights_}; }
  const LoadOptions& options() const { return options_; }
  std::int64_t context_length() const { return context_length_; }
  std::uint64_t weight_bytes() const { return weight_bytes_; }  // of all tensors it reads

  const std::vector<Stage>& stages() const { return stages_; }
  std::int64_t gpu_layers() const;
  // Why a GPU that was to take what fits took nothing, where that is not its free memory.
  const std::string& gpu_obstacle() const { return gpu_obstacle_; }
  std::int64_t most_pass_tokens() const;  // that a session may compute at a time
  // Why a GPU computes the layers of a generated token by several kernels, at first and with a full
  // context; empty where one does, and where there is no GPU.
  const std::string& step_obstacle() const { return step_obstacle_; }
  const std::string& full_step_obstacle() const { return full_step_obstacle_; }
  // Matrices, then vectors, then what quantloom adds (the RoPE tables).
  const std::vector<PlacedTensor>& tensors() const { return tensors_; }

  // Weights of the CPU stay in the mapped file. Errors: io when it has changed since.
  void require_unchanged() const;

  // A stream of work of its own, for one session, with room for `tokens` per pass.
  std::unique_ptr<ops::Operations> make_operations(const Stage& stage, std::int64_t tokens) const;

 private:
  Model() = default;

  ops::Limits limits(std::int64_t tokens) const;
  std::size_t stage_of(std::int64_t layer) const;
  void place_matrices(Binding& binding, const LoadProgress& progress);
  void upload_vectors(Binding& binding);
  void find_step_obstacles(const Binding& binding);
  void list_tensors(const Binding& binding);

  std::shared_ptr<const loader::ModelFile> file_;
  LoadOptions options_;
  Description description_;
  std::int64_t context_length_ = 0;
  std::uint64_t weight_bytes_ = 0;
  std::vector<Stage> stages_;
  std::string gpu_obstacle_;
  std::string step_obstacle_;
  std::string full_step_obstacle_;
  // One for each stage: placed the weights, and outlives their buffers.
  std::vector<std::unique_ptr<ops::Operations>> operations_;
  std::vector<ops::Buffer> buffers_;
  std::vector<PlacedTensor> tensors_;
  Weights weights_;
};

}  // namespace quantloom::model
