// The scan of a model's weights for NaN and Inf before it is run.
#pragma once

#include <span>

#include "gguf/file.h"
#include "loader/model_file.h"
#include "ops/operations.h"

namespace quantloom::model {

// Scans the tensors on `threads` threads. `progress` is called on the calling thread.
// Errors: gguf naming the tensor and the byte offset of the first such block that was found.
void check_finite(const loader::ModelFile& file, std::span<const gguf::TensorInfo* const> tensors,
                  int threads, const ops::Progress& progress);

}  // namespace quantloom::model
