// Encoders of the formats with 32 weights per block. Each writes one block and returns false where
// the scale does not fit a half.
#pragma once

#include "formats/q4_0.h"
#include "formats/q4_1.h"
#include "formats/q5_0.h"
#include "formats/q5_1.h"
#include "formats/q8_0.h"

namespace quantloom::formats {

bool encode_block(const float x[32], Q4_0::Block& block);
bool encode_block(const float x[32], Q4_1::Block& block);
bool encode_block(const float x[32], Q5_0::Block& block);
bool encode_block(const float x[32], Q5_1::Block& block);
bool encode_block(const float x[32], Q8_0::Block& block);

}  // namespace quantloom::formats
