// How the steps of a program hand each other their values, and what its plan counts in.
#pragma once

#include "decode/decode.h"

namespace quantloom::kernels {

// Strips of 16 rows.
int strips_of(const MatmulWeight& weight);

// Units, strips or pairs of them, that blocks share out.
int units_of(const DecodeProduct& product);

// Lets the steps read and write each other's values at places of the exchange. False where a step
// reads or writes what it cannot.
bool connect(DecodeStep* steps, int count, int blocks, void* exchange);

}  // namespace quantloom::kernels
