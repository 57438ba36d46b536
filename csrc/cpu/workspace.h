// Memory that an instance of the CPU's operations keeps between calls.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "cpu/kernels.h"

namespace quantloom::cpu {

// Grows, never shrinks.
class Scratch {
 public:
  explicit Scratch(const char* what) : what_(what) {}

  template <class T>
  T* get(std::int64_t count) {
    return static_cast<T*>(reserve(static_cast<std::size_t>(count) * sizeof(T)));
  }

 private:
  void* reserve(std::size_t bytes);

  const char* what_;
  std::size_t bytes_ = 0;
  std::shared_ptr<void> memory_;
};

// The prepared activations of one panel of tokens.
class ActivationMemory {
 public:
  // Room for `form` of tokens x columns; `values` is what it will be prepared from.
  Activations view(Form form, ops::Precision precision, const float* values, std::int64_t tokens,
                   std::int64_t columns);

 private:
  Scratch high_{"activations"};
  Scratch low_{"activations"};
  Scratch words_{"activations"};
  Scratch scales_{"activations"};
  Scratch sums_{"activations"};
  Scratch pair_sums_{"activations"};
  Scratch biases_{"activations"};
  Scratch pair_biases_{"activations"};
  Scratch tiles_{"activations"};
};

}  // namespace quantloom::cpu
