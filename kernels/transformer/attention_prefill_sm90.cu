// Prefill on Hopper. A block holds 64 query rows for each of its consumer warpgroups and walks the
// cache in tiles that the copy engine brings; the scores of the next tile and the weighted sums of
// this one run in the tensor cores while another warpgroup is in its softmax (FlashAttention-3,
// Shah et al. 2024). Blocks stay for several pieces of work, so that the next piece's first tile
// comes in during the last piece's end. Tiles begin at fixed positions: where the cache is not cut
// into parts, or at fixed positions too, a row's result depends on its own token alone.
#include <algorithm>
#include <climits>

#include "transformer/attention.cuh"
#include "transformer/attention_int8_sm90.cuh"

namespace quantloom::kernels {
namespace {

// One thread keeps the copy engine busy.
template <class S>
__device__ void produce_tiles(const Room<S>& room, const CUtensorMap& keys,
                              const CUtensorMap& values, const Attention& a, const Rows& rows,
                              const Split& split, int first) {
  int tile = 0;
  Piece<S> piece;
  for (; piece.take(a, rows, split, first); ++piece.round) {
    piece.find_tiles(a, rows, split, first);
    int t = 0;
    do {  // the first copy mostly needs no `first`, which is still on its way
      const int stage = tile % stages;
      for (const bool is_value : {false, true}) {
        const std::uint32_t full = room.full(is_value, stage);
        mbarrier_wait(room.empty(is_value, stage), tile / stages % 2 ^ 1);
        mbarrier_expect(full, S::tile_bytes);
        for (int b = 0; b < S::blocks; ++b) {
          copy_box(room.tile(is_value, stage) + b * S::Softmax::tile_block_bytes,
                   is_value ? values : keys, 64 * b, piece.begin + t * S::positions, piece.kv_head,
                   full);
        }
      }
      ++tile;
    } while (++t < piece.tiles);
  }
}

// The other warps of the producer warpgroup bring the queries of all pieces but the first.
template <class S>
__device__ void produce_queries(const Room<S>& room, const Attention& a, const Rows& rows,
                                const Split& split, int first) {
  constexpr int buffers = S::query_buffers;
  Piece<S> piece;
  for (; piece.take(a, rows, split, first); ++piece.round) {
    const int n = piece.number;
    if (n == 0) continue;
    const int buffer = n % buffers;
    if (n >= buffers) mbarrier_wait(room.queries_empty(buffer), (n / buffers - 1) % 2);
    store_queries<S, S::query_batch>(room.pointer(room.queries(buffer, 0)), a, rows, piece.kv_head,
                                     piece.first_row, S::rows, threadIdx.x - 32, S::query_threads);
    fence_shared_stores();
    mbarrier_arrive(room.queries_full(buffer));
  }
}

// Positions that nothing was written to may hold NaN, and 0 x NaN is not 0.
template <class S>
__device__ void clear_values(std::uint8_t* values, int written) {
  constexpr int chunks = row_bytes / 16;
  for (int b = 0; b < S::blocks; ++b) {
    for (int i = written * chunks + threadIdx.x % 128; i < S::positions * chunks; i += 128) {
      reinterpret_cast<uint4*>(values + b * S::Softmax::tile_block_bytes)[i] = uint4{0, 0, 0, 0};
    }
  }
}

template <class S>
__device__ void consume(const Room<S>& room, const Attention& a, const Rows& rows,
                        const Split& split, int first) {
  const int group = threadIdx.x / 128 - 1;
  const int own_turn = 1 + group;
  const int next_turn = 1 + (group + 1) % S::groups;
  const int group_barrier = 8 + group;
  const bool is_speaker = threadIdx.x % 32 == 0;
  Piece<S> piece;
  if (!piece.take(a, rows, split, first)) return;

  store_queries<S, S::head_size / 16>(room.pointer(room.queries(0, group)), a, rows, piece.kv_head,
                                      piece.first_row + group * group_rows, group_rows,
                                      threadIdx.x % 128, 128);
  fence_shared_stores();
  named_barrier_wait(group_barrier, 128);
  piece.find_tiles(a, rows, split, first);
  Sight sight = Sight::of(a, rows, piece, first, group);

  typename S::Softmax softmax;
  const auto soften = [&](int t) {
    if (a.soft_cap > 0) softmax.cap(a.soft_cap);
    const int at = t * S::positions;
    if (at + S::positions - 1 > sight.open || at < sight.closed) {
      const int newest[2] = {sight.newest[0] - at, sight.newest[1] - at};
      const int oldest[2] = {sight.oldest[0] - at, sight.oldest[1] - at};
      softmax.mask(oldest, newest);
    }
    softmax.soften();
  };
  const auto store = [&] {
    softmax.finish(piece.is_whole);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (sight.row[half] >= rows.count) continue;
      const std::int64_t head = rows.head(piece.kv_head, sight.row[half]);
      if (piece.is_whole) {
        softmax.store(half, a.out + head * S::head_size);
      } else {
        const std::int64_t slot = head * split.most + piece.part;
        softmax.store(half, split.sums + slot * S::head_size);
        if (threadIdx.x % 4 == 0) {
          split.peaks[slot] = make_float2(softmax.peak[half], softmax.mass[half]);
        }
      }
    }
  };
  const auto wait_keys = [&](int tile) {
    mbarrier_wait(room.full(false, tile % stages), tile / stages % 2);
  };
  const auto wait_values = [&](int tile, bool is_last) {
    mbarrier_wait(room.full(true, tile % stages), tile / stages % 2);
    if (!is_last) return;
    const int written = first + a.tokens - piece.begin - (piece.tiles - 1) * S::positions;
    if (written >= S::positions) return;
    clear_values<S>(room.pointer(room.tile(true, tile % stages)), written);
    fence_shared_stores();
    named_barrier_wait(group_barrier, 128);
  };

  softmax.reset();
  wait_keys(0);
  softmax.issue_scores(room.queries(0, group), room.tile(false, 0));
  wgmma_wait<0>();
  pin(softmax.scores);
  if (is_speaker) mbarrier_arrive(room.empty(false, 0));
  soften(0);
  softmax.pack_weights();
  if (piece.tiles > 1) wait_keys(1);

  // The groups take turns at the tensor cores: one computes products while others are in `soften`.
  if (group == S::groups - 1) named_barrier_arrive(1, 256);
  int tile = 1;  // of all pieces
  for (int t = 1;; ++t, ++tile) {
    const int stage = tile % stages;
    const int past = (tile - 1) % stages;
    const bool ends = t == piece.tiles;
    Piece<S> next = piece;
    if (ends) {
      if (is_speaker) mbarrier_arrive(room.queries_empty(piece.number % S::query_buffers));
      ++next.round;
      if (!next.take(a, rows, split, first)) break;
      next.find_tiles(a, rows, split, first);
      mbarrier_wait(room.queries_full(next.number % S::query_buffers),
                    (next.number - 1) / S::query_buffers % 2);
      wait_keys(tile);
    }
    named_barrier_wait(own_turn, 256);
    softmax.issue_scores(room.queries(next.number % S::query_buffers, group),
                         room.tile(false, stage));
    wait_values(tile - 1, ends);
    softmax.issue_sums(room.tile(true, past));
    named_barrier_arrive(next_turn, 256);
    wgmma_wait<1>();
    pin(softmax.scores);
    if (is_speaker) mbarrier_arrive(room.empty(false, stage));
    if (ends) {
      wgmma_wait<0>();
      pin(softmax.sums);
      store();
      softmax.reset();
      piece = next;
      sight = Sight::of(a, rows, piece, first, group);
      t = 0;
    }
    soften(t);
    pin(softmax.scores);
    // Also a border for the assembler, which else puts the wait for the sums before `soften`.
    if (t + 1 < piece.tiles) wait_keys(tile + 1);
    wgmma_wait<0>();
    pin(softmax.sums);
    if (is_speaker) mbarrier_arrive(room.empty(true, past));
    softmax.shrink_sums();
    softmax.pack_weights();
  }
  named_barrier_wait(own_turn, 256);
  wait_values(tile - 1, true);
  softmax.issue_sums(room.tile(true, (tile - 1) % stages));
  if (group + 1 < S::groups) named_barrier_arrive(next_turn, 256);
  wgmma_wait<0>();
  pin(softmax.sums);
  store();
}

template <class S>
__global__ void __launch_bounds__(128 * (S::groups + 1), 1)
    prefill_sm90(const __grid_constant__ CUtensorMap keys,
                 const __grid_constant__ CUtensorMap values, const __grid_constant__ Attention a,
                 const __grid_constant__ Split split) {
  extern __shared__ std::uint8_t shared[];
  __shared__ std::uint64_t barriers[Room<S>::barrier_count];
  const std::uint32_t unaligned = shared_address(shared);
  const std::uint32_t padding = -unaligned % S::alignment;
  const Room<S> room{shared + padding, unaligned + padding, shared_address(barriers)};
  if (threadIdx.x == 0) {
    room.initialize();
    if constexpr (!S::q8_0) {
      prefetch_map(keys);
      prefetch_map(values);
    }
  }
  __syncthreads();
  wait_for_previous();
  const int first = *a.first + split.offset;
  const Rows rows(a);
  if (threadIdx.x < 128) {
    give_registers<S::producer_registers>();
    if constexpr (S::q8_0) {
      produce_decoded<S>(room, a, rows, split, first);
    } else if (threadIdx.x == 0) {
      produce_tiles<S>(room, keys, values, a, rows, split, first);
    } else if (threadIdx.x >= 32) {
      produce_queries<S>(room, a, rows, split, first);
    }
  } else {
    take_registers<S::consumer_registers>();
    consume<S>(room, a, rows, split, first);
  }
}

constexpr int invariant_positions = 4096;  // of a part where results may not depend on the call
constexpr int fewest_tiles = 4;            // worth a part of their own

template <class S>
cudaError_t launch_tokens(const Attention& a, const Split& split, const CUtensorMap& keys,
                          const CUtensorMap& values, int processors, cudaStream_t stream) {
  const std::int64_t rows = std::int64_t{a.tokens} * (a.heads / a.cache.kv_heads);
  const std::int64_t pieces = (rows + S::rows - 1) / S::rows * a.cache.kv_heads * split.most;
  if (pieces > INT_MAX) return cudaErrorInvalidValue;
  const dim3 grid(static_cast<unsigned>(pieces < processors ? pieces : processors));
  const cudaError_t status = launch_overlapped(prefill_sm90<S>, grid, 128 * (S::groups + 1),
                                               S::shared_bytes, stream, keys, values, a, split);
  if (status != cudaSuccess || split.most == 1) return status;
  const int heads = a.tokens * a.heads;
  return launch_overlapped(add_parts<S>, dim3((heads + adding_warps - 1) / adding_warps),
                           32 * adding_warps, 0, stream, a, split);
}

template <class S>
cudaError_t launch(const Attention& a, cudaStream_t stream) {
  const Cache& cache = a.cache;
  CUtensorMap keys{}, values{};
  if constexpr (!S::q8_0) {
    if (!encode_half_boxes(cache.keys, S::head_size, cache.capacity, cache.kv_heads, S::positions,
                           &keys) ||
        !encode_half_boxes(cache.values, S::head_size, cache.capacity, cache.kv_heads, S::positions,
                           &values)) {
      return cudaErrorInvalidValue;
    }
  }
  cudaError_t status = cudaFuncSetAttribute(
      prefill_sm90<S>, cudaFuncAttributeMaxDynamicSharedMemorySize, S::shared_bytes);
  if (status != cudaSuccess) return status;
  int device = 0, processors = 0;
  if ((status = cudaGetDevice(&device)) != cudaSuccess ||
      (status = cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device)) !=
          cudaSuccess) {
    return status;
  }

  const int per_kv_head = a.heads / cache.kv_heads;
  const std::int64_t rows = std::int64_t{a.tokens} * per_kv_head;
  const std::int64_t pieces = (rows + S::rows - 1) / S::rows * cache.kv_heads;
  const std::int64_t tiles = (a.bound + S::positions - 1) / S::positions;
  std::int64_t part_tiles = tiles;
  if (a.invariant) {
    part_tiles = invariant_positions / S::positions;
  } else if (a.window == 0) {
    // Where rows leave processors idle, parts of the cache keep them busy.
    const std::int64_t parts = std::min(processors / pieces, tiles / fewest_tiles);
    if (parts > 1) part_tiles = (tiles + parts - 1) / parts;
  }
  const std::int64_t parts = (tiles + part_tiles - 1) / part_tiles;
  Split split{.tiles = static_cast<int>(part_tiles), .most = static_cast<int>(parts)};
  split.peaks = split_space(a.workspace);
  split.sums = reinterpret_cast<float*>(split.peaks + split_rows);
  const std::int64_t most_tokens = parts == 1 ? a.tokens : split_rows / (parts * a.heads);
  if (most_tokens == 0) return cudaErrorInvalidValue;
  for (std::int64_t token = 0; token < a.tokens; token += most_tokens) {
    Attention some = a;
    some.tokens = static_cast<int>(std::min(most_tokens, a.tokens - token));
    some.q += token * a.heads * S::head_size;
    some.out += token * a.heads * S::head_size;
    split.offset = static_cast<int>(token);
    status = launch_tokens<S>(some, split, keys, values, processors, stream);
    if (status != cudaSuccess) return status;
  }
  return cudaSuccess;
}

template <bool q8_0>
cudaError_t launch_type(const Attention& arguments, cudaStream_t stream) {
  switch (arguments.cache.head_size) {
    case 64:
      return launch<Shape<64, 128, q8_0 ? 2 : 3, 2, q8_0>>(arguments, stream);
    case 96:
      return launch<Shape<96, 128, 2, 2, q8_0>>(arguments, stream);
    case 128:
      return launch<Shape<128, 128, 2, 2, q8_0>>(arguments, stream);
    case 256:
      return launch<Shape<256, 64, 2, 1, q8_0>>(arguments, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace

cudaError_t attention_prefill_sm90(const Attention& arguments, cudaStream_t stream) {
  return arguments.cache.type == CacheType::q8_0 ? launch_type<true>(arguments, stream)
                                                 : launch_type<false>(arguments, stream);
}

}  // namespace quantloom::kernels
