// The names that Python gives to values of the C++ enumerations.
#pragma once

#include <cstddef>
#include <string>

#include "base/error.h"
#include "ops/operations.h"

namespace quantloom {

template <typename Value>
struct Named {
  const char* name;
  Value value;
};

inline constexpr Named<ops::Precision> precisions[] = {{"exact", ops::Precision::exact},
                                                       {"fast", ops::Precision::fast}};
inline constexpr Named<ops::CacheType> cache_types[] = {
    {"f16", ops::CacheType::f16}, {"f32", ops::CacheType::f32}, {"q8_0", ops::CacheType::q8_0}};
inline constexpr Named<ops::Activation> activations[] = {{"silu", ops::Activation::silu},
                                                         {"gelu", ops::Activation::gelu},
                                                         {"gelu_tanh", ops::Activation::gelu_tanh}};

// Errors: invalid_argument naming `argument` and the names there are.
template <typename Value, std::size_t count>
Value value_of(const char* argument, const std::string& name, const Named<Value> (&table)[count]) {
  std::string known;
  for (const auto& row : table) {
    if (name == row.name) return row.value;
    known += (known.empty() ? "'" : ", '") + std::string(row.name) + "'";
  }
  throw Error(ErrorKind::invalid_argument,
              std::string(argument) + " '" + name + "' is not one of " + known, argument);
}

template <typename Value, std::size_t count>
const char* name_of(Value value, const Named<Value> (&table)[count]) {
  for (const auto& row : table) {
    if (value == row.value) return row.name;
  }
  return "";
}

}  // namespace quantloom
