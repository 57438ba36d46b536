#include "transformer/attention.cuh"

#include <algorithm>

#include "device/limits.h"

namespace quantloom::kernels {
namespace {

#if defined(QUANTLOOM_HAS_SM90)
bool fits_hopper(const Cache& cache) {
  const int size = cache.head_size;
  DeviceLimits limits;
  return cache.type != CacheType::f32 && (size == 64 || size == 96 || size == 128 || size == 256) &&
         device_limits(limits) && limits.capability / 10 == 9;
}
#endif

}  // namespace

std::int64_t attention_workspace_bytes(int head_size) {
  constexpr std::int64_t rows =
      std::max(std::int64_t{partial_slots} * rows_per_partial, std::int64_t{split_rows});
  return std::int64_t{counter_slots} * sizeof(int) +
         rows * static_cast<std::int64_t>(sizeof(float2) + head_size * sizeof(float));
}

cudaError_t attention(const Attention& arguments, cudaStream_t stream) {
  if (arguments.tokens == 0) return cudaSuccess;
  const Cache& cache = arguments.cache;
  if (cache.kv_heads <= 0 || arguments.heads % cache.kv_heads != 0) return cudaErrorInvalidValue;
  const bool tiled =
      cache.type != CacheType::f32 && cache.head_size % 32 == 0 && cache.head_size <= 128;
  const bool many = arguments.invariant || arguments.tokens > decode_tokens;
#if defined(QUANTLOOM_HAS_SM90)
  // attention_decode reads the cache once for every eight rows.
  const std::int64_t rows = std::int64_t{arguments.tokens} * (arguments.heads / cache.kv_heads);
  const bool is_long =
      rows > 2 * rows_per_partial && arguments.window == 0 && arguments.bound > long_cache;
  if ((many || is_long || not tiled) && fits_hopper(cache)) {
    return attention_prefill_sm90(arguments, stream);
  }
#endif
  if (tiled && not many) return attention_decode(arguments, stream);
  if (tiled) return attention_prefill(arguments, stream);
  return attention_any(arguments, stream);
}

}  // namespace quantloom::kernels
