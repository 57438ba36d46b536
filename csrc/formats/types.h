// Every GGUF tensor type id, whether quantloom has a kernel for it or not.
#pragma once

#include <cstdint>
#include <span>

namespace quantloom::formats {

enum class TypeState {
  served,   // in the list of formats: decode and kernels exist
  known,    // size known, so that a file holding it can be opened and listed
  removed,  // once in the format, taken out since; size no longer defined
};

struct TypeInfo {
  std::uint32_t id;
  const char* name;
  std::uint32_t elements;  // per block; never 0, so that a modulo is safe
  std::uint32_t bytes;     // per block; 0 where removed
  TypeState state;
};

// The entry of a type id, or nullptr for an id that the format does not define.
const TypeInfo* type_info(std::uint32_t id);

// What the address of blocks that are read in place must be a multiple of: of a float type its own
// size, of the others that of their 16-bit words.
std::uint32_t block_alignment(const TypeInfo& type);

// All entries in order of id.
std::span<const TypeInfo> type_table();

}  // namespace quantloom::formats
