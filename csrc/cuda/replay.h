// Steps recorded as CUDA graphs, one for each key.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>

#include "device/runtime.h"

namespace quantloom::cuda {

class Replay {
 public:
  explicit Replay(const device::Device& device) : device_(device) {}

  // The first call under a key runs as it is, so that modules are loaded; the second is recorded;
  // from then on the recording runs. Where another thread's wait for the device breaks the
  // recording, the call runs as it is and the next one is recorded. Errors: device.
  void run(std::uint64_t key, device::Stream stream, const std::function<void()>& calls);
  void clear() { graphs_.clear(); }

 private:
  struct Destroy {
    device::Device device;
    void operator()(cudaGraphExec_t graph) const;
  };
  using Graph = std::unique_ptr<std::remove_pointer_t<cudaGraphExec_t>, Destroy>;

  device::Device device_;
  std::map<std::uint64_t, Graph> graphs_;  // null: ran once
};

}  // namespace quantloom::cuda
