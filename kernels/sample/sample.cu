#include "sample/sample.h"

#include "ops/philox.h"
#include "sample/select.cuh"

namespace quantloom::kernels {
namespace {

constexpr int draw_threads = 256;

__device__ double gumbel(std::uint64_t seed, int token, int position) {
  const std::uint32_t id = static_cast<std::uint32_t>(token);
  const auto words = ops::philox(seed, {id / 4, static_cast<std::uint32_t>(position), 0, 0});
  const double uniform = (static_cast<double>(words[id % 4]) + 0.5) / 4294967296.0;
  return -log(-log(uniform));
}

__device__ bool wins(const DrawPart& a, const DrawPart& b) {
  if (a.token < 0 || b.token < 0) return b.token < 0 && a.token >= 0;
  return a.score > b.score || (a.score == b.score && a.token < b.token);
}

// Thread 0 gets the block's winner.
__device__ DrawPart block_winner(DrawPart best) {
  __shared__ DrawPart of_thread[draw_threads];
  of_thread[threadIdx.x] = best;
  __syncthreads();
  for (int step = draw_threads / 2; step > 0; step /= 2) {
    if (threadIdx.x < step && wins(of_thread[threadIdx.x + step], of_thread[threadIdx.x])) {
      of_thread[threadIdx.x] = of_thread[threadIdx.x + step];
    }
    __syncthreads();
  }
  return of_thread[0];
}

// Step 8.
__global__ void __launch_bounds__(draw_threads) draw(ops::Sample a, SampleArrays arrays) {
  __shared__ bool last;
  SampleSpace& space = *arrays.space;
  if (space.status != static_cast<int>(ops::ChoiceStatus::chosen)) return;
  const int position = static_cast<int>(*a.first + a.count);
  const float highest = __fdiv_rn(key_logit(space.best), a.parameters->temperature);
  DrawPart best{0, -1};
  const Candidates all = candidates(arrays);
  for (int i = blockIdx.x * draw_threads + threadIdx.x; i < all.size;
       i += gridDim.x * draw_threads) {
    const Key key = all.keys[i];
    if (key < space.cut) continue;
    const float logit = key_logit(key);
    if (space.typical != 0) {
      const double distance = typical_distance(logit, highest, space.log_mass, space.entropy);
      if (distance > space.typical_distance ||
          (distance == space.typical_distance && key < space.typical_cut)) {
        continue;
      }
    }
    const int token = key_token(key);
    const DrawPart candidate{
        static_cast<double>(logit) + gumbel(a.parameters->seed, token, position), token};
    if (wins(candidate, best)) best = candidate;
  }
  best = block_winner(best);
  if (threadIdx.x == 0) {
    space.draws[blockIdx.x] = best;
    __threadfence();
    last = atomicAdd(&space.drawn, 1u) == gridDim.x - 1;
  }
  __syncthreads();
  if (!last) return;
  __threadfence();
  best = block_winner(threadIdx.x < draw_blocks ? space.draws[threadIdx.x] : DrawPart{0, -1});
  if (threadIdx.x == 0) {
    space.drawn = 0;
    finish(a, space, ops::ChoiceStatus::chosen, best.token, position);
  }
}

}  // namespace

std::int64_t sample_workspace_bytes(std::int64_t vocabulary) {
  return space_bytes + vocabulary * static_cast<std::int64_t>(4 * sizeof(Key) + sizeof(float));
}

cudaError_t sample(const ops::Sample& arguments, void* workspace, cudaStream_t stream) {
  if (arguments.vocabulary < 1 || arguments.vocabulary > largest_vocabulary ||
      arguments.top_log_probabilities > top_slots) {
    return cudaErrorInvalidValue;
  }
  const SampleArrays arrays = sample_arrays(workspace, arguments.vocabulary);
  const std::int64_t slice = (arguments.vocabulary + adjust_blocks - 1) / adjust_blocks;
  adjust<<<adjust_blocks, adjust_threads, slice * (sizeof(float) + sizeof(int)), stream>>>(
      arguments, arrays);
  if (!arguments.greedy) {
    weigh<<<adjust_blocks, weigh_threads, 0, stream>>>(arguments, arrays);
    narrow<<<adjust_blocks, weigh_threads, 0, stream>>>(arguments, arrays);
    select_kept<<<1, select_threads, 0, stream>>>(arguments, arrays);
    draw<<<draw_blocks, draw_threads, 0, stream>>>(arguments, arrays);
  }
  return cudaGetLastError();
}

}  // namespace quantloom::kernels
