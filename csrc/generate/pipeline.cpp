#include "generate/pipeline.h"

#include "base/error.h"

namespace quantloom::generate {

Pipeline::Stage::Stage(const model::Model& model, const model::Stage& stage, std::int64_t capacity,
                       std::int64_t chunk)
    : layers(stage.layers),
      operations(model.make_operations(stage, chunk)),
      workspace(*operations, model.network(), chunk),
      cache(*operations, model.hyperparameters(), model.options().cache_type, capacity,
            stage.layers.last - stage.layers.first) {}

Pipeline::Pipeline(const model::Model& model, std::int64_t capacity, std::int64_t chunk)
    : model_(model) {
  for (const model::Stage& stage : model.stages()) {
    stages_.push_back(std::make_unique<Stage>(model, stage, capacity, chunk));
  }
  if (stages_.size() > 1) {
    host_inlet_.resize(static_cast<std::size_t>(chunk) + 1);
    inlet_ = stages_.front()->operations->allocate(host_inlet_.size() * sizeof(std::int32_t),
                                                   "tokens of a pass");
  }
}

Pipeline::~Pipeline() {
  for (const std::unique_ptr<Stage>& stage : stages_) {
    try {
      stage->operations->synchronize();
    } catch (const std::exception&) {  // a device that failed has nothing running
    }
  }
}

void Pipeline::set_batch_invariant(bool on) {
  batch_invariant_ = on;
  for (const std::unique_ptr<Stage>& stage : stages_) stage->operations->set_batch_invariant(on);
}

void Pipeline::run(const std::int32_t* tokens, const ops::Positions& positions,
                   const model::Checkpoint& checkpoint) {
  Stage& last = *stages_.back();
  if (stages_.size() == 1) {
    model::forward_embed(*last.operations, model_.network(), last.workspace, tokens,
                         positions.count);
  } else {
    pass_through_front(tokens, positions, checkpoint);
  }
  run_layers(last, positions, checkpoint);
}

void Pipeline::pass_through_front(const std::int32_t* tokens, const ops::Positions& positions,
                                  const model::Checkpoint& checkpoint) {
  Stage& front = *stages_.front();
  Stage& last = *stages_.back();
  const auto count = static_cast<std::size_t>(positions.count);
  last.operations->read(host_inlet_.data(), positions.first, sizeof(std::int32_t));
  last.operations->read(host_inlet_.data() + 1, tokens, count * sizeof(std::int32_t));
  front.operations->write(inlet_.get(), host_inlet_.data(), (count + 1) * sizeof(std::int32_t));
  const auto* first = static_cast<const std::int32_t*>(inlet_.get());
  const ops::Positions here{.first = first, .count = positions.count, .bound = positions.bound};
  const auto calls = [&](const model::Checkpoint& between) {
    model::forward_embed(*front.operations, model_.network(), front.workspace, first + 1,
                         positions.count);
    run_layers(front, here, between);
  };
  if (positions.count == 1 and not batch_invariant_) {
    front.operations->replay(static_cast<std::uint64_t>(positions.bound), [&] { calls({}); });
  } else {
    calls(checkpoint);
  }
  // The last stage is the CPU, whose memory is the host's.
  const auto floats = count * static_cast<std::size_t>(model_.hyperparameters().embedding_length);
  front.operations->read(last.workspace.residual, front.workspace.residual, floats * sizeof(float));
}

void Pipeline::run_layers(Stage& stage, const ops::Positions& positions,
                          const model::Checkpoint& checkpoint) {
  model::forward_layers(*stage.operations, model_.network(), stage.workspace, stage.layers,
                        stage.cache.layers(), positions, checkpoint);
}

void Pipeline::head(std::int64_t first_row, std::int64_t rows, float* logits) {
  Stage& last = *stages_.back();
  model::forward_head(*last.operations, model_.network(), last.workspace, first_row, rows, logits);
}

}  // namespace quantloom::generate
