#include "formats/types.h"

#include <array>

#include "formats/list.h"

namespace quantloom::formats {

namespace {

constexpr std::uint32_t id_count = 43;  // ggml.h of November 2026

constexpr std::array<TypeInfo, id_count> build_table() {
  std::array<TypeInfo, id_count> table{};
  const auto put = [&table](std::uint32_t id, const char* name, std::uint32_t elements,
                            std::uint32_t bytes,
                            TypeState state) { table[id] = {id, name, elements, bytes, state}; };
#define QL_PUT(F) \
  put(static_cast<std::uint32_t>(F::format), F::name, F::elements, F::bytes, TypeState::served);
  QL_FLOAT_FORMATS(QL_PUT)
  QL_QUANTIZED_FORMATS(QL_PUT)
#undef QL_PUT
  put(9, "Q8_1", 32, 36, TypeState::known);
  put(15, "Q8_K", 256, 292, TypeState::known);
  put(24, "I8", 1, 1, TypeState::known);
  put(25, "I16", 1, 2, TypeState::known);
  put(26, "I32", 1, 4, TypeState::known);
  put(27, "I64", 1, 8, TypeState::known);
  put(28, "F64", 1, 8, TypeState::known);
  put(41, "Q1_0", 128, 18, TypeState::known);
  put(42, "Q2_0", 64, 18, TypeState::known);
  put(4, "Q4_2", 1, 0, TypeState::removed);
  put(5, "Q4_3", 1, 0, TypeState::removed);
  put(31, "Q4_0_4_4", 1, 0, TypeState::removed);
  put(32, "Q4_0_4_8", 1, 0, TypeState::removed);
  put(33, "Q4_0_8_8", 1, 0, TypeState::removed);
  put(36, "IQ4_NL_4_4", 1, 0, TypeState::removed);
  put(37, "IQ4_NL_4_8", 1, 0, TypeState::removed);
  put(38, "IQ4_NL_8_8", 1, 0, TypeState::removed);
  return table;
}

constexpr std::array<TypeInfo, id_count> table = build_table();

constexpr bool complete() {
  for (std::uint32_t id = 0; id < id_count; ++id) {
    if (table[id].name == nullptr || table[id].id != id || table[id].elements == 0) return false;
  }
  return true;
}
static_assert(complete(), "every type id has an entry");

}  // namespace

const TypeInfo* type_info(std::uint32_t id) { return id < id_count ? &table[id] : nullptr; }

std::uint32_t block_alignment(const TypeInfo& type) {
  if (type.elements == 1) return type.bytes;
  return type.bytes % 2 == 0 ? 2 : 1;
}

std::span<const TypeInfo> type_table() { return table; }

}  // namespace quantloom::formats
