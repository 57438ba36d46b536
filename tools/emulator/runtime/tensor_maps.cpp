#include "runtime/tensor_maps.h"

#include <cstring>
#include <string>

#include "runtime/context.h"
#include "tensor_map.h"

namespace quantloom::emulator {

namespace {

std::uint8_t bytes_of(CUtensorMapDataType type) {
  switch (type) {
    case CU_TENSOR_MAP_DATA_TYPE_UINT8:
      return 1;
    case CU_TENSOR_MAP_DATA_TYPE_UINT16:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT16:
    case CU_TENSOR_MAP_DATA_TYPE_BFLOAT16:
      return 2;
    case CU_TENSOR_MAP_DATA_TYPE_UINT32:
    case CU_TENSOR_MAP_DATA_TYPE_INT32:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT32:
      return 4;
    case CU_TENSOR_MAP_DATA_TYPE_UINT64:
    case CU_TENSOR_MAP_DATA_TYPE_INT64:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT64:
      return 8;
    default:
      return 0;
  }
}

int bytes_of(CUtensorMapSwizzle swizzle) {
  switch (swizzle) {
    case CU_TENSOR_MAP_SWIZZLE_NONE:
      return 0;
    case CU_TENSOR_MAP_SWIZZLE_32B:
      return 32;
    case CU_TENSOR_MAP_SWIZZLE_64B:
      return 64;
    case CU_TENSOR_MAP_SWIZZLE_128B:
      return 128;
    default:
      return -1;
  }
}

CUresult refuse(const std::string& what) {
  say("cuTensorMapEncodeTiled: " + what);
  return CUDA_ERROR_INVALID_VALUE;
}

}  // namespace

CUresult encode_tiled(CUtensorMap* map, CUtensorMapDataType type, cuuint32_t rank, void* base,
                      const cuuint64_t* sizes, const cuuint64_t* strides, const cuuint32_t* box,
                      const cuuint32_t* element_strides, CUtensorMapInterleave interleave,
                      CUtensorMapSwizzle swizzle, CUtensorMapL2promotion /*promotion*/,
                      CUtensorMapFloatOOBfill fill) {
  if (reinterpret_cast<std::uintptr_t>(map) % 64 != 0)
    return refuse("the map is not aligned to 64 bytes");
  if (rank < 1 || rank > 5) return refuse("rank " + std::to_string(rank));
  if (reinterpret_cast<std::uintptr_t>(base) % 16 != 0)
    return refuse("the address is not aligned to 16 bytes");
  if (interleave != CU_TENSOR_MAP_INTERLEAVE_NONE)
    return refuse("interleaved layouts are not emulated");
  TensorMap made;
  made.element_bytes = bytes_of(type);
  if (made.element_bytes == 0)
    return refuse("data type " + std::to_string(type) + " is not emulated");
  const int pattern = bytes_of(swizzle);
  if (pattern < 0) return refuse("swizzle " + std::to_string(swizzle) + " is not emulated");
  for (cuuint32_t i = 0; i < rank; ++i) {
    const std::string dimension = " of dimension " + std::to_string(i);
    if (sizes[i] == 0 || sizes[i] > 1ull << 32) return refuse("size" + dimension);
    if (box[i] == 0 || box[i] > 256) return refuse("box" + dimension);
    if (element_strides[i] == 0 || element_strides[i] > 8)
      return refuse("element stride" + dimension);
    if (element_strides[i] != 1)
      return refuse("element stride" + dimension + " is not 1: not emulated");
    made.sizes[i] = static_cast<std::uint32_t>(sizes[i]);
    made.box[i] = box[i];
    if (i + 1 == rank) break;
    if (strides[i] % 16 != 0 || strides[i] >= 1ull << 40) return refuse("stride after" + dimension);
    made.strides[i] = strides[i];
  }
  const int inner = static_cast<int>(box[0]) * made.element_bytes;
  if (inner % 16 != 0) return refuse("the box's rows are no multiple of 16 bytes");
  if (pattern != 0 && inner > pattern) return refuse("the box's rows are wider than the swizzle");
  made.rank = static_cast<std::uint8_t>(rank);
  made.swizzle = static_cast<std::uint8_t>(pattern);
  made.fill_nan = fill == CU_TENSOR_MAP_FLOAT_OOB_FILL_NAN_REQUEST_ZERO_FMA ? 1 : 0;
  made.base = reinterpret_cast<std::uint64_t>(base);
  static_assert(sizeof made == sizeof *map);
  std::memcpy(map, &made, sizeof made);
  return CUDA_SUCCESS;
}

}  // namespace quantloom::emulator
