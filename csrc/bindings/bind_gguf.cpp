#include "bindings/bindings.h"

void bind_gguf(pybind11::module_&) {}
