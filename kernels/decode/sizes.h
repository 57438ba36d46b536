// Sizes of the decode kernel that its plan on the host needs too.
#pragma once

namespace quantloom::kernels {

constexpr int decode_warps = 16;  // that compute
constexpr int fetch_warps = 1;    // that stream the weights in
constexpr int rings_per_fetch_warp = decode_warps / fetch_warps;
constexpr int decode_threads = 32 * decode_warps;
constexpr int ring_pieces = 16;            // most pieces in a warp's ring, each with its barrier
constexpr int decode_static_bytes = 7168;  // at most, of statically allocated shared memory

// Attention: peaks, factors, sums (attention.cuh).
constexpr int attention_sums_bytes = 32768;
constexpr int attention_scratch_bytes =
    decode_warps * 8 * 8 + 8 * decode_warps * 4 + attention_sums_bytes;

}  // namespace quantloom::kernels
