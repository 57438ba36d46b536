// The keys and values that one sequence has been through, for the layers of one device.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/architecture.h"
#include "ops/operations.h"

namespace quantloom::model {

class Cache {
 public:
  // Of `layers` layers. Errors: invalid_argument where the head size does not suit the type (q8_0
  // needs a multiple of 32); out_of_memory.
  Cache(ops::Operations& operations, const Hyperparameters& h, ops::CacheType type,
        std::int64_t capacity, std::int64_t layers);

  std::span<const ops::CacheLayer> layers() const { return layers_; }

  // Bytes that a cache of this kind takes, without making it.
  static std::uint64_t bytes_needed(const Hyperparameters& h, ops::CacheType type,
                                    std::int64_t capacity, std::int64_t layers);

 private:
  ops::Buffer memory_;
  std::vector<ops::CacheLayer> layers_;
};

}  // namespace quantloom::model
