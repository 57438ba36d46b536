#include "decode/connect.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <vector>

#include "decode/attention_groups.h"
#include "matmul/geometry.h"

namespace quantloom::kernels {
namespace {

// Places for the values that steps hand each other, each written once a launch.
class Exchange {
 public:
  struct Place {
    float* at = nullptr;
    bool is_fixed = false;
  };

  // Without memory what it takes is counted, and must not be touched.
  explicit Exchange(void* memory)
      : start_(memory != nullptr ? reinterpret_cast<std::uintptr_t>(memory) : 4096) {}

  std::size_t bytes() const { return bytes_; }

  float* take_values(std::int64_t count) { return take(4 * count); }
  // 2 bytes a column and 16 a group of 32.
  float* take_fixed(std::int64_t columns) { return take(2 * columns + columns / 2); }

  // What a step writes to `original` is at `place`.
  void put(const float* original, Place place) { places_[original] = place; }
  // Lets `from` point to where what was last written there is; false where no step did.
  template <class T>
  bool find(T*& from, bool* is_fixed = nullptr) const {
    const auto found = places_.find(from);
    if (found == places_.end()) return false;
    from = found->second.at;
    if (is_fixed != nullptr) *is_fixed = found->second.is_fixed;
    return true;
  }

 private:
  float* take(std::int64_t bytes) {
    const std::uintptr_t at = start_ + bytes_;
    bytes_ += static_cast<std::size_t>((bytes + 127) / 128 * 128);
    return reinterpret_cast<float*>(at);
  }

  std::uintptr_t start_;
  std::size_t bytes_ = 0;
  std::map<const float*, Place> places_;
};

bool split_alike(const DecodeAttention& a, const DecodeAttention& b) {
  return a.attention.heads == b.attention.heads && a.attention.window == b.attention.window &&
         a.attention.cache.kv_heads == b.attention.cache.kv_heads &&
         a.attention.cache.head_size == b.attention.cache.head_size &&
         a.rope.table == b.rope.table && a.rope.dimensions == b.rope.dimensions;
}

bool reads_out(const DecodeProduct& product) {
  return product.epilogue == MatmulEpilogue::add || product.gated;
}

bool reads(const DecodeStep& step, const float* values) {
  if (step.kind == DecodeStepKind::attention) {
    const RopeStore& rope = step.attention.rope;
    return values == rope.q || values == rope.k || values == rope.v;
  }
  const DecodeProduct& product = step.product;
  return values == product.x || (reads_out(product) && values == product.weights[0].out);
}

// Whether a product's output is best converted by its blocks, which then have two pairs of strips
// at a time: where that gives no block more pairs than one at a time.
bool converts_output(const DecodeProduct& product, int blocks) {
  if (product.epilogue != MatmulEpilogue::gate_up || product.weights[0].rows % 32 != 0) {
    return false;
  }
  const int pairs = units_of(product), twos = pairs / 2;
  return 2 * ((twos + blocks - 1) / blocks) <= (pairs + blocks - 1) / blocks;
}

bool connect_at(DecodeStep* steps, int count, int blocks, Exchange& exchange) {
  const std::vector<DecodeStep> original(steps, steps + count);
  const DecodeAttention* before = nullptr;
  for (int i = 0; i < count; ++i) {
    const auto is_read = [&](const float* values) {
      return std::any_of(original.begin() + i + 1, original.end(),
                         [&](const DecodeStep& later) { return reads(later, values); });
    };
    if (steps[i].kind == DecodeStepKind::attention) {
      DecodeAttention& a = steps[i].attention;
      a.same_split = before != nullptr && split_alike(a, *before);
      before = &a;
      if (!exchange.find(a.rope.q) || !exchange.find(a.rope.k) || !exchange.find(a.rope.v)) {
        return false;
      }
      const std::int64_t head_size = a.attention.cache.head_size;
      if (!is_read(a.attention.out)) return false;
      float* const place = exchange.take_values(a.attention.heads * head_size);
      exchange.put(a.attention.out, {place, false});
      a.attention.out = place;
      a.attention.workspace =
          exchange.take_values(AttentionGroups(a.attention, blocks).slots() * (head_size + 2));
      continue;
    }
    DecodeProduct& product = steps[i].product;
    product.x_is_tagged = exchange.find(product.x, &product.x_is_fixed);
    if (reads_out(product)) {
      product.before = static_cast<const float*>(product.weights[0].out);
      product.before_is_tagged = exchange.find(product.before);
    }
    for (int w = 0; w < product.weight_count; ++w) {
      MatmulWeight& weight = product.weights[w];
      if (weight.out == nullptr) continue;
      auto* const out = static_cast<float*>(weight.out);
      const bool tagged = is_read(out);
      if (w > 0 && tagged != product.out_is_tagged) return false;
      product.out_is_tagged = tagged;
      if (!tagged) continue;
      product.out_is_fixed = converts_output(product, blocks);
      float* const place = product.out_is_fixed ? exchange.take_fixed(weight.rows)
                                                : exchange.take_values(weight.rows);
      weight.out = place;
      exchange.put(out, {place, product.out_is_fixed});
    }
  }
  return true;
}

}  // namespace

int strips_of(const MatmulWeight& weight) {
  return static_cast<int>((weight.rows + strip_rows - 1) / strip_rows);
}

int units_of(const DecodeProduct& product) {
  if (product.epilogue == MatmulEpilogue::gate_up) return strips_of(product.weights[0]);
  int strips = 0;
  for (int i = 0; i < product.weight_count; ++i) strips += strips_of(product.weights[i]);
  return strips;
}

bool connect(DecodeStep* steps, int count, int blocks, void* exchange) {
  Exchange places(exchange);
  return connect_at(steps, count, blocks, places);
}

std::size_t decode_exchange_bytes(const DecodeStep* steps, int step_count) {
  std::vector<DecodeStep> copy(steps, steps + step_count);
  Exchange places(nullptr);
  connect_at(copy.data(), step_count, decode_blocks(), places);
  return places.bytes();
}

}  // namespace quantloom::kernels
