// Copies of the copy engine and of cp.async, done when somebody waits for them.
#pragma once

#include "async.h"
#include "forms.h"

namespace quantloom::emulator {

void do_copies_at(Context& context, std::byte* barrier);
void complete_bytes(Context& context, std::byte* barrier, std::uint32_t bytes);
void add_mbarrier_forms(Forms& forms);

}  // namespace quantloom::emulator
