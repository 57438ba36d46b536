// The strips of a call's weights as one list, and what is done with a finished sum.
#pragma once

#include "matmul/matmul.h"
#include "matmul/planes.h"

namespace quantloom::kernels {

// gate_up interleaves the two weights' strips (gate 0, up 0, gate 1, ...), so that a block has both.
struct StripList {
  const std::uint8_t* planes[matmul_most_weights];
  const float* bias[matmul_most_weights];
  float* out[matmul_most_weights];
  const float* largest[matmul_most_weights];  // largest absolute weight
  int rows[matmul_most_weights];
  int first[matmul_most_weights + 1];  // strips before each weight
  int columns;
  int tokens;
  MatmulEpilogue epilogue;
  MatmulActivation activation;
};

struct Strip {
  int weight;
  int index;  // within the weight
};

__device__ inline Strip find_strip(const StripList& list, int s) {
  if (list.epilogue == MatmulEpilogue::gate_up) return {s & 1, s >> 1};
  int weight = 0;
  if (s >= list.first[1]) weight = 1;
  if (s >= list.first[2]) weight = 2;
  return {weight, s - list.first[weight]};
}

__device__ inline float activate(float x, MatmulActivation activation) {
  switch (activation) {
    case MatmulActivation::gelu: return 0.5f * x * (1.0f + erff(x * 0.70710678f));
    case MatmulActivation::gelu_tanh:
      return 0.5f * x * (1.0f + tanhf(0.79788456f * (x + 0.044715f * x * x * x)));
    default: return x / (1.0f + __expf(-x));
  }
}

__device__ inline void store_sum(const StripList& list, Strip strip, int row_in_strip, int token,
                                 float sum) {
  const int row = strip.index * strip_rows + row_in_strip;
  const int rows = list.rows[strip.weight];
  if (row >= rows) return;
  const float* bias = list.bias[strip.weight];
  if (bias != nullptr) sum += bias[row];
  float* out = list.out[strip.weight] + static_cast<std::int64_t>(token) * rows + row;
  *out = list.epilogue == MatmulEpilogue::add ? *out + sum : sum;
}

__device__ inline void store_gated(const StripList& list, int strip, int row_in_strip, int token,
                                   float gate, float up) {
  const int row = strip * strip_rows + row_in_strip;
  if (row >= list.rows[0]) return;
  if (list.bias[0] != nullptr) gate += list.bias[0][row];
  if (list.bias[1] != nullptr) up += list.bias[1][row];
  list.out[0][static_cast<std::int64_t>(token) * list.rows[0] + row] =
      activate(gate, list.activation) * up;
}

// Walks the pieces w, w + warps, w + 2 * warps, ... of strips first .. last - 1 without a division.
class PieceWalk {
 public:
  __device__ PieceWalk(const StripList& list, int pieces, int row_bytes, int first, int last,
                       int warp, int warps)
      : list_(list), pieces_(pieces), strip_bytes_(row_bytes * strip_rows), last_(last),
        warps_(warps), strip_(first), piece_(warp) {
    wrap();
    locate();
  }
  __device__ bool done() const { return strip_ >= last_; }
  __device__ int strip() const { return strip_; }
  __device__ int piece() const { return piece_; }
  __device__ const std::uint8_t* strip_start() const { return start_; }
  __device__ void next() {
    piece_ += warps_;
    if (piece_ >= pieces_) {
      wrap();
      locate();
    }
  }

 private:
  __device__ void wrap() {
    while (piece_ >= pieces_) piece_ -= pieces_, ++strip_;
  }
  __device__ void locate() {
    if (done()) return;
    const Strip s = find_strip(list_, strip_);
    start_ = list_.planes[s.weight] + static_cast<std::int64_t>(s.index) * strip_bytes_;
  }
  const StripList& list_;
  int pieces_, strip_bytes_, last_, warps_, strip_, piece_;
  const std::uint8_t* start_ = nullptr;
};

}  // namespace quantloom::kernels
