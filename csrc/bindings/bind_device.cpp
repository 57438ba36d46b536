#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/faults.h"
#include "bindings/bindings.h"
#include "bindings/interpreter_lock.h"
#include "device/exchange.h"
#include "device/memory.h"
#include "device/read_once.h"
#include "device/runtime.h"
#include "device/tensor.h"
#include "formats/types.h"

namespace py = pybind11;
namespace device = quantloom::device;
namespace faults = quantloom::faults;
using device::Tensor;
using quantloom::Error;
using quantloom::ErrorKind;

namespace {

using Shape = std::vector<std::int64_t>;

// A storage over a Python buffer, which stays exported as long as a tensor views it. The last one
// may die on any thread, so the interpreter lock is taken to let go.
std::shared_ptr<device::Storage> host_storage(py::buffer_info info, std::byte* begin,
                                              std::size_t bytes) {
  const bool read_only = info.readonly;
  std::shared_ptr<void> owner(new py::buffer_info(std::move(info)), [](py::buffer_info* held) {
    if (Py_IsInitialized() == 0) return;
    const quantloom::Locked acquire;
    delete held;
  });
  return device::wrap_storage({}, begin, bytes, std::move(owner), read_only);
}

// Any buffer with strides, without a copy. `dtype` says what its elements are.
Tensor from_buffer(const py::buffer& source, const std::string& dtype) {
  py::buffer_info info = source.request();
  Shape shape(info.shape.begin(), info.shape.end());
  Shape strides(info.strides.begin(), info.strides.end());
  const auto [low, high] = device::reach_of(shape, strides, info.itemsize);
  std::byte* begin = static_cast<std::byte*>(info.ptr) + low;
  auto storage = host_storage(std::move(info), begin, static_cast<std::size_t>(high - low));
  return Tensor::view(std::move(storage), device::parse_dtype(dtype), std::move(shape),
                      std::move(strides), static_cast<std::size_t>(-low));
}

Tensor from_blocks(const py::buffer& source, std::uint32_t format, Shape shape) {
  py::buffer_info info = source.request();
  if (PyBuffer_IsContiguous(info.view(), 'C') == 0) {
    throw Error(ErrorKind::invalid_argument, "blocks must be contiguous bytes", "blocks");
  }
  const auto bytes = static_cast<std::size_t>(info.size * info.itemsize);
  auto* begin = static_cast<std::byte*>(info.ptr);
  auto storage = host_storage(std::move(info), begin, bytes);
  return Tensor::blocks(std::move(storage), static_cast<quantloom::formats::Format>(format),
                        std::move(shape));
}

Tensor blocks_of(const Tensor& bytes, std::uint32_t format, Shape shape) {
  if (bytes.dtype() != device::DType::u8 || !bytes.is_contiguous()) {
    throw Error(ErrorKind::invalid_argument, "blocks are made of contiguous uint8", "blocks");
  }
  auto storage = device::wrap_storage(bytes.device(), bytes.data(), bytes.bytes(), bytes.storage(),
                                      bytes.is_read_only());
  return Tensor::blocks(std::move(storage), static_cast<quantloom::formats::Format>(format),
                        std::move(shape));
}

py::buffer_info buffer_of(const Tensor& tensor) {
  if (tensor.device().type != device::DeviceType::cpu || tensor.is_blocks()) {
    throw py::buffer_error("only number tensors on the CPU are buffers");
  }
  static constexpr const char* codes[] = {"f", "e", "H", "d", "b", "h", "i",
                                          "q", "B", "H", "I", "Q", "?"};
  return py::buffer_info(
      tensor.data(), static_cast<py::ssize_t>(device::element_bytes(tensor.dtype())),
      codes[static_cast<int>(tensor.dtype())], static_cast<py::ssize_t>(tensor.shape().size()),
      tensor.shape(), tensor.strides(), tensor.is_read_only());
}

template <class Record>
py::capsule capsule_of(Record* managed, const char* name) {
  return py::capsule(managed, name, [](PyObject* object) {
    // A consumer renames the capsule it has taken; then the memory is the consumer's to let go of.
    const char* now = PyCapsule_GetName(object);
    if (now == nullptr || std::string(now).rfind("dltensor", 0) != 0) return;
    auto* record = static_cast<Record*>(PyCapsule_GetPointer(object, now));
    if (record != nullptr && record->deleter != nullptr) record->deleter(record);
  });
}

// stream: -1 for no ordering, else the protocol's number.
py::capsule to_dlpack(const Tensor& tensor, std::int64_t stream, bool versioned, bool copied) {
  if (tensor.device().type == device::DeviceType::cuda) {
    if (stream == -1) {
      device::hand_out_unordered(tensor);
    } else {
      device::hand_out(tensor, device::stream_from_protocol(stream));
    }
  }
  if (versioned) return capsule_of(device::export_versioned(tensor, copied), "dltensor_versioned");
  return capsule_of(device::export_plain(tensor), "dltensor");
}

Tensor from_dlpack(const py::capsule& capsule) {
  const std::string name = capsule.name() == nullptr ? "" : capsule.name();
  if (name == "dltensor_versioned") {
    auto* managed = capsule.get_pointer<device::dlpack::ManagedVersioned>();
    PyCapsule_SetName(capsule.ptr(), "used_dltensor_versioned");
    return device::import_versioned(managed);
  }
  if (name == "dltensor") {
    auto* managed = capsule.get_pointer<device::dlpack::Managed>();
    PyCapsule_SetName(capsule.ptr(), "used_dltensor");
    return device::import_plain(managed);
  }
  throw Error(ErrorKind::invalid_argument,
              "a capsule named '" + name + "' is not a DLPack capsule, or was used before",
              "dlpack");
}

// For producers that order by the current GPU's streams.
py::object with_current(const std::string& where, const py::function& call) {
  py::object result;
  device::with_current(device::parse_device(where), [&] { result = call(); });
  return result;
}

py::dict status() {
  const device::CudaStatus& found = device::cuda_status();
  py::dict answer;
  answer["built_with_cuda"] = device::built_with_cuda();
  answer["available"] = found.available;
  answer["reason"] = found.reason;
  answer["devices"] = found.devices;
  answer["driver_version"] = found.driver_version;
  answer["runtime_version"] = found.runtime_version;
  return answer;
}

py::list devices() {
  py::list answer;
  for (const device::DeviceInfo& info : device::cuda_devices()) {
    py::dict entry;
    entry["index"] = info.index;
    entry["name"] = info.name;
    entry["capability"] = py::make_tuple(info.capability_major, info.capability_minor);
    entry["multiprocessors"] = info.multiprocessors;
    entry["total_bytes"] = info.total_bytes;
    entry["l2_bytes"] = info.l2_bytes;
    answer.append(entry);
  }
  return answer;
}

py::dict memory(const std::string& name) {
  const device::MemoryStatistics found = device::memory_statistics(device::parse_device(name));
  py::dict answer;
  answer["in_use"] = found.in_use;
  answer["peak"] = found.peak;
  answer["cached"] = found.cached;
  answer["cap"] = found.cap == 0 ? py::object(py::none()) : py::object(py::int_(found.cap));
  answer["free"] = found.free;
  answer["total"] = found.total;
  answer["blocks"] = found.blocks;
  answer["device_allocations"] = found.device_allocations;
  return answer;
}

py::dict counters() {
  const device::Counters found = device::counters();
  py::dict answer;
  answer["launches"] = found.launches;
  answer["host_to_device"] = found.host_to_device;
  answer["device_to_host"] = found.device_to_host;
  answer["device_to_device"] = found.device_to_device;
  answer["allocations"] = found.allocations;
  answer["frees"] = found.frees;
  answer["synchronizations"] = found.synchronizations;
  return answer;
}

faults::Point fault_point(const std::string& name) {
  if (name == "host_allocation") return faults::Point::host_allocation;
  if (name == "device_allocation") return faults::Point::device_allocation;
  if (name == "cuda_call") return faults::Point::cuda_call;
  throw Error(ErrorKind::invalid_argument, "no fault point '" + name + "'", "point");
}

}  // namespace

void bind_device(py::module_& m) {
  py::class_<Tensor>(m, "Tensor", py::buffer_protocol())
      .def_static(
          "empty",
          [](const std::string& dtype, Shape shape, const std::string& on) {
            return Tensor::empty(device::parse_dtype(dtype), std::move(shape),
                                 device::parse_device(on));
          },
          py::arg("dtype"), py::arg("shape"), py::arg("device"))
      .def_static("from_buffer", &from_buffer, py::arg("source"), py::arg("dtype"))
      .def_static("from_blocks", &from_blocks, py::arg("source"), py::arg("format"),
                  py::arg("shape"))
      .def_static("blocks_of", &blocks_of, py::arg("bytes"), py::arg("format"), py::arg("shape"))
      .def_static("from_dlpack", &from_dlpack, py::arg("capsule"))
      .def_buffer(&buffer_of)
      .def_property_readonly("shape",
                             [](const Tensor& t) { return py::tuple(py::cast(t.shape())); })
      .def_property_readonly("strides",
                             [](const Tensor& t) { return py::tuple(py::cast(t.strides())); })
      .def_property_readonly("dtype", [](const Tensor& t) { return device::dtype_name(t.dtype()); })
      .def_property_readonly("format",
                             [](const Tensor& t) { return static_cast<std::uint32_t>(t.format()); })
      .def_property_readonly("device", [](const Tensor& t) { return to_string(t.device()); })
      .def_property_readonly("size", &Tensor::size)
      .def_property_readonly("nbytes", &Tensor::bytes)
      .def_property_readonly("is_blocks", &Tensor::is_blocks)
      .def_property_readonly("is_contiguous", &Tensor::is_contiguous)
      .def_property_readonly("is_read_only", &Tensor::is_read_only)
      .def_property_readonly(
          "data", [](const Tensor& t) { return reinterpret_cast<std::uintptr_t>(t.data()); })
      .def_property_readonly("stream",
                             [](const Tensor& t) { return device::stream_to_protocol(t.stream()); })
      .def("reshape", &Tensor::reshape, py::arg("shape"))
      .def("slice", &Tensor::slice, py::arg("first"), py::arg("count"), py::arg("step"))
      .def("row", &Tensor::row, py::arg("index"))
      .def("as_bytes", &Tensor::as_bytes)
      .def("contiguous", &Tensor::contiguous, py::call_guard<quantloom::Unlocked>())
      .def("clone", &Tensor::clone, py::call_guard<quantloom::Unlocked>())
      .def(
          "to",
          [](const Tensor& t, const std::string& on) { return t.to(device::parse_device(on)); },
          py::arg("device"), py::call_guard<quantloom::Unlocked>())
      .def(
          "dequantize",
          [](const Tensor& t, const std::string& dtype, const Tensor* out) {
            return t.dequantize(device::parse_dtype(dtype), out);
          },
          py::arg("dtype"), py::arg("out"), py::call_guard<quantloom::Unlocked>())
      .def("to_dlpack", &to_dlpack, py::arg("stream"), py::arg("versioned"), py::arg("copied"))
      .def("mark_shared", &device::hand_out_unordered);

  m.def("read_once", &device::read_once, py::arg("tensor"), py::arg("sum"),
        py::call_guard<quantloom::Unlocked>(),
        "Reads a tensor and adds its words to a checksum by exclusive or, to time reading.");
  m.def("cuda_status", &status);
  m.def("cuda_devices", &devices);
  m.def("cuda_memory", &memory, py::arg("device"));
  m.def("cuda_counters", &counters);
  m.def(
      "cuda_set_memory_cap",
      [](const std::string& on, std::size_t bytes) {
        device::set_memory_cap(device::parse_device(on), bytes);
      },
      py::arg("device"), py::arg("bytes"));
  m.def(
      "cuda_trim",
      [](const std::string& on, std::size_t keep) {
        device::trim_memory(device::parse_device(on), keep);
      },
      py::arg("device"), py::arg("keep"), py::call_guard<quantloom::Unlocked>());
  m.def(
      "cuda_reset_peak",
      [](const std::string& on) { device::reset_peak_memory(device::parse_device(on)); },
      py::arg("device"));
  m.def(
      "cuda_synchronize",
      [](const std::string& on) { device::synchronize(device::parse_device(on)); },
      py::arg("device"), py::call_guard<quantloom::Unlocked>());
  m.def("with_current", &with_current, py::arg("device"), py::arg("call"),
        "The call's result, made while the device is current.");
  m.def(
      "compute_stream",
      [](const std::string& on) {
        return device::stream_to_protocol(device::compute_stream(device::parse_device(on)));
      },
      py::arg("device"));
  m.def(
      "arm_fault",
      [](const std::string& point, std::uint64_t n) { faults::arm(fault_point(point), n); },
      py::arg("point"), py::arg("n"), "For tests: the n-th passing of a point fails, once.");
  m.def(
      "fault_points_passed",
      [](const std::string& point) { return faults::passed(fault_point(point)); },
      py::arg("point"));
}
