#include "raw_matmul/raw_matmul.h"

#include "formats/list.h"

namespace quantloom::kernels {

// Defined in instances/.
template <class F>
cudaError_t launch_raw_matmul(const RawMatmul& a, cudaStream_t stream);

cudaError_t raw_matmul(const RawMatmul& arguments, cudaStream_t stream) {
  return formats::visit_format(
      arguments.format, [&]<class F>(F) { return launch_raw_matmul<F>(arguments, stream); },
      [] { return cudaErrorInvalidValue; });
}

}  // namespace quantloom::kernels
