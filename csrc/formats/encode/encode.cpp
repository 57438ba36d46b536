#include "formats/encode/encode.h"

#include <cmath>
#include <cstddef>
#include <cstring>

#include "formats/encode/k_quants.h"
#include "formats/encode/legacy.h"
#include "formats/list.h"

namespace quantloom::formats {

namespace {

// Far above what any half scale reaches, and its square sums still fit float.
constexpr float largest_weight = 1e15f;

template <class F>
constexpr bool has_encoder() {
  if constexpr (F::quantized) {
    return requires(const float* x, typename F::Block& block) { encode_block(x, block); };
  } else {
    return true;
  }
}

template <class F>
bool encode_any(const float* x, typename F::Block& block) {
  if constexpr (F::quantized) {
    return encode_block(x, block);
  } else {
    block = F::encode(*x);
    return std::isfinite(F::decode(block));
  }
}

template <class F>
EncodeResult encode_blocks(const float* values, std::int64_t elements, std::byte* target) {
  if (elements < 0 || elements % F::elements != 0) return {EncodeStatus::partial_block, 0};
  for (std::int64_t first = 0; first < elements; first += F::elements) {
    const float* x = values + first;
    int largest = 0;
    for (int i = 0; i < F::elements; ++i) {
      if (!std::isfinite(x[i])) return {EncodeStatus::not_finite, first + i};
      if (std::fabs(x[i]) > std::fabs(x[largest])) largest = i;
    }
    typename F::Block block;
    const bool small_enough = !F::quantized || std::fabs(x[largest]) <= largest_weight;
    if (!small_enough || !encode_any<F>(x, block)) {
      return {EncodeStatus::out_of_range, first + largest};
    }
    std::memcpy(target + first / F::elements * F::bytes, &block, F::bytes);
  }
  return {EncodeStatus::done, 0};
}

}  // namespace

bool encodable(Format format) {
  return visit_format(format, []<class F>(F) { return has_encoder<F>(); }, [] { return false; });
}

EncodeResult encode_row(Format format, const float* values, std::int64_t elements, void* blocks) {
  return visit_format(
      format,
      [&]<class F>(F) -> EncodeResult {
        if constexpr (has_encoder<F>()) {
          return encode_blocks<F>(values, elements, static_cast<std::byte*>(blocks));
        } else {
          return {EncodeStatus::not_encodable, 0};
        }
      },
      [] { return EncodeResult{EncodeStatus::not_encodable, 0}; });
}

}  // namespace quantloom::formats
