#include "transformer/attention.cuh"

namespace quantloom::kernels {

std::int64_t attention_workspace_bytes(int head_size) {
  return std::int64_t{counter_slots} * sizeof(int) +
         std::int64_t{partial_slots} * rows_per_partial *
             static_cast<std::int64_t>(sizeof(float2) + head_size * sizeof(float));
}

cudaError_t attention(const Attention& arguments, cudaStream_t stream) {
  if (arguments.tokens == 0) return cudaSuccess;
  const Cache& cache = arguments.cache;
  if (cache.kv_heads <= 0 || arguments.heads % cache.kv_heads != 0) return cudaErrorInvalidValue;
  const bool tiled =
      cache.type != CacheType::f32 && cache.head_size % 32 == 0 && cache.head_size <= 128;
  if (!tiled) return attention_any(arguments, stream);
  if (arguments.tokens <= decode_tokens) return attention_decode(arguments, stream);
  return attention_prefill(arguments, stream);
}

}  // namespace quantloom::kernels
