// mbarriers and the copies that count at them.
#pragma once

#include "state.h"

namespace quantloom::emulator {

// Whether the phase of this parity has ended, at an mbarrier in the block's own or another shared
// memory.
bool phase_has_ended(Context& context, std::uint32_t address, std::uint32_t parity, unsigned lane);
// Does the pending copies of the cluster; how many.
std::size_t do_copies(Context& context);

}  // namespace quantloom::emulator
