// Steps 4 to 7 of the sampler: where the kept candidates end, found by radix selection over counts or masses.
#pragma once

#include "sample/adjust.cuh"

namespace quantloom::kernels {

constexpr int weigh_threads = 256;
constexpr int select_threads = 1024;
constexpr int digit_bits = 8;
constexpr int digits = 1 << digit_bits;

// Candidates near enough to the highest logit to matter, with their masses, in any order.
__global__ void __launch_bounds__(weigh_threads) weigh(ops::Sample a, SampleArrays arrays) {
  SampleSpace& space = *arrays.space;
  if (space.status != static_cast<int>(ops::ChoiceStatus::chosen)) return;
  const float temperature = a.parameters->temperature;
  const float highest = __fdiv_rn(key_logit(space.best), temperature);
  const int vocabulary = static_cast<int>(a.vocabulary);
  const int stride = gridDim.x * weigh_threads;
  for (int base = blockIdx.x * weigh_threads; base < vocabulary; base += stride) {
    const int i = base + static_cast<int>(threadIdx.x);
    const float logit = i < vocabulary ? __fdiv_rn(arrays.adjusted[i], temperature) : -INFINITY;
    const bool kept = logit >= highest - candidate_range;
    const unsigned lanes = __ballot_sync(0xffffffffu, kept);
    int slot = 0;
    if (threadIdx.x % 32 == 0 && lanes != 0) slot = atomicAdd(&space.candidates, __popc(lanes));
    slot = __shfl_sync(0xffffffffu, slot, 0) + __popc(lanes & ((1u << (threadIdx.x % 32)) - 1));
    if (kept) {
      arrays.keys[slot] = make_key(logit, i);
      arrays.masses[slot] = static_cast<unsigned long long>(
          rint(exp(static_cast<double>(logit) - static_cast<double>(highest)) * mass_unit));
    }
  }
}

__device__ inline unsigned long long block_sum_integer(unsigned long long value) {
  __shared__ unsigned long long total;
  __syncthreads();
  if (threadIdx.x == 0) total = 0;
  __syncthreads();
  atomicAdd(&total, value);
  __syncthreads();
  return total;
}

struct SelectSpace {
  unsigned long long histogram[digits];
  unsigned long long above;
  int chosen;
};

// One warp: the highest digit at which the weight from above reaches `wanted`, or the lowest one that has weight.
__device__ inline void choose_digit(SelectSpace& shared, unsigned long long passed,
                                    unsigned long long wanted) {
  constexpr int each = digits / 32;
  const int lane = threadIdx.x;
  const int top = digits - 1 - lane * each;  // lanes take runs of digits from the top down
  unsigned long long own = 0;
  for (int i = 0; i < each; ++i) own += shared.histogram[top - i];
  unsigned long long through = own;  // of this lane and those before it
  for (int step = 1; step < 32; step *= 2) {
    const unsigned long long other = __shfl_up_sync(0xffffffffu, through, step);
    if (lane >= step) through += other;
  }
  const unsigned reached = __ballot_sync(0xffffffffu, passed + through >= wanted);
  const unsigned present = __ballot_sync(0xffffffffu, own != 0);
  const int winner = reached != 0 ? __ffs(reached) - 1 : 31 - __clz(present);
  if (lane != winner) return;
  unsigned long long above = passed + through - own;
  int last = top;
  unsigned long long above_last = above;
  for (int i = 0; i < each; ++i) {
    const unsigned long long here = shared.histogram[top - i];
    if (here == 0) continue;
    last = top - i;
    above_last = above;
    above += here;
    if (above >= wanted) break;
  }
  shared.chosen = last;
  shared.above = above_last;
}

// The highest key such that the weights of keys at or above it sum to at least `wanted` (at least 1), over i < size
// with `active(i)`; the lowest active key if they never do. `key(i)`, `weight(i)` are 64-bit integers.
template <class Active, class GetKey, class Weight>
__device__ Key select(SelectSpace& shared, int size, unsigned long long wanted, Active active,
                      GetKey key, Weight weight) {
  Key prefix = 0;
  unsigned long long passed = 0;  // weight of keys above the prefix
  for (int shift = 64 - digit_bits; shift >= 0; shift -= digit_bits) {
    const Key settled = shift + digit_bits == 64 ? 0 : ~Key{0} << (shift + digit_bits);
    for (int i = threadIdx.x; i < digits; i += blockDim.x) shared.histogram[i] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < size; i += blockDim.x) {
      if (!active(i)) continue;
      const Key k = key(i);
      if ((k & settled) == prefix) {
        atomicAdd(&shared.histogram[(k >> shift) & (digits - 1)], weight(i));
      }
    }
    __syncthreads();
    if (threadIdx.x < 32) choose_digit(shared, passed, wanted);
    __syncthreads();
    prefix |= static_cast<Key>(shared.chosen) << shift;
    passed = shared.above;
    __syncthreads();
  }
  return prefix;
}

__global__ void __launch_bounds__(select_threads) select_kept(ops::Sample a, SampleArrays arrays) {
  __shared__ SelectSpace shared;
  SampleSpace& space = *arrays.space;
  if (space.status != static_cast<int>(ops::ChoiceStatus::chosen)) return;
  const ops::SamplerParameters& p = *a.parameters;
  const int size = space.candidates;
  const Key* keys = arrays.keys;
  const unsigned long long* masses = arrays.masses;
  const float highest = __fdiv_rn(key_logit(space.best), p.temperature);
  Key cut = 0;
  const auto kept = [&](int i) { return keys[i] >= cut; };
  const auto key = [&](int i) { return keys[i]; };
  const auto mass = [&](int i) { return masses[i]; };
  const auto kept_mass = [&]() {
    unsigned long long sum = 0;
    for (int i = threadIdx.x; i < size; i += select_threads) sum += kept(i) ? masses[i] : 0;
    return block_sum_integer(sum);
  };
  if (p.top_k > 0 && p.top_k < size) {
    cut = select(shared, size, p.top_k, kept, key, [](int) { return 1ull; });
  }
  if (p.top_p < 1.0f) {
    const double wanted = ceil(static_cast<double>(p.top_p) * static_cast<double>(kept_mass()));
    cut = select(shared, size, max(1ull, static_cast<unsigned long long>(wanted)), kept, key, mass);
  }
  if (p.min_p > 0.0f) {
    // The lowest key that stays: masses fall with keys, so what stays is a run again.
    Key lowest = 0;
    for (int i = threadIdx.x; i < size; i += select_threads) {
      const double w = exp(static_cast<double>(key_logit(keys[i])) - static_cast<double>(highest));
      if (kept(i) && w >= static_cast<double>(p.min_p)) lowest = max(lowest, ~keys[i]);
    }
    cut = max(cut, ~block_max_key(lowest));
  }
  const bool typical = p.typical_p < 1.0f;
  double log_mass = 0;
  double entropy = 0;
  double distance = 0;
  Key typical_cut = 0;
  if (typical) {
    const unsigned long long whole = kept_mass();
    const double sum = static_cast<double>(whole) / mass_unit;
    log_mass = log(sum);
    double part = 0;
    for (int i = threadIdx.x; i < size; i += select_threads) {
      if (!kept(i)) continue;
      const double below =
          static_cast<double>(key_logit(keys[i])) - static_cast<double>(highest);
      part += exp(below) / sum * (log_mass - below);
    }
    entropy = block_sum_double(part);
    // Distances are not negative, so their bits order them; the nearest has the highest complement.
    const auto nearness = [&](int i) {
      return ~static_cast<Key>(__double_as_longlong(
          typical_distance(key_logit(keys[i]), highest, log_mass, entropy)));
    };
    const unsigned long long wanted = max(
        1ull, static_cast<unsigned long long>(
                  ceil(static_cast<double>(p.typical_p) * static_cast<double>(whole))));
    const Key nearest = select(shared, size, wanted, kept, nearness, mass);
    distance = __longlong_as_double(static_cast<long long>(~nearest));
    unsigned long long nearer = 0;
    for (int i = threadIdx.x; i < size; i += select_threads) {
      nearer += kept(i) && nearness(i) > nearest ? masses[i] : 0;
    }
    nearer = block_sum_integer(nearer);
    const unsigned long long missing = wanted > nearer ? wanted - nearer : 1;
    typical_cut = select(
        shared, size, missing, [&](int i) { return kept(i) && nearness(i) == nearest; }, key, mass);
  }
  if (threadIdx.x == 0) {
    space.cut = cut;
    space.typical = typical ? 1 : 0;
    space.log_mass = log_mass;
    space.entropy = entropy;
    space.typical_distance = distance;
    space.typical_cut = typical_cut;
  }
}

}  // namespace quantloom::kernels
