#include "model/cache.h"

#include <cstddef>
#include <string>

#include "base/checked.h"
#include "base/error.h"

namespace quantloom::model {
namespace {

constexpr std::int64_t q8_0_group = 32;
constexpr std::uint64_t alignment = 256;  // of each plane, for a GPU's widest loads

std::uint64_t aligned(std::uint64_t bytes) {
  return (bytes + alignment - 1) / alignment * alignment;
}

// Bytes of one layer's keys (or values) and of their scales.
struct PlaneBytes {
  std::uint64_t values = 0;
  std::uint64_t scales = 0;
};

PlaneBytes plane_bytes(const Hyperparameters& h, ops::CacheType type, std::int64_t capacity) {
  // In range: heads <= 4096, head size <= 4096, capacity <= 2^24.
  const auto elements = static_cast<std::uint64_t>(h.head_count_kv * h.key_length * capacity);
  switch (type) {
    case ops::CacheType::f16:
      return {aligned(elements * 2), 0};
    case ops::CacheType::f32:
      return {aligned(elements * 4), 0};
    case ops::CacheType::q8_0:
      if (h.key_length % q8_0_group != 0) {
        throw Error(ErrorKind::invalid_argument,
                    "cache_type q8_0 needs a head size that is a multiple of 32; this model's is " +
                        std::to_string(h.key_length),
                    "cache_type");
      }
      return {aligned(elements), aligned(elements / q8_0_group * 2)};
  }
  throw Error(ErrorKind::invalid_argument, "unknown cache type", "cache_type");
}

}  // namespace

std::uint64_t Cache::bytes_needed(const Hyperparameters& h, ops::CacheType type,
                                  std::int64_t capacity, std::int64_t layers) {
  const PlaneBytes plane = plane_bytes(h, type, capacity);
  const auto total =
      try_multiply(2 * static_cast<std::uint64_t>(layers), plane.values + plane.scales);
  if (not total) {
    throw Error(ErrorKind::out_of_memory, "the size of the KV cache passes 2^64 bytes");
  }
  return *total;
}

Cache::Cache(ops::Operations& operations, const Hyperparameters& h, ops::CacheType type,
             std::int64_t capacity, std::int64_t layers)
    : memory_(operations.allocate_cache(bytes_needed(h, type, capacity, layers), "KV cache")) {
  const PlaneBytes plane = plane_bytes(h, type, capacity);
  auto* next = static_cast<std::byte*>(memory_.get());
  const auto take = [&next](std::uint64_t bytes) -> void* {
    if (bytes == 0) return nullptr;
    std::byte* start = next;
    next += bytes;
    return start;
  };
  layers_.resize(static_cast<std::size_t>(layers));
  for (ops::CacheLayer& layer : layers_) {
    layer = {.type = type,
             .capacity = capacity,
             .kv_heads = static_cast<int>(h.head_count_kv),
             .head_size = static_cast<int>(h.key_length),
             .keys = take(plane.values),
             .values = take(plane.values),
             .key_scales = take(plane.scales),
             .value_scales = take(plane.scales)};
  }
}

}  // namespace quantloom::model
