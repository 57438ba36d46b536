// Which vector instructions the CPU's kernels use. Chosen at run time, in one place.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace quantloom::cpu {

enum class InstructionSet { plain, avx2, avx512, avx512_vnni, amx };

const char* to_string(InstructionSet set);

// What this machine and its operating system allow, in ascending order; plain is always there.
const std::vector<InstructionSet>& available_instruction_sets();

// The set in use: the highest available one, or what the environment variable QUANTLOOM_CPU or
// set_instruction_set() names.
// Errors: invalid_argument where the variable names none, or one that is not available.
InstructionSet instruction_set();

// "auto" for the highest available one. Takes effect for operations made afterwards.
// Errors: invalid_argument as above.
void set_instruction_set(std::string_view name);

}  // namespace quantloom::cpu
