// The producer warpgroup over a q8_0 cache: tiles of int8 come by bulk copy, and its 128 threads
// write them as halves into the stages, with the queries of every piece but the first.
#pragma once

#include "transformer/attention_pieces_sm90.cuh"
#include "transformer/attention_tile.cuh"

namespace quantloom::kernels {

// A thread's part of every tile: a row, or half of one.
template <class S>
struct Int8Part {
  static constexpr int threads_per_row = 128 / S::positions;
  static constexpr int dimensions = S::head_size / threads_per_row;
  static constexpr int chunks = dimensions / 16;  // of 16 bytes
  static constexpr int scale_count = dimensions / 32;
  static constexpr int scale_words = (scale_count + 1) / 2;

  static __device__ int row() { return threadIdx.x / threads_per_row; }
  static __device__ int offset() { return threadIdx.x % threads_per_row * dimensions; }

  // Of the part's groups of 32; none past the tile's `rows`.
  static __device__ void fetch_scales(const void* scales, std::int64_t tile_row, int rows,
                                      std::uint32_t (&words)[scale_words]) {
    if (row() >= rows) return;
    load_scales<scale_count>(static_cast<const std::uint16_t*>(scales) +
                                 (tile_row + row()) * (S::head_size / 32) + offset() / 32,
                             words);
  }

  // The turn of the chunks differs from row to row, so that eight lanes read different banks.
  static __device__ void decode(const std::uint8_t* raw, std::uint8_t* tile,
                                const std::uint32_t (&words)[scale_words]) {
    const int turn = chunks == 8 ? threadIdx.x : chunks == 4 ? threadIdx.x / 2 : 0;
    const int r = row();
    const std::uint8_t* from = raw + r * S::head_size + offset();
#pragma unroll 4
    for (int i = 0; i < chunks; ++i) {
      const int chunk = chunks == 6 ? i : (i + turn) % chunks;
      const uint4 quants = *reinterpret_cast<const uint4*>(from + 16 * chunk);
      const std::uint32_t pair = scale_words == 1 || chunk < 4 ? words[0] : words[scale_words - 1];
      const std::uint32_t twice = __byte_perm(pair, 0, chunk / 2 % 2 == 0 ? 0x1010 : 0x3232);
      const __half2 scale = *reinterpret_cast<const __half2*>(&twice);
      const int at = (offset() + 16 * chunk) / 8;  // of the row's 16-byte pieces of halves
      std::uint8_t* to = tile + at / 8 * S::Softmax::tile_block_bytes + r * row_bytes;
      *reinterpret_cast<uint4*>(to + (at % 8 ^ r % 8) * 16) =
          scale_int8(make_uint2(quants.x, quants.y), scale);
      *reinterpret_cast<uint4*>(to + ((at % 8 + 1) ^ r % 8) * 16) =
          scale_int8(make_uint2(quants.z, quants.w), scale);
    }
  }
};

template <class S>
__device__ void produce_decoded(const Room<S>& room, const Attention& a, const Rows& rows,
                                const Split& split, int first) {
  using Part = Int8Part<S>;
  constexpr int producer_barrier = 15;
  const Cache& cache = a.cache;
  Piece<S> piece;
  if (!piece.take(a, rows, split, first)) return;
  piece.find_tiles(a, rows, split, first);
  std::uint32_t scales[2][Part::scale_words];
  const auto fetch = [&](const Piece<S>& from, int t, int is_value) {
    const int position = from.begin + t * S::positions;
    const std::int64_t row = from.kv_head * cache.capacity + position;
    const int count = static_cast<int>(min(std::int64_t{S::positions}, cache.capacity - position));
    if (threadIdx.x == 0) {
      const auto* plane = static_cast<const std::uint8_t*>(is_value ? cache.values : cache.keys);
      mbarrier_expect(room.raw_full(is_value), count * S::head_size);
      bulk_copy(room.raw(is_value), plane + row * S::head_size, count * S::head_size,
                room.raw_full(is_value));
    }
    Part::fetch_scales(is_value ? cache.value_scales : cache.key_scales, row, count,
                       scales[is_value]);
  };
  fetch(piece, 0, 0);
  fetch(piece, 0, 1);

  int tile = 0;  // of all pieces
  for (int t = 0;; ++tile) {
    const int stage = tile % stages;
    Piece<S> next = piece;
    int next_t = t + 1;
    bool is_more = true;
    if (next_t == piece.tiles) {
      next_t = 0;
      ++next.round;
      is_more = next.take(a, rows, split, first);
      if (is_more) next.find_tiles(a, rows, split, first);
    }
    if (t == 0 && piece.number > 0) {
      const int n = piece.number;
      const int buffer = n % S::query_buffers;
      if (n >= S::query_buffers) {
        mbarrier_wait(room.queries_empty(buffer), (n / S::query_buffers - 1) % 2);
      }
      store_queries<S, S::query_batch>(room.pointer(room.queries(buffer, 0)), a, rows,
                                       piece.kv_head, piece.first_row, S::rows, threadIdx.x, 128);
      fence_shared_stores();
      mbarrier_arrive(room.queries_full(buffer));
    }
#pragma unroll
    for (int is_value = 0; is_value < 2; ++is_value) {
      mbarrier_wait(room.raw_full(is_value), tile % 2);
      mbarrier_wait(room.empty(is_value, stage), tile / stages % 2 ^ 1);
      Part::decode(room.pointer(room.raw(is_value)), room.pointer(room.tile(is_value, stage)),
                   scales[is_value]);
      fence_shared_stores();
      mbarrier_arrive(room.full(is_value, stage));
      named_barrier_wait(producer_barrier, 128);  // everyone has read the raw tile
      if (is_more) fetch(next, next_t, is_value);
    }
    if (!is_more) return;
    piece = next;
    t = next_t;
  }
}

}  // namespace quantloom::kernels
