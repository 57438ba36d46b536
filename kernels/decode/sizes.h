// Sizes of the decode kernel that its plan on the host needs too.
#pragma once

namespace quantloom::kernels {

constexpr int decode_warps = 16;  // that compute; one more streams the weights in
constexpr int decode_threads = 32 * decode_warps;
constexpr int stage_pieces = 8;  // neighbours that one copy brings, one for each of eight warps
constexpr int ring_stages = 16;  // most in the ring; even, so that a place serves the same warps
constexpr int decode_batch_strips = 16;    // that a block's warps sum between two meetings; even
constexpr int decode_static_bytes = 7168;  // at most, of statically allocated shared memory

// Attention (attention.cuh): peaks, the new key and value, fragments, heads, sums.
constexpr int attention_sums_bytes = 35328;  // four rows of 128 from each warp, padded
constexpr int attention_scratch_bytes =
    decode_warps * 8 * 8 + 2 * 272 + 8 * 32 * 16 + 9 * 128 * 4 + attention_sums_bytes;

}  // namespace quantloom::kernels
