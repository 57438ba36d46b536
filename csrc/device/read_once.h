// Reads a tensor and keeps a checksum: what a device's rate of reading is measured with.
#pragma once

#include "device/tensor.h"

namespace quantloom::device {

// Exclusive or of the tensor's 32-bit words, into the one uint32 of `sum` on the same device. The
// tensor is contiguous, begins on 16 bytes and has a multiple of 16. On a GPU it returns before it
// has run. Errors: invalid_argument, device.
void read_once(const Tensor& tensor, const Tensor& sum);

}  // namespace quantloom::device
