// The CPU's sampler; the definition is in ops/sampling.h.
#pragma once

#include "ops/sampling.h"

namespace quantloom::cpu {

void sample(const ops::Sample& arguments);

}  // namespace quantloom::cpu
