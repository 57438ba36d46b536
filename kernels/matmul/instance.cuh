// What a file of instances/ gives the dispatcher: the kernels of one format.
#pragma once

#include "matmul/codebook_planes.h"
#include "matmul/linear_planes.h"
#include "matmul/repack.cuh"
#include "matmul/stream_few.cuh"
#include "matmul/stream_one.cuh"

namespace quantloom::kernels {

struct FormatKernels {
  int elements;  // per block
  int bytes;
  MatmulStatus (*repack)(const void*, void*, const RepackShape&, cudaStream_t);
  MatmulStatus (*unpack)(const void*, void*, const RepackShape&, cudaStream_t);
  MatmulStatus (*stream_one)(const StripList&, const float*, int, int, int, bool, cudaStream_t);
  MatmulStatus (*stream_few)(const StripList&, const float*, int, int, int, bool, void*,
                             cudaStream_t);
  bool (*stream_one_fits)(int columns, int shared_bytes);
};

// Defined by the file of the format's name.
template <class F>
const FormatKernels& format_kernels();

}  // namespace quantloom::kernels

#define QL_MATMUL_INSTANCE(F)                                                               \
  namespace quantloom::kernels {                                                            \
  template <>                                                                               \
  const FormatKernels& format_kernels<formats::F>() {                                       \
    using P = Planes<formats::F>;                                                           \
    static constexpr FormatKernels kernels{formats::F::elements,    formats::F::bytes,      \
                                           launch_repack<P, false>, launch_repack<P, true>, \
                                           launch_stream_one<P>,    launch_stream_few<P>,   \
                                           stream_one_fits<P>};                             \
    return kernels;                                                                         \
  }                                                                                         \
  }
