// Sizes of the decode kernel that its plan on the host needs too.
#pragma once

namespace quantloom::kernels {

constexpr int decode_warps = 16;  // that compute; one more streams the weights in
constexpr int decode_threads = 32 * decode_warps;
constexpr int stage_pieces = 8;  // neighbours that one copy brings, one for each of eight warps
constexpr int ring_stages = 16;  // most in the ring; even, so that a place serves the same warps
constexpr int decode_batch_strips = 16;    // that a block's warps sum between two meetings; even
constexpr int decode_static_bytes = 7168;  // at most, of statically allocated shared memory

// Attention: peaks, factors, sums (attention.cuh).
constexpr int attention_sums_bytes = 32768;
constexpr int attention_scratch_bytes =
    decode_warps * 8 * 8 + 8 * decode_warps * 4 + attention_sums_bytes;

}  // namespace quantloom::kernels
