// Frames of functions.
#pragma once

#include "state.h"

namespace quantloom::emulator {

// The frame of a call at `call_at` from `parent`; of the kernel where there is no parent.
Frame* enter_frame(Warp& warp, Frame* parent, std::uint32_t call_at, const FunctionCode& function,
                   const void* parameters);

}  // namespace quantloom::emulator
