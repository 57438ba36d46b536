// The extension module: its bind_*.cpp files, and the translation of quantloom::Error to Python.
#include <pybind11/pybind11.h>

#include <new>
#include <stdexcept>

#include "base/error.h"
#include "bindings/bindings.h"

namespace py = pybind11;

namespace {

const char* python_class(quantloom::ErrorKind kind) {
  using quantloom::ErrorKind;
  switch (kind) {
    case ErrorKind::gguf:
      return "GGUFError";
    case ErrorKind::model:
      return "ModelError";
    case ErrorKind::device:
      return "DeviceError";
    case ErrorKind::out_of_memory:
      return "OutOfMemory";
    case ErrorKind::context_full:
      return "ContextFull";
    case ErrorKind::invalid_argument:
      return "InvalidArgument";
    case ErrorKind::numerics:
      return "NumericsError";
    case ErrorKind::busy:
      return "SessionBusy";
    case ErrorKind::cancelled:
      return "Cancelled";
    case ErrorKind::io:
      return "FileError";
    case ErrorKind::closed:
      return "Closed";
  }
  return "QuantloomError";
}

// A message may quote bytes of a hostile file; what is not UTF-8 is shown escaped.
py::object text(const std::string& bytes) {
  return py::reinterpret_steal<py::object>(PyUnicode_DecodeUTF8(
      bytes.data(), static_cast<Py_ssize_t>(bytes.size()), "backslashreplace"));
}

py::object file_name(const std::string& bytes) {
  return py::reinterpret_steal<py::object>(
      PyUnicode_DecodeFSDefaultAndSize(bytes.data(), static_cast<Py_ssize_t>(bytes.size())));
}

void raise(const quantloom::Error& error) {
  py::object none = py::none();
  py::dict attributes;
  attributes["subject"] = error.subject().empty() ? none : text(error.subject());
  attributes["offset"] = error.offset() ? py::object(py::int_(*error.offset())) : none;
  attributes["limit"] = error.limit() ? py::object(py::int_(*error.limit())) : none;
  if (error.kind() == quantloom::ErrorKind::io && error.system_code()) {
    attributes["errno"] = py::int_(*error.system_code());
    attributes["filename"] = file_name(error.subject());
  }
  py::object type = py::module_::import("quantloom.errors").attr(python_class(error.kind()));
  py::object instance = type(text(error.message()), **attributes);
  PyErr_SetObject(type.ptr(), instance.ptr());
}

}  // namespace

PYBIND11_MODULE(_quantloom, m) {
  m.doc() = "The C++ part of quantloom; use the quantloom package.";
  m.attr("__version__") = QUANTLOOM_VERSION;
  py::register_local_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const quantloom::Error& error) {
      raise(error);
    } catch (const std::length_error&) {  // a container past its largest size
      raise({quantloom::ErrorKind::out_of_memory, "host memory ran out"});
    } catch (const std::bad_alloc&) {
      raise({quantloom::ErrorKind::out_of_memory, "host memory ran out"});
    }
  });
  bind_formats(m);
  bind_gguf(m);
  bind_device(m);
  bind_ops(m);
  bind_operations(m);
  bind_model(m);
}
