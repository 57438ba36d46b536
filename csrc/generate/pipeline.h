// The stages of a model for one sequence: each with its stream of work, activations and part of the
// KV cache. Activations pass from one to the next.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "model/cache.h"
#include "model/forward.h"
#include "model/model.h"

namespace quantloom::generate {

class Pipeline {
 public:
  // Room for `capacity` positions and `chunk` tokens a pass. Errors: out_of_memory, device.
  Pipeline(const model::Model& model, std::int64_t capacity, std::int64_t chunk);
  ~Pipeline();  // waits for what still runs on its memory
  Pipeline(const Pipeline&) = delete;
  Pipeline& operator=(const Pipeline&) = delete;

  // Of the last stage, where tokens, logits and the sampler live.
  ops::Operations& operations() { return *stages_.back()->operations; }
  std::int64_t tokens() const { return stages_.back()->workspace.tokens; }

  // Feeds `tokens` at `positions`, both in memory of the last stage, through all layers. Several
  // stages wait for each other; a single one runs on as operations do.
  void run(const std::int32_t* tokens, const ops::Positions& positions,
           const model::Checkpoint& checkpoint);
  void set_batch_invariant(bool on);

  // logits [rows, vocabulary] of tokens first_row, ... of the last run().
  void head(std::int64_t first_row, std::int64_t rows, float* logits);

 private:
  struct Stage {
    Stage(const model::Model& model, const model::Stage& stage, std::int64_t capacity,
          std::int64_t chunk);
    model::LayerRange layers;
    // In this order: memory is freed before the operations that allocated it.
    std::unique_ptr<ops::Operations> operations;
    model::Workspace workspace;
    model::Cache cache;
  };

  void pass_through_front(const std::int32_t* tokens, const ops::Positions& positions,
                          const model::Checkpoint& checkpoint);
  void run_layers(Stage& stage, const ops::Positions& positions,
                  const model::Checkpoint& checkpoint);

  const model::Model& model_;
  bool batch_invariant_ = false;
  std::vector<std::unique_ptr<Stage>> stages_;
  // Where there are two stages: position and tokens on the first one's device, and on their way.
  ops::Buffer inlet_;
  std::vector<std::int32_t> host_inlet_;
};

}  // namespace quantloom::generate
