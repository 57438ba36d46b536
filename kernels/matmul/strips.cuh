// The strips of a call's weights as one list, and what is done with a finished sum.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "matmul/matmul.h"
#include "matmul/planes.h"

namespace quantloom::kernels {

// gate_up interleaves the two weights' strips (gate 0, up 0, gate 1, ...), so that a block has
// both.
struct StripList {
  const std::uint8_t* planes[matmul_most_weights];
  const float* bias[matmul_most_weights];
  void* out[matmul_most_weights];
  const float* largest[matmul_most_weights];  // largest absolute weight
  int rows[matmul_most_weights];
  int first[matmul_most_weights + 1];  // strips before each weight
  int columns;
  int tokens;
  MatmulEpilogue epilogue;
  Activation activation;
  formats::Format out_type;
  bool prepares_out;
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

__device__ inline float activate(float x, Activation activation) {
  switch (activation) {
    case Activation::gelu:
      return 0.5f * x * (1.0f + erff(x * 0.70710678f));
    case Activation::gelu_tanh:
      return 0.5f * x * (1.0f + tanhf(0.79788456f * (x + 0.044715f * x * x * x)));
    default:
      return x / (1.0f + __expf(-x));
  }
}

// value at out[at], of the list's type.
__device__ inline void store_value(const StripList& list, int weight, std::int64_t at,
                                   float value) {
  void* out = list.out[weight];
  if (list.out_type == formats::Format::f32) {
    static_cast<float*>(out)[at] = value;
  } else if (list.out_type == formats::Format::f16) {
    static_cast<__half*>(out)[at] = __float2half_rn(value);
  } else {
    static_cast<__nv_bfloat16*>(out)[at] = __float2bfloat16_rn(value);
  }
}

__device__ inline void store_sum(const StripList& list, Strip strip, int row_in_strip, int token,
                                 float sum) {
  const int row = strip.index * strip_rows + row_in_strip;
  const int rows = list.rows[strip.weight];
  if (row >= rows) return;
  const float* bias = list.bias[strip.weight];
  if (bias != nullptr) sum += bias[row];
  const std::int64_t at = static_cast<std::int64_t>(token) * rows + row;
  if (list.epilogue == MatmulEpilogue::add) {
    static_cast<float*>(list.out[strip.weight])[at] += sum;
  } else {
    store_value(list, strip.weight, at, sum);
  }
}

__device__ inline void store_gated(const StripList& list, int strip, int row_in_strip, int token,
                                   float gate, float up) {
  const int row = strip * strip_rows + row_in_strip;
  if (row >= list.rows[0]) return;
  if (list.bias[0] != nullptr) gate += list.bias[0][row];
  if (list.bias[1] != nullptr) up += list.bias[1][row];
  static_cast<float*>(list.out[0])[static_cast<std::int64_t>(token) * list.rows[0] + row] =
      activate(gate, list.activation) * up;
}

// Walks the slots w, w + warps, w + 2 * warps, ... of strips first .. last - 1 without a division
// and, for the loops that it feeds are bound by instructions, without a loop in a step. A slot is
// one piece or a few neighbours.
class SlotWalk {
 public:
  __device__ SlotWalk(const StripList& list, int slots, int slot_bytes, int strip_bytes, int first,
                      int last, int warp, int warps)
      : list_(list),
        slots_(slots),
        strip_bytes_(strip_bytes),
        last_(last),
        step_slots_(warps),
        step_bytes_(warps * slot_bytes),
        wrap_bytes_(strip_bytes - slots * slot_bytes),
        slot_(warp),
        strip_(first) {
    locate();
    at_ += warp * slot_bytes;
    while (slot_ >= slots_) wrap();
    while (step_slots_ >= slots_) {
      step_slots_ -= slots_, ++step_strips_;
      step_bytes_ += wrap_bytes_;
    }
    enter_weight();
  }
  __device__ bool done() const { return strip_ >= last_; }
  __device__ int strip() const { return strip_; }
  __device__ int slot() const { return slot_; }
  __device__ const std::uint8_t* at() const { return at_; }
  __device__ void next() {
    slot_ += step_slots_, strip_ += step_strips_;
    at_ += step_bytes_;
    if (slot_ >= slots_) wrap();
    enter_weight();
  }

 private:
  __device__ void wrap() {
    slot_ -= slots_, ++strip_;
    at_ += wrap_bytes_;
  }
  __device__ void enter_weight() {
    if (strip_ < weight_end_ || strip_ >= last_) return;
    const std::uint8_t* expected =
        strip_start_ + static_cast<std::int64_t>(strip_ - located_) * strip_bytes_;
    const std::int64_t inside = at_ - expected;
    locate();
    at_ += inside;
  }
  // Sets at_ to the start of strip_.
  __device__ void locate() {
    const Strip s = find_strip(list_, strip_);
    strip_start_ = list_.planes[s.weight] + static_cast<std::int64_t>(s.index) * strip_bytes_;
    at_ = strip_start_;
    located_ = strip_;
    weight_end_ =
        list_.epilogue == MatmulEpilogue::gate_up ? strip_ + 1 : list_.first[s.weight + 1];
  }
  const StripList& list_;
  int slots_, strip_bytes_, last_, step_slots_, step_bytes_, wrap_bytes_, slot_, strip_;
  int step_strips_ = 0, located_ = 0, weight_end_ = 0;
  const std::uint8_t* at_ = nullptr;
  const std::uint8_t* strip_start_ = nullptr;
};

}  // namespace quantloom::kernels
