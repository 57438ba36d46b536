// out = x * transpose(w) with w in its quantized planes. Raw pointers, sizes and a stream; nothing
// here allocates or synchronizes.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>

#include "device/activation.h"
#include "formats/format.h"

namespace quantloom::kernels {

enum class MatmulStatus {
  done,
  unsupported_format,  // no kernel for this format
  bad_shape,           // columns not a whole number of blocks, or a size below 1 or near 2^31
  bad_operation,       // a norm, an epilogue or a type that this call's kernel does not have
  small_workspace,     // matmul_workspace_bytes() says how much
  cuda_error,          // cudaPeekAtLastError() says which
  unsupported_device,  // compute capability below 8.0
};

enum class MatmulEpilogue {
  store,    // out = product + bias
  add,      // out += product + bias
  gate_up,  // out of weight 0 = activation(product 0) * product 1; exactly two weights of one shape
};

enum class MatmulX {
  values,            // [tokens, columns] of x_type
  prepared,          // memory of prepared_bytes() that was filled by the kernel before
  prepared_earlier,  // the same, but the kernel before has itself waited until it was filled
};

// One matrix of rows x MatmulArguments::columns.
struct MatmulWeight {
  const void* planes = nullptr;  // as repack() wrote them
  std::int64_t rows = 0;
  const float* bias = nullptr;  // [rows], or null
  void* out = nullptr;          // [tokens, rows] of MatmulArguments::out_type
  bool operator==(const MatmulWeight&) const = default;
};

constexpr int matmul_most_weights = 3;

struct MatmulArguments {
  formats::Format format = formats::Format::f32;  // of every weight of this call
  std::int64_t columns = 0;
  std::int64_t tokens = 0;
  // Prepared only where matmul_takes_prepared() says so, and without a norm.
  MatmulX x_is = MatmulX::values;
  const void* x = nullptr;
  // f32; f16 or bf16 where matmul_reads() says so.
  formats::Format x_type = formats::Format::f32;
  // f32; f16 or bf16, rounded to nearest even from the float32 sum, where matmul_writes() says so.
  formats::Format out_type = formats::Format::f32;
  // [columns], or null for none: x / sqrt(mean(x^2) + epsilon) * norm is multiplied. Only where
  // matmul_norms() says so.
  const float* norm = nullptr;
  float epsilon = 0;
  MatmulWeight weights[matmul_most_weights];
  int weight_count = 1;
  MatmulEpilogue epilogue = MatmulEpilogue::store;
  Activation activation = Activation::silu;
  // gate_up leaves its result as a prepared x in out of weight 0, once finish_prepared() has run.
  // Where matmul_prepares_out() says so.
  bool prepares_out = false;
  void* workspace = nullptr;  // 256-byte aligned, zeroed once after its allocation
  std::size_t workspace_bytes = 0;
  bool invariant = false;  // a token's result has the same bits whatever the other tokens are and
                           // however many: one kernel, split by the matrix alone; slower
  bool overlap = false;    // programmatic dependent launch: weights are fetched before the previous
                           // kernel has ended
};

// Bytes of the planes: rows are padded to a multiple of 16, otherwise what the blocks take in the
// file, and 16 bytes that hold the largest absolute weight (it scales the weights into the range of
// a half).
std::size_t planes_bytes(formats::Format format, std::int64_t rows, std::int64_t columns);

// Rows first_row .. first_row + rows - 1 from GGUF blocks in device memory into the planes of the
// whole matrix, and back. first_row is a multiple of 16; so is rows, except at the matrix's end.
// The call with first_row 0 comes first, unless the caller has zeroed the planes' last 16 bytes.
MatmulStatus repack(formats::Format format, const void* blocks, void* planes,
                    std::int64_t first_row, std::int64_t rows, std::int64_t matrix_rows,
                    std::int64_t columns, cudaStream_t stream, bool zeroed = false);
MatmulStatus unpack(formats::Format format, const void* planes, void* blocks,
                    std::int64_t first_row, std::int64_t rows, std::int64_t columns,
                    cudaStream_t stream);

std::size_t matmul_workspace_bytes(const MatmulArguments& arguments);

constexpr std::int64_t type_bytes(formats::Format type) {
  return type == formats::Format::f32 ? 4 : 2;
}
// Advances x and every out by so many tokens.
inline void skip_tokens(MatmulArguments& arguments, std::int64_t tokens) {
  arguments.x = static_cast<const char*>(arguments.x) +
                tokens * arguments.columns * type_bytes(arguments.x_type);
  for (int i = 0; i < arguments.weight_count; ++i) {
    MatmulWeight& weight = arguments.weights[i];
    if (weight.out == nullptr) continue;
    weight.out =
        static_cast<char*>(weight.out) + tokens * weight.rows * type_bytes(arguments.out_type);
  }
}

// What the kernel for many tokens multiplies: halves in the order of its steps, scaled by a power
// of two per token. matmul() fills such memory for itself (wide.h) where it is given values.
std::size_t prepared_bytes(std::int64_t tokens, std::int64_t columns);
bool matmul_takes_prepared(const MatmulArguments& arguments);
bool matmul_prepares_out(const MatmulArguments& arguments);
// Where in its workspace matmul() leaves x prepared for the next call on the stream; null: nowhere.
const void* matmul_prepared_x(const MatmulArguments& arguments);
MatmulStatus finish_prepared(void* prepared, std::int64_t tokens, std::int64_t columns,
                             cudaStream_t stream);
// Whether matmul() reads x as x_type in this call: where it writes x anew for its kernel anyway.
bool matmul_reads(const MatmulArguments& arguments);
// Whether matmul() writes out_type in this call: 16 bits with the epilogue store and rows in fours.
bool matmul_writes(const MatmulArguments& arguments);
// Whether matmul() takes a norm in this call: where it writes x anew for its kernel anyway.
bool matmul_norms(const MatmulArguments& arguments);
// Whether matmul() has the epilogue gate_up for this call. The kernel for many tokens has no GELU
// by the error function.
bool matmul_gates(const MatmulArguments& arguments);

// Whether matmul() rounds x to halves in this call; elsewhere it has 16 bits in fixed point.
bool matmul_rounds_x(const MatmulArguments& arguments);

MatmulStatus matmul(const MatmulArguments& arguments, cudaStream_t stream);

// The kernel that matmul() would take, for explain(): "stream-1", "stream-8" or "wide".
const char* matmul_kernel_name(const MatmulArguments& arguments);

}  // namespace quantloom::kernels
