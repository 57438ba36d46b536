// What each room adds to the module. They translate arguments and results, and never compute.
#pragma once

#include <pybind11/pybind11.h>

void bind_formats(pybind11::module_& m);
void bind_gguf(pybind11::module_& m);
void bind_device(pybind11::module_& m);
void bind_ops(pybind11::module_& m);
void bind_operations(pybind11::module_& m);
void bind_model(pybind11::module_& m);
