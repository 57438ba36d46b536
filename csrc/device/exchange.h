// Tensors to and from other array libraries without a copy, by DLPack.
#pragma once

#include <cstdint>
#include <vector>

#include "device/dlpack.h"
#include "device/tensor.h"

namespace quantloom::device {

// The stream that a consumer names in `__dlpack__(stream=...)`: 1 the legacy default stream, 2 the
// per-thread one, above that a handle. Errors: invalid_argument for 0, which the protocol leaves
// ambiguous, and below.
Stream stream_from_protocol(std::int64_t stream);
std::int64_t stream_to_protocol(Stream stream);

// Work that the consumer puts on `consumer` waits until the tensor is written, and its memory is
// reused only after the device has been waited for.
void hand_out(const Tensor& tensor, Stream consumer);

// As hand_out, for a consumer that said it needs no waiting.
void hand_out_unordered(const Tensor& tensor);

// The bytes from the lowest to past the highest that an array reaches, from its element [0, ..., 0]
// on; none where it has no elements. Strides are in bytes. Errors: invalid_argument for a negative
// dimension and for what no memory is large enough for.
struct Reach {
  std::int64_t low = 0;  // 0 or below
  std::int64_t high = 0;
};
Reach reach_of(const std::vector<std::int64_t>& shape, const std::vector<std::int64_t>& strides,
               std::int64_t element_bytes);

// The caller passes these on; their deleter lets go of the tensor. Errors: invalid_argument for
// blocks, which DLPack has no type for.
dlpack::Managed* export_plain(const Tensor& tensor);
dlpack::ManagedVersioned* export_versioned(const Tensor& tensor, bool copied);

// Takes over `managed`: its deleter runs with the last tensor that views it, after this process's
// work on it is done, and at once where an Error is thrown. Errors: invalid_argument for a device
// or a type that quantloom has not; device.
Tensor import_plain(dlpack::Managed* managed);
Tensor import_versioned(dlpack::ManagedVersioned* managed);

}  // namespace quantloom::device
