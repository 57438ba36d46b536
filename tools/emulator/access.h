// Loads, stores and atomic operations: the decoder asks for the handler of a space and a type.
#pragma once

#include <string_view>

#include "code.h"

namespace quantloom::emulator {

enum class Space { generic, global, shared, local, kernel_parameter };

// Operands of a load: lists hold the destinations, op[1] the address, immediate what is added to
// it. Of a store: op[0] the address, lists the sources. Null where there is no such type.
Handler load_handler(Space space, std::string_view type, bool wide_address, bool ordered);
Handler store_handler(Space space, std::string_view type, bool wide_address, bool ordered);
// op[0] the old value or no_operand, op[1] the address, op[2] and op[3] the values.
Handler atomic_handler(Space space, std::string_view operation, std::string_view type,
                       bool wide_address);
bool is_wide_type(std::string_view type);  // takes a 64-bit slot

}  // namespace quantloom::emulator
