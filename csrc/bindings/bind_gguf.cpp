// quantloom._quantloom.GGUFFile: what python/quantloom/file.py stands on.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl/filesystem.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>

#include "bindings/bindings.h"
#include "bindings/interpreter_lock.h"
#include "gguf/file.h"
#include "gguf/utf8.h"
#include "gguf/value.h"
#include "loader/model_file.h"
#include "loader/scan.h"

namespace py = pybind11;

namespace {

using quantloom::gguf::Array;
using quantloom::gguf::KeyValue;
using quantloom::gguf::TensorInfo;
using quantloom::gguf::ValueType;
using quantloom::loader::ModelFile;
using FilePointer = std::shared_ptr<const ModelFile>;

// str where the bytes are UTF-8, bytes where they are not.
py::object to_python(std::string_view text) {
  if (quantloom::gguf::is_utf8(text)) return py::str(text.data(), text.size());
  return py::bytes(text.data(), text.size());
}

template <typename T>
py::object numpy_copy(const Array& array) {
  const auto elements = array.to_vector<T>();
  py::array_t<T> copy(static_cast<py::ssize_t>(elements.size()));
  std::copy(elements.begin(), elements.end(), copy.mutable_data());
  return copy;
}

py::object to_python(std::string_view key, const Array& array) {
  switch (array.element_type()) {
    case ValueType::uint8:
      return numpy_copy<std::uint8_t>(array);
    case ValueType::int8:
      return numpy_copy<std::int8_t>(array);
    case ValueType::uint16:
      return numpy_copy<std::uint16_t>(array);
    case ValueType::int16:
      return numpy_copy<std::int16_t>(array);
    case ValueType::uint32:
      return numpy_copy<std::uint32_t>(array);
    case ValueType::int32:
      return numpy_copy<std::int32_t>(array);
    case ValueType::float32:
      return numpy_copy<float>(array);
    case ValueType::boolean:
      return numpy_copy<bool>(array);
    case ValueType::uint64:
      return numpy_copy<std::uint64_t>(array);
    case ValueType::int64:
      return numpy_copy<std::int64_t>(array);
    case ValueType::float64:
      return numpy_copy<double>(array);
    case ValueType::string:
    case ValueType::array:
      break;
  }
  py::list strings;
  array.each_string(key, [&](std::string_view text) { strings.append(to_python(text)); });
  return strings;
}

py::object value(const ModelFile& file, std::size_t index) {
  if (index >= file.file().metadata().size()) throw py::index_error();
  const KeyValue& record = file.file().metadata()[index];
  return std::visit(
      [&](const auto& stored) -> py::object {
        using Stored = std::decay_t<decltype(stored)>;
        // Text and arrays are read from the map; the other values were copied from it.
        if constexpr (std::is_same_v<Stored, std::string_view>) {
          file.check_unchanged();
          return to_python(stored);
        } else if constexpr (std::is_same_v<Stored, Array>) {
          file.check_unchanged();
          return to_python(record.key, stored);
        } else {
          return py::cast(stored);
        }
      },
      record.value);
}

// (type name, number of elements) without converting the value; None elements for a scalar.
py::tuple value_type(const ModelFile& file, std::size_t index) {
  if (index >= file.file().metadata().size()) throw py::index_error();
  const auto& stored = file.file().metadata()[index].value;
  if (const auto* array = std::get_if<Array>(&stored)) {
    return py::make_tuple(quantloom::gguf::value_type_name(array->element_type()), array->size());
  }
  return py::make_tuple(quantloom::gguf::value_type_name(quantloom::gguf::type_of(stored)),
                        py::none());
}

const TensorInfo& tensor_at(const ModelFile& file, std::size_t index) {
  if (index >= file.file().tensors().size()) throw py::index_error();
  return file.file().tensors()[index];
}

// (name, shape with rows before columns, format name, bytes, offset, shard)
py::tuple tensor(const ModelFile& file, std::size_t index) {
  const TensorInfo& info = tensor_at(file, index);
  py::tuple shape(info.dimensions.size());
  for (std::size_t i = 0; i < info.dimensions.size(); ++i) {
    shape[info.dimensions.size() - 1 - i] = py::int_(info.dimensions[i]);
  }
  return py::make_tuple(info.name, shape, info.type->name, info.bytes, info.offset, info.shard);
}

// A read-only uint8 array over the mapping, which it keeps alive.
py::array tensor_bytes(const FilePointer& file, std::size_t index) {
  const TensorInfo& info = tensor_at(*file, index);
  file->check_unchanged();
  const auto bytes = file->tensor_bytes(info);
  py::capsule owner(new FilePointer(file),
                    [](void* pointer) { delete static_cast<FilePointer*>(pointer); });
  py::array_t<std::uint8_t> view(static_cast<py::ssize_t>(bytes.size()),
                                 reinterpret_cast<const std::uint8_t*>(bytes.data()), owner);
  view.attr("flags").attr("writeable") = false;
  return view;
}

void check_finite(const ModelFile& file, std::size_t index) {
  const TensorInfo& info = tensor_at(file, index);
  file.check_unchanged();
  const auto bytes = file.tensor_bytes(info);
  quantloom::Unlocked release;
  quantloom::loader::require_finite(info, bytes);
}

template <typename Records, typename Name>
py::list names(const Records& records, Name name) {
  py::list result;
  for (const auto& record : records) {
    const std::string_view text = name(record);
    result.append(py::str(text.data(), text.size()));
  }
  return result;
}

}  // namespace

void bind_gguf(py::module_& m) {
  py::class_<ModelFile, std::shared_ptr<ModelFile>>(
      m, "GGUFFile", "A mapped and validated GGUF file; keys and tensors go by position.")
      .def_static(
          "open",
          [](const std::filesystem::path& path) {
            quantloom::Unlocked release;
            return std::const_pointer_cast<ModelFile>(ModelFile::open(path));
          },
          py::arg("path"))
      .def_property_readonly("version", [](const ModelFile& file) { return file.file().version(); })
      .def_property_readonly("alignment",
                             [](const ModelFile& file) { return file.file().alignment(); })
      .def_property_readonly("data_offset",
                             [](const ModelFile& file) { return file.file().data_offset(); })
      .def_property_readonly("has_data",
                             [](const ModelFile& file) { return file.file().has_data(); })
      .def_property_readonly("total_bytes", &ModelFile::total_bytes)
      .def_property_readonly("shard_count",
                             [](const ModelFile& file) { return file.shards().size(); })
      .def("keys",
           [](const ModelFile& file) {
             return names(file.file().metadata(), [](const auto& record) { return record.key; });
           })
      .def("tensor_names",
           [](const ModelFile& file) {
             return names(file.file().tensors(),
                          [](const auto& info) { return std::string_view(info.name); });
           })
      .def("value", &value, py::arg("index"),
           "The value of a key: str (bytes where it is not UTF-8), int, float, bool, a list of "
           "strings or an array of numbers. Raises FileError where text or an array is to be read "
           "from a file that has changed since it was opened.")
      .def("value_type", &value_type, py::arg("index"),
           "(type name, None), or (element type name, number of elements) for an array.")
      .def("tensor", &tensor, py::arg("index"),
           "(name, shape, format name, bytes, offset in its shard, shard).")
      .def(
          "tensor_bytes",
          [](const std::shared_ptr<ModelFile>& file, std::size_t index) {
            return tensor_bytes(file, index);
          },
          py::arg("index"), "A read-only uint8 array over the mapped blocks.")
      .def("check_finite", &check_finite, py::arg("index"),
           "Raises GGUFError naming the block where a scale or value is NaN or Inf.");
}
