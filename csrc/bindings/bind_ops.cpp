#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/thread_pool.h"
#include "bindings/bindings.h"
#include "bindings/interpreter_lock.h"
#include "bindings/names.h"
#include "cpu/instruction_set.h"
#include "device/tensor.h"
#include "formats/types.h"
#include "model/backend.h"
#include "model/matrix.h"

namespace py = pybind11;

namespace {

using quantloom::Error;
using quantloom::ErrorKind;
using quantloom::formats::TypeInfo;
using quantloom::formats::TypeState;

using Bytes = py::array_t<std::uint8_t, py::array::c_style>;
using Floats = py::array_t<float, py::array::c_style | py::array::forcecast>;

quantloom::ops::Precision parse_precision(const std::string& name) {
  return quantloom::value_of("precision", name, quantloom::precisions);
}

Floats matmul(const Floats& x, const Bytes& blocks, std::uint32_t format,
              const std::string& precision) {
  const TypeInfo* info = quantloom::formats::type_info(format);
  if (info == nullptr || info->state != TypeState::served) {
    throw Error(ErrorKind::invalid_argument,
                "there is no product with tensor type " + std::to_string(format), "format");
  }
  if (x.ndim() != 2) {
    throw Error(ErrorKind::invalid_argument,
                "x has " + std::to_string(x.ndim()) + " dimensions, not 2", "x");
  }
  const std::int64_t tokens = x.shape(0);
  const std::int64_t columns = x.shape(1);
  const std::int64_t row_bytes = columns / info->elements * info->bytes;
  if (columns == 0 || columns % info->elements != 0 || blocks.size() % row_bytes != 0) {
    throw Error(ErrorKind::invalid_argument,
                std::to_string(blocks.size()) + " bytes are not rows of " +
                    std::to_string(columns) + " weights in " + info->name + " blocks of " +
                    std::to_string(info->elements),
                "blocks");
  }
  const std::int64_t rows = blocks.size() / row_bytes;
  const quantloom::ops::Weight weight = {.name = "w",
                                         .format = static_cast<quantloom::formats::Format>(format),
                                         .rows = rows,
                                         .columns = columns,
                                         .blocks = blocks.data(),
                                         .planes = nullptr};
  const auto operations = quantloom::model::make_operations({}, parse_precision(precision));
  Floats out({tokens, rows});
  const float* source = x.data();
  float* target = out.mutable_data();
  {
    quantloom::Unlocked release;
    operations->project(source, tokens, {&weight, nullptr, target});
  }
  return out;
}

template <class Matrix>
quantloom::device::Tensor multiply(const quantloom::device::Tensor& x, const Matrix& w,
                                   const std::string& precision, const std::string& dtype,
                                   const quantloom::device::Tensor* out) {
  return quantloom::model::multiply(x, w, parse_precision(precision),
                                    quantloom::device::parse_dtype(dtype), out);
}

std::vector<std::string> instruction_sets() {
  std::vector<std::string> names;
  for (const auto set : quantloom::cpu::available_instruction_sets()) {
    names.emplace_back(quantloom::cpu::to_string(set));
  }
  return names;
}

}  // namespace

void bind_ops(py::module_& m) {
  m.def(
      "matmul", &matmul, py::arg("x"), py::arg("blocks").noconvert(), py::arg("format"),
      py::arg("precision") = "exact",
      "x [tokens, columns] times the transpose of the weights [rows, columns] whose blocks are in "
      "a contiguous uint8 array, on the CPU: float32 [tokens, rows].");
  using quantloom::model::PackedMatrix;
  py::class_<PackedMatrix, std::shared_ptr<PackedMatrix>>(
      m, "PackedMatrix", "A quantized matrix in the planes that a GPU multiplies from.")
      .def(py::init<const quantloom::device::Tensor&>(), py::arg("blocks"),
           py::call_guard<quantloom::Unlocked>())
      .def("unpack", &PackedMatrix::unpack, py::call_guard<quantloom::Unlocked>())
      .def_property_readonly(
          "shape", [](const PackedMatrix& p) { return py::make_tuple(p.rows(), p.columns()); })
      .def_property_readonly(
          "format", [](const PackedMatrix& p) { return static_cast<std::uint32_t>(p.format()); })
      .def_property_readonly("device", [](const PackedMatrix& p) { return to_string(p.device()); })
      .def_property_readonly("nbytes", &PackedMatrix::bytes);
  m.def("multiply", &multiply<quantloom::device::Tensor>, py::arg("x"), py::arg("w"),
        py::arg("precision"), py::arg("dtype"), py::arg("out"),
        py::call_guard<quantloom::Unlocked>(),
        "x [..., columns] times the transpose of w [rows, columns], on their device.");
  m.def("multiply", &multiply<PackedMatrix>, py::arg("x"), py::arg("w"), py::arg("precision"),
        py::arg("dtype"), py::arg("out"), py::call_guard<quantloom::Unlocked>());
  m.def("instruction_sets", &instruction_sets,
        "The CPU instruction sets that this machine has kernels for, in ascending order.");
  m.def(
      "instruction_set",
      [] { return std::string(quantloom::cpu::to_string(quantloom::cpu::instruction_set())); },
      "The instruction set that models loaded from now on use on the CPU.");
  m.def(
      "set_instruction_set",
      [](const std::string& name) { quantloom::cpu::set_instruction_set(name); }, py::arg("name"),
      "Choose one of instruction_sets(), or \"auto\" for the highest.");
  m.def("thread_count", &quantloom::thread_count, "Threads that the CPU's operations use.");
  m.def(
      "set_thread_count",
      [](int threads) {
        const quantloom::Unlocked release;
        quantloom::set_thread_count(threads);
      },
      py::arg("threads"), "Set the number of CPU threads; 0: one per core.");
}
