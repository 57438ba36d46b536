// From a function's text to its instructions.
#pragma once

#include <functional>
#include <optional>
#include <unordered_map>

#include "code.h"
#include "text.h"

namespace quantloom::emulator {

struct Variable {
  std::string_view name;
  std::size_t offset = 0, bytes = 0, alignment = 1;
};

struct Signature {
  std::vector<Variable> parameters, results;  // offsets in the callee's local memory
  std::size_t bytes = 0;
};

// What a function's text may name besides what it declares.
struct Environment {
  const std::unordered_map<std::string_view, std::uint64_t>* globals = nullptr;  // addresses
  std::unordered_map<std::string_view, std::uint32_t> shared;                    // offsets
  std::function<std::pair<FunctionCode*, const Signature*>(std::string_view)> function;
};

// Which register an operand is, until registers have places.
struct RegisterUse {
  std::uint32_t instruction = 0;
  std::uint32_t field = 0;  // of op; or one of the following
  std::uint32_t number = 0;
  bool written = false;
};
inline constexpr std::uint32_t guard_field = 15,
                               first_list_field = 16;  // and of the function's lists

enum class RegisterClass : std::uint8_t { predicate, narrow, wide };
inline constexpr std::uint8_t fixed_register = 0x80;  // set with the frame, never shared

struct Registers {
  std::vector<std::uint8_t> classes;  // of each number: RegisterClass, perhaps with fixed_register
  std::vector<RegisterUse> uses;
  std::vector<std::uint32_t> frame_values;  // numbers of local_constants, in their order
};

// `signature` is null for a kernel, whose parameters are `parameters`.
void decode_function(FunctionCode& code, Cursor body, const Environment& environment,
                     const Signature* signature, const std::vector<Variable>& parameters);

// Gives every register a place, shared with others that are never live at the same time.
void place_registers(FunctionCode& code, const Registers& registers);

}  // namespace quantloom::emulator
