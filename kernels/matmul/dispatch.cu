#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>

#include "device/limits.h"
#include "matmul/instance.cuh"
#include "matmul/wide.h"

namespace quantloom::kernels {

#define QL_DECLARE(F)                                \
  template <>                                        \
  const FormatKernels& format_kernels<formats::F>(); \
  template <>                                        \
  WideLaunch wide_kernel<formats::F>();
QL_QUANTIZED_FORMATS(QL_DECLARE)
#undef QL_DECLARE

namespace {

const FormatKernels* find_kernels(formats::Format format) {
  switch (format) {
#define QL_CASE(F)         \
  case formats::F::format: \
    return &format_kernels<formats::F>();
    QL_QUANTIZED_FORMATS(QL_CASE)
#undef QL_CASE
    default:
      return nullptr;
  }
}

#if defined(QUANTLOOM_HAS_SM90)
WideLaunch find_wide(formats::Format format) {
  switch (format) {
#define QL_CASE(F)         \
  case formats::F::format: \
    return wide_kernel<formats::F>();
    QL_QUANTIZED_FORMATS(QL_CASE)
#undef QL_CASE
    default:
      return nullptr;
  }
}
#endif

StripList strip_list(const MatmulArguments& arguments, int& strips) {
  StripList list{};
  strips = 0;
  for (int i = 0; i < matmul_most_weights; ++i) {
    list.first[i] = strips;
    if (i >= arguments.weight_count) continue;
    const MatmulWeight& weight = arguments.weights[i];
    list.planes[i] = static_cast<const std::uint8_t*>(weight.planes);
    list.bias[i] = weight.bias;
    list.out[i] = weight.out;
    list.rows[i] = static_cast<int>(weight.rows);
    list.largest[i] = reinterpret_cast<const float*>(
        list.planes[i] + planes_bytes(arguments.format, weight.rows, arguments.columns) -
        planes_trailer);
    strips += static_cast<int>((weight.rows + strip_rows - 1) / strip_rows);
  }
  list.first[matmul_most_weights] = strips;
  for (int i = arguments.weight_count; i < matmul_most_weights; ++i) list.first[i] = strips;
  list.columns = static_cast<int>(arguments.columns);
  list.tokens = static_cast<int>(arguments.tokens);
  list.epilogue = arguments.epilogue;
  list.activation = arguments.activation;
  list.out_type = arguments.out_type;
  list.prepares_out = arguments.prepares_out;
  return list;
}

int count_strips(const MatmulArguments& arguments) {
  int strips = 0;
  for (int i = 0; i < arguments.weight_count; ++i) {
    strips += static_cast<int>((arguments.weights[i].rows + strip_rows - 1) / strip_rows);
  }
  return strips;
}

// Kernels count in 32 bits; a last tile of rows, columns or tokens goes past the end.
bool counts(std::int64_t size) { return size >= 1 && size <= INT32_MAX - 512; }

bool bound_by_bytes(const FormatKernels& kernels) { return kernels.bytes > kernels.elements; }

// Of `tokens` of the call's.
WidePlan plan_wide(const MatmulArguments& arguments, std::int64_t tokens, int strips,
                   const DeviceLimits& limits) {
  const FormatKernels* kernels = find_kernels(arguments.format);
  return wide_plan(static_cast<int>(tokens), static_cast<int>(arguments.columns), strips,
                   limits.processors, arguments.invariant,
                   kernels != nullptr && bound_by_bytes(*kernels));
}

// Tokens per launch: the sums over the columns' splits of an invariant call would grow with them.
std::int64_t wide_batch(const MatmulArguments& arguments, int strips) {
  const bool split = wide_fixed_splits(static_cast<int>(arguments.columns), strips) > 1;
  return arguments.invariant && split ? 256 : arguments.tokens;
}

// Calls launch(x) for `most` tokens at a time, with the list's tokens and outputs set to them.
template <class Launch>
MatmulStatus by_batches(MatmulArguments arguments, std::int64_t most, StripList& list,
                        Launch&& launch) {
  for (std::int64_t left = arguments.tokens; left > 0; left -= most) {
    list.tokens = static_cast<int>(std::min(most, left));
    for (int i = 0; i < arguments.weight_count; ++i) list.out[i] = arguments.weights[i].out;
    const MatmulStatus status = launch(arguments.x);
    if (status != MatmulStatus::done) return status;
    skip_tokens(arguments, list.tokens);
  }
  return MatmulStatus::done;
}

// Whether the Hopper kernel for many tokens serves this call.
bool takes_wide(const MatmulArguments& arguments, const DeviceLimits& limits) {
#if defined(QUANTLOOM_HAS_SM90)
  return limits.capability == 90 && (arguments.invariant || arguments.tokens >= wide_least_tokens);
#else
  static_cast<void>(arguments), static_cast<void>(limits);
  return false;
#endif
}

// Whether the kernel for many tokens converts x itself, for one tile of 16: that is 2 us less than
// a kernel of its own, but a tenth more instructions, so it is for blocks with few pieces and for
// weights whose bytes take longer than their instructions (measured on an H200).
bool wide_converts(const MatmulArguments& arguments, const WidePlan& plan,
                   const FormatKernels& kernels) {
  return arguments.x_is == MatmulX::values && arguments.norm == nullptr && !arguments.invariant &&
         plan.tile_tokens == 16 && plan.tiles == 1 &&
         (plan.block_pieces <= 7 || bound_by_bytes(kernels));
}

// Whether the kernel for one token serves this call, a token at a time.
bool takes_one(const FormatKernels& kernels, const MatmulArguments& arguments,
               const DeviceLimits& limits) {
  return (arguments.tokens == 1 || arguments.invariant) &&
         kernels.stream_one_fits(static_cast<int>(arguments.columns), limits.shared_bytes);
}

// Tokens of a launch of the kernel for a few.
std::int64_t few_batch(const MatmulArguments& arguments) {
  return arguments.invariant ? 1 : few_tokens;
}

}  // namespace

std::size_t planes_bytes(formats::Format format, std::int64_t rows, std::int64_t columns) {
  const FormatKernels* kernels = find_kernels(format);
  if (kernels == nullptr) return 0;
  const std::int64_t padded = (rows + strip_rows - 1) / strip_rows * strip_rows;
  return static_cast<std::size_t>(padded * (columns / kernels->elements) * kernels->bytes) +
         planes_trailer;
}

MatmulStatus repack(formats::Format format, const void* blocks, void* planes,
                    std::int64_t first_row, std::int64_t rows, std::int64_t matrix_rows,
                    std::int64_t columns, cudaStream_t stream, bool zeroed) {
  const FormatKernels* kernels = find_kernels(format);
  if (kernels == nullptr) return MatmulStatus::unsupported_format;
  if (rows < 1 || !counts(columns) || columns % kernels->elements != 0 ||
      first_row % strip_rows != 0 || first_row + rows > matrix_rows || !counts(matrix_rows)) {
    return MatmulStatus::bad_shape;
  }
  auto* trailer = static_cast<std::uint8_t*>(planes) + planes_bytes(format, matrix_rows, columns) -
                  planes_trailer;
  if (first_row == 0 && !zeroed &&
      cudaMemsetAsync(trailer, 0, planes_trailer, stream) != cudaSuccess) {
    return MatmulStatus::cuda_error;
  }
  return kernels->repack(
      blocks, planes,
      {first_row, rows, static_cast<int>(columns), reinterpret_cast<unsigned*>(trailer)}, stream);
}

MatmulStatus unpack(formats::Format format, const void* planes, void* blocks,
                    std::int64_t first_row, std::int64_t rows, std::int64_t columns,
                    cudaStream_t stream) {
  const FormatKernels* kernels = find_kernels(format);
  if (kernels == nullptr) return MatmulStatus::unsupported_format;
  if (!counts(rows) || !counts(columns) || columns % kernels->elements != 0 ||
      first_row % strip_rows != 0) {
    return MatmulStatus::bad_shape;
  }
  return kernels->unpack(planes, blocks, {first_row, rows, static_cast<int>(columns)}, stream);
}

std::size_t matmul_workspace_bytes(const MatmulArguments& arguments) {
  DeviceLimits limits;
  if (!device_limits(limits)) return 0;
  const int strips = count_strips(arguments);
  const int columns = static_cast<int>(arguments.columns);
  if (takes_wide(arguments, limits)) {
    const std::int64_t tokens = std::min(arguments.tokens, wide_batch(arguments, strips));
    return plan_wide(arguments, tokens, strips, limits).bytes;
  }
  const FormatKernels* kernels = find_kernels(arguments.format);
  if (kernels == nullptr || takes_one(*kernels, arguments, limits)) return 0;
  const auto tokens = static_cast<int>(std::min(arguments.tokens, few_batch(arguments)));
  return few_workspace(tokens, columns, strips, limits.shared_bytes).bytes;
}

std::size_t prepared_bytes(std::int64_t tokens, std::int64_t columns) {
  return prepared_layout(static_cast<int>(tokens), static_cast<int>(columns)).bytes;
}

// An invariant call that is split takes as many tokens at a time as its sums have room for.
bool matmul_takes_prepared(const MatmulArguments& arguments) {
  DeviceLimits limits;
  return device_limits(limits) && takes_wide(arguments, limits) && arguments.norm == nullptr &&
         wide_batch(arguments, count_strips(arguments)) >= arguments.tokens;
}

bool matmul_prepares_out(const MatmulArguments& arguments) {
  DeviceLimits limits;
  const int strips = count_strips(arguments);
  return arguments.epilogue == MatmulEpilogue::gate_up && matmul_gates(arguments) &&
         device_limits(limits) && takes_wide(arguments, limits) &&
         arguments.weights[0].rows % 64 == 0 &&
         plan_wide(arguments, arguments.tokens, strips, limits).splits == 1;
}

const void* matmul_prepared_x(const MatmulArguments& arguments) {
  MatmulArguments next = arguments;
  next.norm = nullptr;
  if (arguments.x_is != MatmulX::values) return arguments.x;
  if (!matmul_takes_prepared(next)) return nullptr;
  DeviceLimits limits;
  const FormatKernels* kernels = find_kernels(arguments.format);
  if (kernels == nullptr || !device_limits(limits)) return nullptr;
  const WidePlan plan = plan_wide(arguments, arguments.tokens, count_strips(arguments), limits);
  if (wide_converts(arguments, plan, *kernels)) return nullptr;
  return static_cast<const std::uint8_t*>(arguments.workspace) + wide_workspace_start;
}

MatmulStatus finish_prepared(void* prepared, std::int64_t tokens, std::int64_t columns,
                             cudaStream_t stream) {
  return align_steps(prepared, static_cast<int>(tokens), static_cast<int>(columns), stream);
}

bool matmul_reads(const MatmulArguments& arguments) {
  DeviceLimits limits;
  return arguments.x_type == formats::Format::f32 ||
         (device_limits(limits) && takes_wide(arguments, limits));
}

bool matmul_writes(const MatmulArguments& arguments) {
  if (arguments.out_type == formats::Format::f32) return true;
  return arguments.epilogue == MatmulEpilogue::store &&
         std::all_of(arguments.weights, arguments.weights + arguments.weight_count,
                     [](const MatmulWeight& weight) { return weight.rows % 4 == 0; });
}

bool matmul_norms(const MatmulArguments& arguments) { return matmul_rounds_x(arguments); }

bool matmul_gates(const MatmulArguments& arguments) {
  DeviceLimits limits;
  return arguments.activation != Activation::gelu ||
         (device_limits(limits) && !takes_wide(arguments, limits));
}

bool matmul_rounds_x(const MatmulArguments& arguments) {
  DeviceLimits limits;
  return device_limits(limits) && takes_wide(arguments, limits);
}

MatmulStatus matmul(const MatmulArguments& arguments, cudaStream_t stream) {
  const FormatKernels* kernels = find_kernels(arguments.format);
  if (kernels == nullptr) return MatmulStatus::unsupported_format;
  if (!counts(arguments.columns) || arguments.columns % kernels->elements != 0 ||
      !counts(arguments.tokens) || arguments.weight_count < 1 ||
      arguments.weight_count > matmul_most_weights) {
    return MatmulStatus::bad_shape;
  }
  for (int i = 0; i < arguments.weight_count; ++i) {
    if (!counts(arguments.weights[i].rows)) return MatmulStatus::bad_shape;
  }
  if (arguments.workspace_bytes < matmul_workspace_bytes(arguments)) {
    return MatmulStatus::small_workspace;
  }
  DeviceLimits limits;
  if (!device_limits(limits)) return MatmulStatus::cuda_error;
  if (limits.capability < 80) return MatmulStatus::unsupported_device;
  if ((arguments.norm != nullptr && !matmul_norms(arguments)) || !matmul_reads(arguments) ||
      (arguments.norm != nullptr && arguments.x_type != formats::Format::f32) ||
      !matmul_writes(arguments) ||
      (arguments.x_is != MatmulX::values && !matmul_takes_prepared(arguments)) ||
      (arguments.prepares_out && !matmul_prepares_out(arguments)) ||
      (arguments.epilogue == MatmulEpilogue::gate_up && !matmul_gates(arguments))) {
    return MatmulStatus::bad_operation;
  }
  int strips = 0;
  StripList list = strip_list(arguments, strips);
#if defined(QUANTLOOM_HAS_SM90)
  if (takes_wide(arguments, limits)) {
    return by_batches(arguments, wide_batch(arguments, strips), list, [&](const void* x) {
      const WidePlan plan = plan_wide(arguments, list.tokens, strips, limits);
      const PreparedLayout layout = prepared_layout(list.tokens, list.columns);
      const bool is_there = arguments.x_is != MatmulX::values;
      if (wide_converts(arguments, plan, *kernels)) {
        return find_wide(arguments.format)(
            list, strips, plan,
            {.values = x, .type = arguments.x_type, .overlap = arguments.overlap},
            arguments.workspace, limits.processors, stream);
      }
      const std::uint8_t* prepared = static_cast<const std::uint8_t*>(x);
      if (!is_there) {
        std::uint8_t* to = static_cast<std::uint8_t*>(arguments.workspace) + plan.x;
        prepared = to;
        const MatmulStatus status =
            prepare_image({.x = x,
                           .x_type = arguments.x_type,
                           .norm = arguments.norm,
                           .epsilon = arguments.epsilon,
                           .columns = list.columns,
                           .tokens = list.tokens,
                           .padded_tokens = layout.padded_tokens,
                           .image = reinterpret_cast<__half*>(to + layout.image),
                           .scales = reinterpret_cast<float*>(to + layout.scales),
                           .lets_in = wide_lets_in(layout.padded_tokens, list.columns)},
                          arguments.overlap, stream);
        if (status != MatmulStatus::done) return status;
      }
      return find_wide(arguments.format)(
          list, strips, plan,
          {.image = reinterpret_cast<const __half*>(prepared + layout.image),
           .scales = reinterpret_cast<const float*>(prepared + layout.scales),
           .waits_late = arguments.x_is == MatmulX::prepared_earlier},
          arguments.workspace, limits.processors, stream);
    });
  }
#endif
  if (takes_one(*kernels, arguments, limits)) {
    return by_batches(arguments, 1, list, [&](const void* x) {
      return kernels->stream_one(list, static_cast<const float*>(x), strips, limits.processors,
                                 limits.shared_bytes, arguments.overlap, stream);
    });
  }
  return by_batches(arguments, few_batch(arguments), list, [&](const void* x) {
    return kernels->stream_few(list, static_cast<const float*>(x), strips, limits.processors,
                               limits.shared_bytes, arguments.overlap, arguments.workspace, stream);
  });
}

const char* matmul_kernel_name(const MatmulArguments& arguments) {
  DeviceLimits limits;
  if (!device_limits(limits)) return "none";
  if (takes_wide(arguments, limits)) return "wide";
  const FormatKernels* kernels = find_kernels(arguments.format);
  return kernels != nullptr && takes_one(*kernels, arguments, limits) ? "stream-1" : "stream-8";
}

}  // namespace quantloom::kernels
