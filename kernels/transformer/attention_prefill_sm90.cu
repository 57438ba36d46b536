// Prefill on Hopper. A block holds 64 query rows for each of its consumer warpgroups and walks the
// cache in tiles that the copy engine brings; the scores of the next tile and the weighted sums of
// this one run in the tensor cores while another warpgroup is in its softmax (FlashAttention-3,
// Shah et al. 2024). Tiles begin at fixed positions, so that a row's result depends on its own
// token alone.
#include <cuda.h>
#include <cuda_fp16.h>

#include <climits>

#include "matmul/ring.cuh"
#include "transformer/attention.cuh"
#include "transformer/attention_wgmma_sm90.cuh"
#include "transformer/overlap.cuh"

namespace quantloom::kernels {
namespace {

constexpr int group_rows = 64;
constexpr int stages = 2;
constexpr int row_bytes = 128;  // of a swizzled block of 64 halves
constexpr float log2_e = 1.44269504088896341f;

template <int head_size_, int positions_, int groups_>
struct Shape {
  static constexpr int head_size = head_size_;
  static constexpr int positions = positions_;  // of a tile
  static constexpr int groups = groups_;        // consumer warpgroups
  static constexpr int blocks = (head_size + 63) / 64;
  static constexpr int tile_block_bytes = positions * row_bytes;
  static constexpr int tile_bytes = blocks * tile_block_bytes;
  static constexpr int query_block_bytes = group_rows * row_bytes;
  static constexpr int query_bytes = blocks * query_block_bytes;
  static constexpr int swizzle_bytes = 1024;  // alignment of every tile
  static constexpr int shared_bytes =
      swizzle_bytes + groups * query_bytes + 2 * stages * tile_bytes;
  static constexpr int producer_registers = groups == 2 ? 24 : 32;
  static constexpr int consumer_registers = groups == 2 ? 240 : 160;
};

template <int count>
__device__ void keep_registers_below() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(count));
}
template <int count>
__device__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(count));
}
__device__ void mbarrier_arrive(std::uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
__device__ void copy_tile(std::uint32_t to, const CUtensorMap& map, int dimension, int position,
                          int kv_head, std::uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], "
      "[%1, {%2, %3, %4}], [%5];" ::"r"(to),
      "l"(&map), "r"(dimension), "r"(position), "r"(kv_head), "r"(barrier)
      : "memory");
}
__device__ void sync_named(int barrier, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}
__device__ void arrive_named(int barrier, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}
__device__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ std::uint32_t pack_halves(float low, float high) {
  const __half2 both = __floats2half2_rn(low, high);
  return *reinterpret_cast<const std::uint32_t*>(&both);
}

// The tiles of the cache that a block's rows see.
struct Span {
  int begin;
  int tiles;
};

template <class S>
__device__ Span span_of(const Attention& a, int first, int block_row) {
  const int per_kv_head = a.heads / a.cache.kv_heads;
  const int last_row = min(block_row + S::groups * group_rows, a.tokens * per_kv_head) - 1;
  const int end = first + last_row / per_kv_head + 1;
  int begin = 0;
  if (a.window > 0) {
    const std::int64_t oldest = first + block_row / per_kv_head - a.window + 1;
    if (oldest > 0) begin = static_cast<int>(oldest) / S::positions * S::positions;
  }
  return {begin, (end - begin + S::positions - 1) / S::positions};
}

// Shared memory: queries of each group, then stages of keys, then stages of values.
// Barriers: keys full, keys empty, values full, values empty, one of each per stage.
template <class S>
struct Room {
  std::uint8_t* base;
  std::uint32_t address;
  std::uint32_t barriers;

  __device__ std::uint32_t queries(int group) const { return address + group * S::query_bytes; }
  __device__ std::uint32_t keys(int stage) const {
    return address + S::groups * S::query_bytes + stage * S::tile_bytes;
  }
  __device__ std::uint32_t values(int stage) const { return keys(stages + stage); }
  __device__ std::uint8_t* pointer(std::uint32_t to) const { return base + (to - address); }
  __device__ std::uint32_t full(bool is_value, int stage) const {
    return barriers + 8 * (2 * stages * is_value + stage);
  }
  __device__ std::uint32_t empty(bool is_value, int stage) const {
    return full(is_value, stages + stage);
  }
};

template <class S>
__device__ void produce(const Room<S>& room, const CUtensorMap& keys, const CUtensorMap& values,
                        Span span, int kv_head) {
  for (int t = 0; t < span.tiles; ++t) {
    const int stage = t % stages;
    for (const bool is_value : {false, true}) {
      const std::uint32_t full = room.full(is_value, stage);
      mbarrier_wait(room.empty(is_value, stage), t / stages % 2 ^ 1);
      mbarrier_expect(full, S::tile_bytes);
      for (int b = 0; b < S::blocks; ++b) {
        copy_tile((is_value ? room.values(stage) : room.keys(stage)) + b * S::tile_block_bytes,
                  is_value ? values : keys, 64 * b, span.begin + t * S::positions, kv_head, full);
      }
    }
  }
}

// One warpgroup's 64 rows. A thread holds rows r and r + 8 of its warp's 16, columns 8j + 2c and
// 8j + 2c + 1 of scores and sums, with r = lane / 4 and c = lane % 4.
template <class S>
struct Consumer {
  float scores[S::positions / 2];
  std::uint32_t weights[S::positions / 4];
  float sums[S::head_size / 2] = {};
  float peak[2] = {-INFINITY, -INFINITY};
  float mass[2] = {0, 0};  // of this thread's columns
  float shrink[2];

  __device__ void issue_scores(std::uint32_t queries, std::uint32_t keys) {
    wgmma_fence();
    wgmma_scores<false, S::positions>(scores, swizzled_rows(queries), swizzled_rows(keys));
#pragma unroll
    for (int k = 1; k < S::head_size / 16; ++k) {
      wgmma_scores<true, S::positions>(
          scores, swizzled_rows(queries + k / 4 * S::query_block_bytes + k % 4 * 32),
          swizzled_rows(keys + k / 4 * S::tile_block_bytes + k % 4 * 32));
    }
    wgmma_commit();
  }

  __device__ void issue_sums(std::uint32_t values) {
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < S::positions / 16; ++k) {
      wgmma_values<S::head_size>(
          sums, weights + 4 * k,
          swizzled_columns(values + k * 16 * row_bytes, S::tile_block_bytes));
    }
    wgmma_commit();
  }

  // tanh(x) = 1 - 2 / (1 + exp(2x)); scores come as 2 log2(e) x.
  __device__ void cap(float soft_cap) {
#pragma unroll
    for (int i = 0; i < S::positions / 2; ++i) {
      scores[i] = soft_cap * log2_e * (1.0f - __fdividef(2.0f, 1.0f + exp2_fast(scores[i])));
    }
  }

  // Row `half` sees columns oldest[half] .. newest[half] of the tile, in this thread's count.
  __device__ void mask(const int (&oldest)[2], const int (&newest)[2]) {
#pragma unroll
    for (int i = 0; i < S::positions / 2; ++i) {
      const int half = i / 2 % 2;
      const int column = i / 4 * 8 + i % 2;
      if (column > newest[half] || column < oldest[half]) scores[i] = -INFINITY;
    }
  }

  // Scores to weights, in float32 still.
  __device__ void soften() {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float top = peak[half];
#pragma unroll
      for (int i = 0; i < S::positions / 2; i += 4) {
        top = fmaxf(top, fmaxf(scores[i + 2 * half], scores[i + 2 * half + 1]));
      }
      top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
      top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
      const float origin = top == -INFINITY ? 0.0f : top;  // nothing seen yet
      shrink[half] = exp2_fast(peak[half] - origin);
      peak[half] = top;
      float sum[2] = {0, 0};
#pragma unroll
      for (int i = 0; i < S::positions / 2; i += 4) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& s = scores[i + 2 * half + e];
          s = exp2_fast(s - origin);
          sum[e] += s;
        }
      }
      mass[half] = mass[half] * shrink[half] + (sum[0] + sum[1]);
    }
  }

  __device__ void shrink_sums() {
#pragma unroll
    for (int i = 0; i < S::head_size / 2; ++i) sums[i] *= shrink[i / 2 % 2];
  }

  __device__ void pack_weights() {
#pragma unroll
    for (int i = 0; i < S::positions / 4; ++i) {
      weights[i] = pack_halves(scores[2 * i], scores[2 * i + 1]);
    }
  }
};

// 64 rows of halves in swizzled blocks, scaled; zeros where there is no row.
template <class S>
__device__ void store_queries(std::uint8_t* to, const Attention& a, int kv_head, int first_row,
                              float scale) {
  constexpr int chunks = S::head_size / 8;
  const int per_kv_head = a.heads / a.cache.kv_heads;
  const int rows = a.tokens * per_kv_head;
#pragma unroll 4
  for (int i = threadIdx.x % 128; i < group_rows * chunks; i += 128) {
    const int r = i / chunks;
    const int chunk = i % chunks;
    const int row = first_row + r;
    float4 x[2] = {};
    if (row < rows) {
      const std::int64_t head =
          std::int64_t{row / per_kv_head} * a.heads + kv_head * per_kv_head + row % per_kv_head;
      const float4* from = reinterpret_cast<const float4*>(a.q + head * S::head_size + 8 * chunk);
      x[0] = from[0];
      x[1] = from[1];
    }
    *reinterpret_cast<uint4*>(to + chunk / 8 * S::query_block_bytes + r * row_bytes +
                              (chunk % 8 ^ r % 8) * 16) =
        make_uint4(pack_halves(x[0].x * scale, x[0].y * scale),
                   pack_halves(x[0].z * scale, x[0].w * scale),
                   pack_halves(x[1].x * scale, x[1].y * scale),
                   pack_halves(x[1].z * scale, x[1].w * scale));
  }
}

// Positions that nothing was written to may hold NaN, and 0 x NaN is not 0.
template <class S>
__device__ void clear_values(std::uint8_t* values, int written) {
  constexpr int chunks = row_bytes / 16;
  for (int b = 0; b < S::blocks; ++b) {
    for (int i = written * chunks + threadIdx.x % 128; i < S::positions * chunks; i += 128) {
      reinterpret_cast<uint4*>(values + b * S::tile_block_bytes)[i] = uint4{0, 0, 0, 0};
    }
  }
}

template <class S>
__device__ void consume(const Room<S>& room, const Attention& a, int kv_head, int block_row,
                        int first, Span span) {
  const int group = threadIdx.x / 128 - 1;
  const int lane = threadIdx.x % 32;
  const int warp = threadIdx.x / 32 % 4;
  const int per_kv_head = a.heads / a.cache.kv_heads;
  const int group_row = block_row + group * group_rows;
  const int own_barrier = 1 + group;
  const int next_barrier = 1 + (group + 1) % S::groups;
  const int group_barrier = 8 + group;

  store_queries<S>(room.pointer(room.queries(group)), a, kv_head, group_row,
                   a.scale * log2_e * (a.soft_cap > 0 ? 2.0f / a.soft_cap : 1.0f));
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  sync_named(group_barrier, 128);

  // In columns of tile 0 of the span, as this thread counts them.
  const int row[2] = {group_row + 16 * warp + lane / 4, group_row + 16 * warp + lane / 4 + 8};
  int newest[2], oldest[2];
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    newest[half] = first + row[half] / per_kv_head - span.begin - lane % 4 * 2;
    oldest[half] = a.window > 0 ? static_cast<int>(newest[half] - a.window + 1) : INT_MIN / 2;
  }
  const int open = first + group_row / per_kv_head - span.begin;  // every row sees up to here
  const int closed =                                              // and from here on
      a.window > 0 ? static_cast<int>(first + (group_row + group_rows - 1) / per_kv_head -
                                      a.window + 1 - span.begin)
                   : INT_MIN / 2;

  Consumer<S> c;
  const auto soften = [&](int t) {
    if (a.soft_cap > 0) c.cap(a.soft_cap);
    const int at = t * S::positions;
    if (at + S::positions - 1 > open || at < closed) {
      const int tile_newest[2] = {newest[0] - at, newest[1] - at};
      const int tile_oldest[2] = {oldest[0] - at, oldest[1] - at};
      c.mask(tile_oldest, tile_newest);
    }
    c.soften();
  };
  const auto release = [&](bool is_value, int stage) {
    if (lane == 0) mbarrier_arrive(room.empty(is_value, stage));
  };

  mbarrier_wait(room.full(false, 0), 0);
  c.issue_scores(room.queries(group), room.keys(0));
  wgmma_wait<0>();
  pin(c.scores);
  release(false, 0);
  soften(0);
  c.pack_weights();

  // The groups take turns at the tensor cores: one computes products while others are in `soften`.
  if (group == S::groups - 1) arrive_named(1, 256);
  for (int t = 1; t < span.tiles; ++t) {
    const int stage = t % stages;
    const int past = (t - 1) % stages;
    mbarrier_wait(room.full(false, stage), t / stages % 2);
    sync_named(own_barrier, 256);
    c.issue_scores(room.queries(group), room.keys(stage));
    mbarrier_wait(room.full(true, past), (t - 1) / stages % 2);
    c.issue_sums(room.values(past));
    if (t + 1 < span.tiles || group + 1 < S::groups) arrive_named(next_barrier, 256);
    wgmma_wait<1>();
    pin(c.scores);
    release(false, stage);
    soften(t);
    wgmma_wait<0>();
    pin(c.sums);
    release(true, past);
    c.shrink_sums();
    c.pack_weights();
  }
  const int stage = (span.tiles - 1) % stages;
  mbarrier_wait(room.full(true, stage), (span.tiles - 1) / stages % 2);
  const int written = first + a.tokens - span.begin - (span.tiles - 1) * S::positions;
  if (written < S::positions) {
    clear_values<S>(room.pointer(room.values(stage)), written);
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
    sync_named(group_barrier, 128);
  }
  c.issue_sums(room.values(stage));
  wgmma_wait<0>();
  pin(c.sums);

#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float mass = c.mass[half];
    mass += __shfl_xor_sync(0xffffffffu, mass, 1);
    mass += __shfl_xor_sync(0xffffffffu, mass, 2);
    if (row[half] >= a.tokens * per_kv_head) continue;
    const float inverse = 1.0f / mass;
    float* out = a.out +
                 (std::int64_t{row[half] / per_kv_head} * a.heads + kv_head * per_kv_head +
                  row[half] % per_kv_head) *
                     S::head_size +
                 lane % 4 * 2;
#pragma unroll
    for (int j = 0; j < S::head_size / 8; ++j) {
      *reinterpret_cast<float2*>(out + 8 * j) =
          make_float2(c.sums[4 * j + 2 * half] * inverse, c.sums[4 * j + 2 * half + 1] * inverse);
    }
  }
}

template <class S>
__global__ void __launch_bounds__(128 * (S::groups + 1), 1)
    prefill_sm90(const __grid_constant__ CUtensorMap keys,
                 const __grid_constant__ CUtensorMap values, const __grid_constant__ Attention a) {
  extern __shared__ std::uint8_t shared[];
  __shared__ std::uint64_t barriers[4 * stages];
  const std::uint32_t unaligned = shared_address(shared);
  const std::uint32_t padding = -unaligned % S::swizzle_bytes;
  const Room<S> room{shared + padding, unaligned + padding, shared_address(barriers)};
  if (threadIdx.x == 0) {
    for (int i = 0; i < 4 * stages; ++i) {
      mbarrier_init(room.barriers + 8 * i, i / stages % 2 == 0 ? 1 : 4 * S::groups);
    }
    mbarrier_init_fence();
  }
  __syncthreads();
  wait_for_previous();

  // The last rows see the most positions: they start first.
  const int kv_head = blockIdx.x % a.cache.kv_heads;
  const int tile = (gridDim.x - 1 - blockIdx.x) / a.cache.kv_heads;
  const int block_row = tile * S::groups * group_rows;
  const int first = *a.first;
  const Span span = span_of<S>(a, first, block_row);
  if (threadIdx.x < 128) {
    keep_registers_below<S::producer_registers>();
    if (threadIdx.x == 0) produce<S>(room, keys, values, span, kv_head);
  } else {
    take_registers<S::consumer_registers>();
    consume<S>(room, a, kv_head, block_row, first, span);
  }
}

using Encode = decltype(&cuTensorMapEncodeTiled);

Encode find_encode() {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
  if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault,
                                       &result) != cudaSuccess ||
      result != cudaDriverEntryPointSuccess) {
    return nullptr;
  }
  return reinterpret_cast<Encode>(found);
}

// Tiles of a plane [kv_heads, capacity, head_size]; what is past an end reads as zeros.
template <class S>
bool encode_tiles(Encode encode, const Cache& cache, void* plane, CUtensorMap* map) {
  const auto size = static_cast<cuuint64_t>(S::head_size);
  const auto capacity = static_cast<cuuint64_t>(cache.capacity);
  const cuuint64_t sizes[3] = {size, capacity, static_cast<cuuint64_t>(cache.kv_heads)};
  const cuuint64_t strides[2] = {2 * size, 2 * size * capacity};
  const cuuint32_t box[3] = {64, S::positions, 1};
  const cuuint32_t steps[3] = {1, 1, 1};
  return encode(map, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 3, plane, sizes, strides, box, steps,
                CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

template <class S>
cudaError_t launch(const Attention& a, cudaStream_t stream) {
  static const Encode encode = find_encode();
  if (encode == nullptr) return cudaErrorNotSupported;
  CUtensorMap keys, values;
  if (!encode_tiles<S>(encode, a.cache, a.cache.keys, &keys) ||
      !encode_tiles<S>(encode, a.cache, a.cache.values, &values)) {
    return cudaErrorInvalidValue;
  }
  const auto kernel = prefill_sm90<S>;
  const cudaError_t status =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, S::shared_bytes);
  if (status != cudaSuccess) return status;
  constexpr int block_rows = S::groups * group_rows;
  const std::int64_t rows = std::int64_t{a.tokens} * (a.heads / a.cache.kv_heads);
  const std::int64_t blocks = (rows + block_rows - 1) / block_rows * a.cache.kv_heads;
  return launch_overlapped(kernel, dim3(static_cast<unsigned>(blocks)), 128 * (S::groups + 1),
                           S::shared_bytes, stream, keys, values, a);
}

}  // namespace

cudaError_t attention_prefill_sm90(const Attention& arguments, cudaStream_t stream) {
  switch (arguments.cache.head_size) {
    case 64:
      return launch<Shape<64, 128, 3>>(arguments, stream);
    case 96:
      return launch<Shape<96, 128, 2>>(arguments, stream);
    case 128:
      return launch<Shape<128, 128, 2>>(arguments, stream);
    case 256:
      return launch<Shape<256, 64, 2>>(arguments, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace quantloom::kernels
