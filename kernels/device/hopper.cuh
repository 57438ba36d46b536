// Copies of swizzled tiles by tensor maps and the barriers around them. Files that include this are
// named *_sm90.
#pragma once

#include <cuda.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace quantloom::kernels {

// Barriers 1 to 15; `threads` counts those that wait and those that only arrive.
__device__ inline void named_barrier_wait(int barrier, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}
__device__ inline void named_barrier_arrive(int barrier, int threads) {
  asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

// Makes this thread's stores to shared memory visible to wgmma and the copy engine.
__device__ inline void fence_shared_stores() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

__device__ inline void prefetch_map(const CUtensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

// One thread copies the map's box at (x, y, z) to shared memory; its bytes count at `barrier`.
__device__ inline void copy_box(std::uint32_t to, const CUtensorMap& map, int x, int y, int z,
                                std::uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], "
      "[%1, {%2, %3, %4}], [%5];" ::"r"(to),
      "l"(&map), "r"(x), "r"(y), "r"(z), "r"(barrier)
      : "memory");
}

// The driver's encoder of tensor maps, found through the runtime so that nothing links the driver;
// null where it has none.
inline auto tensor_map_encoder() {
  using Encode = decltype(&cuTensorMapEncodeTiled);
  static const Encode encode = [] {
    void* found = nullptr;
    cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
    if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault,
                                         &result) != cudaSuccess ||
        result != cudaDriverEntryPointSuccess) {
      found = nullptr;
    }
    return reinterpret_cast<Encode>(found);
  }();
  return encode;
}

// Boxes of `rows` rows by 64 columns of halves [planes, plane_rows, columns] with the 128-byte
// swizzle; what is past an end reads as zeros.
inline bool encode_half_boxes(void* base, int columns, std::int64_t plane_rows, int planes,
                              int rows, CUtensorMap* map) {
  const auto encode = tensor_map_encoder();
  if (encode == nullptr) return false;
  const auto width = static_cast<cuuint64_t>(columns);
  const auto height = static_cast<cuuint64_t>(plane_rows);
  const cuuint64_t sizes[3] = {width, height, static_cast<cuuint64_t>(planes)};
  const cuuint64_t strides[2] = {2 * width, 2 * width * height};
  const cuuint32_t box[3] = {64, static_cast<cuuint32_t>(rows), 1};
  const cuuint32_t steps[3] = {1, 1, 1};
  return encode(map, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 3, base, sizes, strides, box, steps,
                CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

}  // namespace quantloom::kernels
