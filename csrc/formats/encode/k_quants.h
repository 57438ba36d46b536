// Encoders of the formats with 256 weights per block. Each writes one block and returns false where
// a scale does not fit a half.
#pragma once

#include "formats/q2_k.h"
#include "formats/q3_k.h"
#include "formats/q4_k.h"
#include "formats/q5_k.h"
#include "formats/q6_k.h"

namespace quantloom::formats {

bool encode_block(const float x[256], Q2_K::Block& block);
bool encode_block(const float x[256], Q3_K::Block& block);
bool encode_block(const float x[256], Q4_K::Block& block);
bool encode_block(const float x[256], Q5_K::Block& block);
bool encode_block(const float x[256], Q6_K::Block& block);

}  // namespace quantloom::formats
