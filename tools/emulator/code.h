// A module's functions as the interpreter runs them.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "machine.h"

namespace quantloom::emulator {

struct Context;
struct Instruction;
using Handler = void (*)(Context&, const Instruction&, std::uint32_t mask);

// What the warp's loop does besides calling the handler.
enum class Kind : std::uint8_t {
  plain,
  branch,
  indexed_branch,
  call,
  leave,  // ret
  exit,
  meet,      // waits for the lanes of the member mask in op[meet_operand], then the handler
  converge,  // waits for all live lanes of the warp, then the handler
  block_barrier,
  block_arrive,
  cluster_arrive,
  cluster_wait,
  mbarrier_wait,  // try_wait: the handler sets the predicate, and lanes that failed are parked
  yield,          // the handler, then the slice ends
};

// Mode of Kind::meet: its lanes may come from different instructions.
inline constexpr std::uint8_t meets_anywhere = 1;

inline constexpr std::uint16_t no_guard = 0xffff;
inline constexpr std::uint32_t no_operand = 0xffffffffu;
inline constexpr int operand_count = 6;

// Operands are offsets of 32 lanes' values: even ones in the frame's registers, odd ones (less one)
// in the function's constants. Predicates are indexes; constant ones are 0 (false) and 1 (true).
struct Instruction {
  Handler handler = nullptr;
  std::array<std::uint32_t, operand_count> op{no_operand, no_operand, no_operand,
                                              no_operand, no_operand, no_operand};
  std::int64_t immediate = 0;  // displacement, shift, count, bits of a mode
  std::uint32_t target =
      0;                   // branch: instruction; call: index into calls; else as the handler likes
  std::uint32_t list = 0;  // first of this instruction's entries of FunctionCode::lists
  std::uint16_t list_size = 0;
  std::uint16_t guard = no_guard;
  bool guard_negated = false;
  Kind kind = Kind::plain;
  std::uint8_t meet_operand = 0;
  std::uint8_t mode = 0;
  std::uint32_t source = 0;  // offset of its text in the module
};

struct FunctionCode;

struct CallCode {
  FunctionCode* function = nullptr;
  // From the caller's to the callee's local memory: offset from, offset to, bytes.
  std::vector<std::array<std::uint32_t, 3>> arguments, results;
};

// Constants hold an address in a lane's local memory, which is known only for a frame.
struct LocalConstant {
  std::uint32_t register_offset = 0;  // the register set when the frame is made
  std::uint32_t offset = 0;           // in the frame's local memory
  bool kernel_parameter = false;      // offset in the parameter buffer instead
};

struct FunctionCode {
  std::string name;
  std::vector<Instruction> instructions;
  std::vector<std::uint32_t> lists;
  std::vector<CallCode> calls;
  std::vector<std::vector<std::uint32_t>> branch_tables;
  std::vector<LocalConstant> local_constants;
  std::size_t register_bytes = 0;
  std::size_t predicates = 2;
  std::vector<std::uint64_t> constants;  // broadcast to 32 lanes; 64-bit words for their alignment
  std::size_t local_bytes = 0;           // variables, parameters of its calls, its own parameters
  std::size_t stack_bytes = 0;           // with those it calls
};

struct KernelCode {
  Kernel kernel;
  std::string name;
  std::vector<Parameter> parameters;
  std::size_t parameter_bytes = 0;
  std::size_t static_shared_bytes = 0;
  std::size_t dynamic_shared_at = 0;  // offset, from the beginning of the shared window
  int maximum_threads = 1024;
  std::vector<std::unique_ptr<FunctionCode>> functions;  // the first is the kernel's own
  const std::string* text = nullptr;                     // of the module
};

// The shared window's first bytes belong to the system, as on the device: no address there is 0.
inline constexpr std::uint32_t shared_begin = 1024;
// Generic addresses of shared and of local memory; any other is a host address.
inline constexpr std::uint64_t window_mask = 0xffff'ffff'0000'0000u;
inline constexpr std::uint64_t shared_window = 0x4000'0000'0000'0000u;
inline constexpr std::uint64_t local_window = 0x4000'0001'0000'0000u;
// A shared::cluster address: the block's rank in its cluster plus one, or 0 for the own block.
inline constexpr unsigned cluster_rank_shift = 24;

}  // namespace quantloom::emulator
