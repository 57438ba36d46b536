#include "dequantize/dequantize.h"

#include "dequantize/dequantize_kernel.cuh"
#include "formats/list.h"

namespace quantloom::kernels {

#define QL_EXTERN(F) QUANTLOOM_DEQUANTIZE_INSTANCE(extern, F)
QL_QUANTIZED_FORMATS(QL_EXTERN)
#undef QL_EXTERN

namespace {

template <class F, class Out>
__global__ void convert_kernel(const typename F::Block* in, std::int64_t count,
                               typename Out::Element* out) {
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += step) {
    store1(Out{}, out + i, F::decode(in[i]));
  }
}

constexpr int convert_threads = 256;
constexpr int convert_elements = 16 * convert_threads;  // a thread block's

// Whole thread blocks, both pointers 16-byte aligned.
template <class F, class Out>
__global__ void convert_tiles(const typename F::Block* in, typename Out::Element* out) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  union {
    uint4 word[F::bytes];
    typename F::Block element[16];
  } data;
  for (int w = 0; w < F::bytes; ++w) {
    data.word[w] = __ldcs(reinterpret_cast<const uint4*>(in) + F::bytes * i + w);
  }
  float value[16];
  for (int j = 0; j < 16; ++j) value[j] = F::decode(data.element[j]);
  store16<Out>(out + 16 * i, value);
}

template <class F, class Out>
cudaError_t convert(const void* blocks, std::int64_t elements, void* out, cudaStream_t stream) {
  using Block = typename F::Block;
  using Element = typename Out::Element;
  const auto* in = static_cast<const Block*>(blocks);
  auto* target = static_cast<Element*>(out);
  const bool aligned =
      (reinterpret_cast<std::uintptr_t>(blocks) | reinterpret_cast<std::uintptr_t>(out)) % 16 == 0;
  const std::int64_t tiles = aligned ? elements / convert_elements : 0;
  if (tiles > 0x7fffffff) return cudaErrorInvalidValue;
  if (tiles > 0) {
    convert_tiles<F, Out><<<static_cast<unsigned>(tiles), convert_threads, 0, stream>>>(in, target);
  }
  const std::int64_t first = tiles * convert_elements;
  const std::int64_t rest = elements - first;
  if (rest > 0) {
    const std::int64_t wanted = (rest + convert_threads - 1) / convert_threads;
    convert_kernel<F, Out>
        <<<grid_size(wanted, 8), convert_threads, 0, stream>>>(in + first, rest, target + first);
  }
  return cudaGetLastError();
}

template <class F, class Out>
cudaError_t launch(const void* blocks, std::int64_t elements, void* out, cudaStream_t stream) {
  if constexpr (F::format == Out::format) {
    return cudaMemcpyAsync(out, blocks, static_cast<std::size_t>(elements) * F::bytes,
                           cudaMemcpyDeviceToDevice, stream);
  } else if constexpr (F::quantized) {
    return launch_dequantize<F, Out>(blocks, elements, out, stream);
  } else {
    return convert<F, Out>(blocks, elements, out, stream);
  }
}

bool is_aligned(const void* pointer, std::size_t bytes) {
  return reinterpret_cast<std::uintptr_t>(pointer) % bytes == 0;
}

}  // namespace

cudaError_t dequantize(formats::Format format, const void* blocks, std::int64_t elements,
                       formats::Format out_format, void* out, cudaStream_t stream) {
  return formats::visit_format(
      format,
      [&]<class F>(F) {
        if (elements < 0 || elements % F::elements != 0 ||
            !is_aligned(blocks, alignof(typename F::Block))) {
          return cudaErrorInvalidValue;
        }
        const std::size_t element = out_format == formats::Format::f32 ? 4 : 2;
        if (!is_aligned(out, element)) return cudaErrorInvalidValue;
        if (elements == 0) return cudaSuccess;
        switch (out_format) {
          case formats::Format::f32:
            return launch<F, ToF32>(blocks, elements, out, stream);
          case formats::Format::f16:
            return launch<F, ToF16>(blocks, elements, out, stream);
          case formats::Format::bf16:
            return launch<F, ToBF16>(blocks, elements, out, stream);
          default:
            return cudaErrorInvalidValue;
        }
      },
      [] { return cudaErrorInvalidValue; });
}

cudaError_t embed(formats::Format format, const void* table, std::int64_t rows,
                  std::int64_t columns, const std::int32_t* tokens, std::int64_t count, float scale,
                  float* out, cudaStream_t stream) {
  return formats::visit_format(
      format,
      [&]<class F>(F) {
        if (rows <= 0 || columns <= 0 || columns % F::elements != 0 || count < 0 ||
            count > 0x7fffffff || !is_aligned(table, alignof(typename F::Block))) {
          return cudaErrorInvalidValue;
        }
        if (count == 0) return cudaSuccess;
        return launch_embed<F>(table, rows, columns, tokens, count, scale, out, stream);
      },
      [] { return cudaErrorInvalidValue; });
}

}  // namespace quantloom::kernels
