// The instructions whose spelling alone decides the handler. Those of many independent modifiers
// are decoded in decode_*.cpp.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>

#include "code.h"

namespace quantloom::emulator {

// Operands, one letter each, in the order of the text: W X P a 32-bit, 64-bit or predicate
// destination, Q a second predicate destination after a bar, which may be missing; w x p sources; i
// an integer constant; ? before a source: it may be missing.
struct Form {
  Handler handler = nullptr;
  std::string operands;
  Kind kind = Kind::plain;
  std::uint8_t mode = 0;
  std::uint8_t meet_operand = 0;
};

using Forms = std::unordered_map<std::string, Form>;

void add_integer_forms(Forms& forms);
void add_float_forms(Forms& forms);
void add_half_forms(Forms& forms);
void add_bit_forms(Forms& forms);
void add_convert_forms(Forms& forms);
void add_warp_forms(Forms& forms);
void add_control_forms(Forms& forms);
void add_async_forms(Forms& forms);
void add_matrix_forms(Forms& forms);
void add_warpgroup_forms(Forms& forms);

const Form* find_form(std::string_view opcode);

}  // namespace quantloom::emulator
