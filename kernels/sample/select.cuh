// Steps 4 to 7 of the sampler: where the kept candidates end, found by radix selection over counts
// or masses.
#pragma once

#include "sample/adjust.cuh"

namespace quantloom::kernels {

constexpr int weigh_threads = 256;
constexpr int select_threads = 1024;
constexpr int digit_bits = 8;
constexpr int digits = 1 << digit_bits;

// One slot for every thread of the warp with `kept`.
__device__ inline int take_slot(bool kept, int* counter) {
  const unsigned lanes = __ballot_sync(0xffffffffu, kept);
  int slot = 0;
  if (threadIdx.x % 32 == 0 && lanes != 0) slot = atomicAdd(counter, __popc(lanes));
  return __shfl_sync(0xffffffffu, slot, 0) + __popc(lanes & ((1u << (threadIdx.x % 32)) - 1));
}

// One warp: the first bin through which the values sum to at least `wanted`, or the last bin, and
// the sum through it.
struct Reached {
  int bin;
  unsigned long long sum;
};
template <class Values>
__device__ Reached first_bin_reaching(unsigned long long wanted, const Values* values) {
  constexpr int each = bins / 32;
  const int lane = static_cast<int>(threadIdx.x % 32);
  unsigned long long own = 0;
  for (int i = 0; i < each; ++i) own += values[lane * each + i];
  unsigned long long through = own;
  for (int step = 1; step < 32; step *= 2) {
    const unsigned long long other = __shfl_up_sync(0xffffffffu, through, step);
    if (lane >= step) through += other;
  }
  const unsigned reached = __ballot_sync(0xffffffffu, through >= wanted);
  const int winner = reached != 0 ? __ffs(reached) - 1 : 31;
  Reached found{winner * each, through - own + values[winner * each]};
  if (lane == winner) {
    while (found.sum < wanted && found.bin < winner * each + each - 1) {
      found.sum += values[++found.bin];
    }
  }
  return {__shfl_sync(0xffffffffu, found.bin, winner), __shfl_sync(0xffffffffu, found.sum, winner)};
}

// One warp: the last bin that steps 4 to 6 can keep anything of.
__device__ inline int last_bin_kept(const ops::SamplerParameters& p, const unsigned* counts,
                                    const unsigned long long* masses,
                                    unsigned long long& whole_mass) {
  constexpr unsigned long long never = ~0ull;
  whole_mass = first_bin_reaching(never, masses).sum;
  // Step 5 needs the mass of all that step 4 keeps, so nothing else narrows then.
  if (p.top_k > 0) {
    return first_bin_reaching(static_cast<unsigned long long>(p.top_k), counts).bin;
  }
  int last = bins - 1;
  if (p.top_p < 1.0f) {
    const double wanted = ceil(static_cast<double>(p.top_p) * static_cast<double>(whole_mass)) + 1;
    last = first_bin_reaching(static_cast<unsigned long long>(wanted), masses).bin;
  }
  if (p.min_p > 0.0f) last = min(last, static_cast<int>(-16.0f * logf(p.min_p)) + 1);
  return last;
}

// Candidates near enough to the highest logit to matter, with their masses, in any order.
__global__ void __launch_bounds__(weigh_threads) weigh(ops::Sample a, SampleArrays arrays) {
  __shared__ unsigned counts[bins];
  __shared__ unsigned long long sums[bins];
  __shared__ bool last_block;
  SampleSpace& space = *arrays.space;
  if (space.status != static_cast<int>(ops::ChoiceStatus::chosen)) return;
  for (int i = threadIdx.x; i < bins; i += weigh_threads) {
    counts[i] = 0;
    sums[i] = 0;
  }
  __syncthreads();
  const float temperature = a.parameters->temperature;
  const float highest = __fdiv_rn(key_logit(space.best), temperature);
  const int vocabulary = static_cast<int>(a.vocabulary);
  const int stride = gridDim.x * weigh_threads;
  for (int base = blockIdx.x * weigh_threads; base < vocabulary; base += stride) {
    const int i = base + static_cast<int>(threadIdx.x);
    const float logit = i < vocabulary ? __fdiv_rn(arrays.adjusted[i], temperature) : -INFINITY;
    const bool kept = logit >= highest - candidate_range;
    const int slot = take_slot(kept, &space.candidates);
    if (kept) {
      const auto mass = static_cast<unsigned long long>(
          rint(exp(static_cast<double>(logit) - static_cast<double>(highest)) * mass_unit));
      arrays.keys[slot] = make_key(logit, i);
      arrays.masses[slot] = mass;
      const int bin = bin_of(highest, logit);
      atomicAdd(&counts[bin], 1u);
      atomicAdd(&sums[bin], mass);
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < bins; i += weigh_threads) {
    if (counts[i] == 0) continue;
    atomicAdd(&space.bin_counts[i], counts[i]);
    atomicAdd(&space.bin_masses[i], sums[i]);
  }
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last_block = atomicAdd(&space.weighed, 1u) == gridDim.x - 1;
  __syncthreads();
  if (!last_block) return;
  __threadfence();
  for (int i = threadIdx.x; i < bins; i += weigh_threads) {
    counts[i] = __ldcg(&space.bin_counts[i]);
    sums[i] = __ldcg(&space.bin_masses[i]);
  }
  __syncthreads();
  if (threadIdx.x >= 32) return;
  unsigned long long whole_mass = 0;
  const int last = last_bin_kept(*a.parameters, counts, sums, whole_mass);
  if (threadIdx.x != 0) return;
  space.weighed = 0;
  space.last_bin = last;
  space.whole_mass = whole_mass;
}

// What may be kept, where that is less than all: the selection then looks at few.
__global__ void __launch_bounds__(weigh_threads) narrow(ops::Sample a, SampleArrays arrays) {
  SampleSpace& space = *arrays.space;
  if (space.status != static_cast<int>(ops::ChoiceStatus::chosen)) return;
  const int last = space.last_bin;
  if (last == bins - 1) return;
  const float highest = __fdiv_rn(key_logit(space.best), a.parameters->temperature);
  const int size = space.candidates;
  const int stride = gridDim.x * weigh_threads;
  for (int base = blockIdx.x * weigh_threads; base < size; base += stride) {
    const int i = base + static_cast<int>(threadIdx.x);
    const Key key = i < size ? arrays.keys[i] : 0;
    const bool near = i < size && bin_of(highest, key_logit(key)) <= last;
    const int slot = take_slot(near, &space.near);
    if (near) {
      arrays.near_keys[slot] = key;
      arrays.near_masses[slot] = arrays.masses[i];
    }
  }
}

struct Candidates {
  int size;
  const Key* keys;
  const unsigned long long* masses;
};

__device__ inline Candidates candidates(const SampleArrays& arrays) {
  const SampleSpace& space = *arrays.space;
  if (space.last_bin == bins - 1) return {space.candidates, arrays.keys, arrays.masses};
  return {space.near, arrays.near_keys, arrays.near_masses};
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

// One warp: the highest digit at which the weight from above reaches `wanted`, or the lowest one
// that has weight.
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

// The highest key such that the weights of keys at or above it sum to at least `wanted` (at least
// 1), over i < size with `active(i)`; the lowest active key if they never do. `key(i)`, `weight(i)`
// are 64-bit integers.
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
  const Candidates all = candidates(arrays);
  const int size = all.size;
  const Key* keys = all.keys;
  const unsigned long long* masses = all.masses;
  const float highest = __fdiv_rn(key_logit(space.best), p.temperature);
  Key cut = 0;
  const auto kept = [&](int i) { return keys[i] >= cut; };
  const auto key = [&](int i) { return keys[i]; };
  const auto mass = [&](int i) { return masses[i]; };
  const auto kept_mass = [&]() {
    if (cut == 0) return space.whole_mass;
    unsigned long long sum = 0;
    for (int i = threadIdx.x; i < size; i += select_threads) sum += kept(i) ? masses[i] : 0;
    return block_sum_integer(sum);
  };
  if (p.top_k > 0 && p.top_k < space.candidates) {
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
    // In integers of 2^-58: the candidates stand in an order that differs from run to run. The sum
    // is at most the logarithm of the vocabulary, below 2^4.
    constexpr double entropy_unit = 288230376151711744.0;
    unsigned long long part = 0;
    for (int i = threadIdx.x; i < size; i += select_threads) {
      if (!kept(i)) continue;
      const double below = static_cast<double>(key_logit(keys[i])) - static_cast<double>(highest);
      part += static_cast<unsigned long long>(
          rint(exp(below) / sum * (log_mass - below) * entropy_unit));
    }
    entropy = static_cast<double>(block_sum_integer(part)) / entropy_unit;
    // Distances are not negative, so their bits order them; the nearest has the highest complement.
    const auto nearness = [&](int i) {
      return ~static_cast<Key>(
          __double_as_longlong(typical_distance(key_logit(keys[i]), highest, log_mass, entropy)));
    };
    const unsigned long long wanted =
        max(1ull, static_cast<unsigned long long>(
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
