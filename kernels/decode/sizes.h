// Sizes of the decode kernel that its plan on the host needs too.
#pragma once

namespace quantloom::kernels {

constexpr int decode_warps = 16;  // that multiply; one more streams the weights in
// That add the others' sums and store them. With four, 21 warps in all, a quarter of the
// multiprocessor would have six, and its registers would be 80 a thread.
constexpr int decode_storing_warps = 3;
constexpr int decode_threads = 32 * decode_warps;
constexpr int decode_storing_threads = 32 * decode_storing_warps;
constexpr int decode_block_threads = decode_threads + 32 + decode_storing_threads;
constexpr int stage_pieces = 8;  // neighbours that one copy brings, one for each of eight warps
constexpr int ring_stages = 16;  // most in the ring; even, so that a place serves the same warps
constexpr int decode_batch_strips = 8;  // whose sums are handed over together; a multiple of four
constexpr int sum_buffers = 2;          // of a batch each
constexpr int decode_static_bytes = 7168;  // at most, of statically allocated shared memory

// Attention (attention.cuh): peaks, the new key and value, fragments, heads, sums.
constexpr int attention_sums_bytes = 35328;  // four rows of 128 from each warp, padded
constexpr int attention_scratch_bytes =
    decode_warps * 8 * 8 + 2 * 272 + 8 * 32 * 16 + 9 * 128 * 4 + attention_sums_bytes;

}  // namespace quantloom::kernels
