#include "bindings/bindings.h"

void bind_device(pybind11::module_&) {}
