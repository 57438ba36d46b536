// Matrix products with what is fused to them: the norm before, the bias, residual or gate after.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "cpu/kernels.h"
#include "cpu/workspace.h"

namespace quantloom::cpu {

struct Product {
  const ops::Weight* weight = nullptr;
  const float* bias = nullptr;  // [rows], or null
  float* out = nullptr;         // [tokens, rows]
  bool accumulate = false;      // add to what `out` holds
};

class Products {
 public:
  Products(const Kernels& kernels, ops::Precision precision);

  // Room for calls of up to `tokens` tokens of up to `width` columns.
  void reserve(std::int64_t tokens, std::int64_t width);

  // While on, calls of few tokens take the kernels of many.
  void set_batch_invariant(bool on) { batch_invariant_ = on; }

  // x [tokens, columns], all weights with the same columns; norm may be null.
  void run(const float* x, std::int64_t tokens, const ops::Norm* norm,
           std::span<const Product> products);

  // out = activation(norm(x) gate^T) * (norm(x) up^T).
  void run_gated(const float* x, std::int64_t tokens, const ops::Norm& norm,
                 const ops::Weight& gate, const ops::Weight& up, ops::Activation activation,
                 float* out);

 private:
  struct Item {
    std::size_t product;
    std::int64_t first_row;
    std::int64_t rows;
  };
  struct PerThread {
    Scratch kernel{"scratch of a product"};
    Scratch tile{"tile of a product"};
    Scratch row{"row of weights"};
  };

  // Norm and fixed point of one panel of tokens, in every form that the weights need.
  void prepare(const float* x, std::int64_t tokens, const ops::Norm* norm,
               std::span<const Product> products);
  void list_items(std::span<const Product> products, std::int64_t tokens);
  void multiply(const ops::Weight& weight, const Item& item, PerThread& mine, float* tile);
  // Tokens by which kernels are chosen.
  std::int64_t counted(std::int64_t tokens) const;
  void reserve_threads(std::int64_t tokens, std::int64_t width);

  const Kernels& kernels_;
  const ops::Precision precision_;
  bool batch_invariant_ = false;
  Scratch normed_{"normed activations"};
  ActivationMemory memory_[form_count];
  Activations views_[form_count];
  std::int64_t panel_ = 0;  // tokens of the panel that views_ hold
  std::vector<Item> items_;
  std::vector<PerThread> threads_;
  std::vector<std::int64_t> not_finite_;  // tokens of the panel
};

}  // namespace quantloom::cpu
