// The operations of ops/operations.h on the CPU, over the kernels of the instruction set in use.
#pragma once

#include <memory>

#include "ops/operations.h"

namespace quantloom::cpu {

// One instance serves one thread at a time; the threads of the pool (base/thread_pool.h) share its
// work. Results do not depend on the number of threads.
// Errors: invalid_argument as of instruction_set().
std::unique_ptr<ops::Operations> make_operations(ops::Precision precision);

}  // namespace quantloom::cpu
