#include "bindings/bindings.h"

void bind_ops(pybind11::module_&) {}
