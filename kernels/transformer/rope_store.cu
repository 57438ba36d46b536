// One warp per head of one token: the head is normed and rotated in shared memory, then written
// out.
#include "device/overlap.cuh"
#include "transformer/rope_head.cuh"
#include "transformer/transformer.h"

namespace quantloom::kernels {
namespace {

constexpr int warps = 4;

__global__ void __launch_bounds__(32 * warps) rope_store_kernel(RopeStore a) {
  extern __shared__ float shared[];
  const int lane = threadIdx.x % 32;
  const int size = a.cache.head_size;
  const int slot = blockIdx.x * warps + threadIdx.x / 32;  // q heads, then k heads, then v heads
  const int kv_heads = a.cache.kv_heads;
  wait_for_previous();
  if (slot >= a.heads + 2 * kv_heads) return;
  const std::int64_t token = blockIdx.y;
  const std::int64_t position = *a.first + token;
  float* head = shared + (threadIdx.x / 32) * size;

  const bool is_q = slot < a.heads;
  const bool is_k = !is_q && slot < a.heads + kv_heads;
  const int kv_head = is_k ? slot - a.heads : slot - a.heads - kv_heads;
  const float* source = is_q   ? a.q + (token * a.heads + slot) * size
                        : is_k ? a.k + (token * kv_heads + kv_head) * size
                               : a.v + (token * kv_heads + kv_head) * size;
  for (int i = lane; i < size; i += 32) head[i] = source[i];
  __syncwarp();
  if (is_q || is_k) {
    const float* weight = is_q ? a.q_norm : a.k_norm;
    if (weight != nullptr) norm_head(head, size, lane, weight, is_q ? a.q_epsilon : a.k_epsilon);
    rotate_head(head, lane, a,
                reinterpret_cast<const float2*>(a.table) + position * (a.dimensions / 2));
    float* target =
        is_q ? a.q + (token * a.heads + slot) * size : a.k + (token * kv_heads + kv_head) * size;
    for (int i = lane; i < size; i += 32) target[i] = head[i];
    if (is_k) {
      store_head(head, lane, a.cache, a.cache.keys, a.cache.key_scales, kv_head, position);
    }
  } else {
    store_head(head, lane, a.cache, a.cache.values, a.cache.value_scales, kv_head, position);
  }
}

}  // namespace

cudaError_t rope_store(const RopeStore& arguments, cudaStream_t stream) {
  if (arguments.tokens == 0) return cudaSuccess;
  const int size = arguments.cache.head_size;
  if (size > largest_head || (arguments.cache.type == CacheType::q8_0 && size % 32 != 0) ||
      arguments.tokens > most_pass_tokens) {
    return cudaErrorInvalidValue;
  }
  const int slots = arguments.heads + 2 * arguments.cache.kv_heads;
  const dim3 grid((slots + warps - 1) / warps, arguments.tokens);
  return launch_overlapped(rope_store_kernel, grid, 32 * warps, warps * size * sizeof(float),
                           stream, arguments);
}

}  // namespace quantloom::kernels
