#include "cpu/products.h"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "base/thread_pool.h"
#include "formats/decode.h"
#include "formats/types.h"

namespace quantloom::cpu {
namespace {

// Tokens that share one unpacking of the weights; more would overflow the second-level cache with
// their sums.
constexpr std::int64_t panel_tokens = 512;
// At or below, a product streams the weights once from memory and unpacks them in registers.
constexpr std::int64_t few_tokens = 8;
// From here on every instruction set takes its kernels of many tokens.
constexpr std::int64_t many_tokens = tile_tokens;
constexpr std::int64_t prepare_step = tile_tokens;
constexpr std::int64_t item_bytes = 64 << 10;

std::int64_t row_bytes(const ops::Weight& weight) {
  const formats::TypeInfo& info = *formats::type_info(static_cast<std::uint32_t>(weight.format));
  return weight.columns / info.elements * info.bytes;
}

bool finite(const float* x, std::int64_t count) {
  return std::all_of(x, x + count, [](float value) { return std::isfinite(value); });
}

}  // namespace

Products::Products(const Kernels& kernels, ops::Precision precision)
    : kernels_(kernels), precision_(precision) {}

std::int64_t Products::counted(std::int64_t tokens) const {
  return batch_invariant_ ? std::max<std::int64_t>(tokens, many_tokens) : tokens;
}

void Products::reserve_threads(std::int64_t tokens, std::int64_t width) {
  const auto count = static_cast<std::size_t>(thread_count());
  while (threads_.size() < count) threads_.emplace_back();
  const std::int64_t panel = std::min(tokens, panel_tokens);
  for (std::size_t i = 0; i < count; ++i) {
    threads_[i].kernel.get<std::byte>(multiply_scratch);
    threads_[i].tile.get<float>(2 * std::max(panel * tile_rows, few_tokens * 256));
    threads_[i].row.get<float>(width);
  }
}

void Products::reserve(std::int64_t tokens, std::int64_t width) {
  const std::int64_t panel = std::min(tokens, panel_tokens);
  reserve_threads(tokens, width);
  normed_.get<float>(panel * width);
  not_finite_.reserve(static_cast<std::size_t>(panel));
  items_.reserve(1 << 14);
  for (const auto format : {formats::Format::q4_k, formats::Format::q8_0, formats::Format::q6_k}) {
    for (const std::int64_t count : {std::int64_t{1}, panel, std::max(panel, many_tokens)}) {
      const Form form = kernels_.form(format, count, precision_);
      memory_[static_cast<int>(form)].view(form, precision_, nullptr, panel, width);
    }
  }
}

void Products::prepare(const float* x, std::int64_t tokens, const ops::Norm* norm,
                       std::span<const Product> products) {
  const std::int64_t columns = products.front().weight->columns;
  const float* values = x;
  float* normed = nullptr;
  if (norm != nullptr) {
    normed = normed_.get<float>(tokens * columns);
    values = normed;
  }
  panel_ = tokens;
  bool wanted[form_count] = {};
  for (const Product& product : products) {
    const Form form = kernels_.form(product.weight->format, counted(tokens), precision_);
    const int index = static_cast<int>(form);
    if (!wanted[index]) {
      views_[index] = memory_[index].view(form, precision_, values, tokens, columns);
      views_[index].counted = counted(tokens);
    }
    wanted[index] = true;
  }
  std::atomic<bool> all_finite{true};
  const auto step = [&](std::int64_t item, int) {
    const std::int64_t begin = item * prepare_step;
    const std::int64_t end = std::min(begin + prepare_step, tokens);
    if (norm != nullptr) {
      for (std::int64_t t = begin; t < end; ++t) {
        kernels_.rms_norm(x + t * columns, columns, *norm, normed + t * columns);
      }
    }
    for (int index = 0; index < form_count; ++index) {
      const auto form = static_cast<Form>(index);
      if (!wanted[index] || form == Form::values) continue;
      if (!kernels_.prepare(form, precision_, begin, end, views_[index])) all_finite.store(false);
    }
  };
  parallel_for((tokens + prepare_step - 1) / prepare_step, step);

  not_finite_.clear();
  if (all_finite.load()) return;
  for (std::int64_t t = 0; t < tokens; ++t) {
    if (!finite(values + t * columns, columns)) not_finite_.push_back(t);
  }
}

void Products::list_items(std::span<const Product> products, std::int64_t tokens) {
  items_.clear();
  const std::int64_t threads = thread_count();
  std::int64_t total = 0;
  for (const Product& product : products) total += product.weight->rows;
  std::int64_t tile = tile_rows;
  while (tile > 32 && total / tile < 3 * threads) tile /= 2;
  for (std::size_t i = 0; i < products.size(); ++i) {
    const ops::Weight& weight = *products[i].weight;
    std::int64_t step = tile;
    if (counted(tokens) <= few_tokens) {
      step = std::clamp<std::int64_t>(item_bytes / row_bytes(weight) / 8 * 8, 8, 256);
    }
    for (std::int64_t row = 0; row < weight.rows; row += step) {
      items_.push_back({i, row, std::min(step, weight.rows - row)});
    }
  }
}

void Products::multiply(const ops::Weight& weight, const Item& item, PerThread& mine, float* tile) {
  const Form form = kernels_.form(weight.format, counted(panel_), precision_);
  const Activations& x = views_[static_cast<int>(form)];
  kernels_.multiply(weight, x, form, precision_, item.first_row, item.rows, tile, item.rows,
                    mine.kernel.get<std::byte>(multiply_scratch));
  if (form == Form::values || not_finite_.empty()) return;

  // Fixed point has no NaN and no infinity: these tokens go through the decoded weights.
  float* row = mine.row.get<float>(weight.columns);
  const float* values = x.values;
  const std::int64_t bytes = row_bytes(weight);
  for (std::int64_t r = 0; r < item.rows; ++r) {
    const auto* blocks =
        static_cast<const std::byte*>(weight.blocks) + (item.first_row + r) * bytes;
    static_cast<void>(formats::decode_row(weight.format, blocks, weight.columns, row));
    for (const std::int64_t t : not_finite_) {
      double sum = 0;
      for (std::int64_t c = 0; c < weight.columns; ++c) {
        sum += static_cast<double>(row[c]) * values[t * weight.columns + c];
      }
      tile[t * item.rows + r] = static_cast<float>(sum);
    }
  }
}

void Products::run(const float* x, std::int64_t tokens, const ops::Norm* norm,
                   std::span<const Product> products) {
  if (tokens <= 0 || products.empty()) return;
  const std::int64_t columns = products.front().weight->columns;
  reserve_threads(tokens, columns);
  for (std::int64_t start = 0; start < tokens; start += panel_tokens) {
    const std::int64_t panel = std::min(panel_tokens, tokens - start);
    prepare(x + start * columns, panel, norm, products);
    list_items(products, panel);
    parallel_for(
        static_cast<std::int64_t>(items_.size()),
        [&](std::int64_t index, int thread) {
          const Item& item = items_[static_cast<std::size_t>(index)];
          const Product& product = products[item.product];
          PerThread& mine = threads_[static_cast<std::size_t>(thread)];
          auto* tile = mine.tile.get<float>(panel * item.rows);
          multiply(*product.weight, item, mine, tile);
          for (std::int64_t t = 0; t < panel; ++t) {
            const float* source = tile + t * item.rows;
            float* out = product.out + (start + t) * product.weight->rows + item.first_row;
            const float* bias = product.bias == nullptr ? nullptr : product.bias + item.first_row;
            for (std::int64_t r = 0; r < item.rows; ++r) {
              float value = source[r];
              if (bias != nullptr) value += bias[r];
              out[r] = product.accumulate ? out[r] + value : value;
            }
          }
        },
        static_cast<int>(threads_.size()));
  }
}

void Products::run_gated(const float* x, std::int64_t tokens, const ops::Norm& norm,
                         const ops::Weight& gate, const ops::Weight& up, ops::Activation activation,
                         float* out) {
  if (tokens <= 0) return;
  const std::int64_t columns = gate.columns;
  reserve_threads(tokens, columns);
  const Product products[] = {{.weight = &gate}, {.weight = &up}};
  for (std::int64_t start = 0; start < tokens; start += panel_tokens) {
    const std::int64_t panel = std::min(panel_tokens, tokens - start);
    prepare(x + start * columns, panel, &norm, products);
    list_items({products, 1}, panel);
    parallel_for(
        static_cast<std::int64_t>(items_.size()),
        [&](std::int64_t index, int thread) {
          const Item& item = items_[static_cast<std::size_t>(index)];
          PerThread& mine = threads_[static_cast<std::size_t>(thread)];
          auto* gates = mine.tile.get<float>(2 * panel * item.rows);
          float* ups = gates + panel * item.rows;
          multiply(gate, item, mine, gates);
          multiply(up, item, mine, ups);
          for (std::int64_t t = 0; t < panel; ++t) {
            kernels_.activate(gates + t * item.rows, ups + t * item.rows, item.rows, activation,
                              out + (start + t) * gate.rows + item.first_row);
          }
        },
        static_cast<int>(threads_.size()));
  }
}

}  // namespace quantloom::cpu
