#include "formats/decode.h"

#include <cstddef>
#include <cstring>

namespace quantloom::formats {

bool decode_row(Format format, const void* blocks, std::int64_t elements, float* out) {
  return visit_format(
      format,
      [&]<class F>(F) {
        if (elements < 0 || elements % F::elements != 0) return false;
        const auto* source = static_cast<const std::byte*>(blocks);
        const std::int64_t count = elements / F::elements;
        for (std::int64_t i = 0; i < count; ++i) {
          typename F::Block block;
          std::memcpy(&block, source + i * F::bytes, F::bytes);
          decode_block<F>(block, out + i * F::elements);
        }
        return true;
      },
      [] { return false; });
}

}  // namespace quantloom::formats
