#include "cpu/workspace.h"

#include "device/memory.h"

namespace quantloom::cpu {

void* Scratch::reserve(std::size_t bytes) {
  if (bytes > bytes_) {
    memory_.reset();
    bytes_ = 0;
    memory_ = device::allocate({}, bytes, what_);
    bytes_ = bytes;
  }
  return memory_.get();
}

Activations ActivationMemory::view(Form form, ops::Precision precision, const float* values,
                                   std::int64_t tokens, std::int64_t columns) {
  Activations view;
  view.tokens = tokens;
  view.counted = tokens;
  view.columns = columns;
  view.values = values;
  if (form == Form::values) return view;
  const bool exact = precision == ops::Precision::exact;
  if (form == Form::tiles) {
    const std::int64_t tiles =
        ((tokens + tile_tokens - 1) / tile_tokens) * ((columns + tile_columns - 1) / tile_columns);
    view.tile_plane = tiles * tile_tokens * tile_columns;
    view.tiles = tiles_.get<std::uint16_t>(view.tile_plane * (exact ? 2 : 1));
    return view;
  }
  const std::int64_t padded = (columns + span - 1) / span * span;
  view.groups = padded / sum_group;
  // Rows a power of two apart would fall into the same sets of the first-level cache.
  view.stride = padded + 64;
  view.scales = scales_.get<float>(tokens * view.groups);
  view.sums = sums_.get<float>(tokens * view.groups);
  view.pair_sums = pair_sums_.get<float>(tokens * view.groups);
  view.biases = biases_.get<std::int32_t>(tokens * view.groups);
  view.pair_biases = pair_biases_.get<std::int32_t>(tokens * view.groups);
  if (form == Form::words) {
    view.words = words_.get<std::int16_t>(tokens * view.stride);
  } else {
    view.high = high_.get<std::int8_t>(tokens * view.stride);
    if (exact) view.low = low_.get<std::int8_t>(tokens * view.stride);
  }
  return view;
}

}  // namespace quantloom::cpu
