#include "bindings/bindings.h"

void bind_formats(pybind11::module_&) {}
