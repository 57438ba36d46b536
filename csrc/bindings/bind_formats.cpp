#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstddef>
#include <cstdint>
#include <mutex>
#include <string>

#include "base/error.h"
#include "base/thread_pool.h"
#include "bindings/bindings.h"
#include "bindings/interpreter_lock.h"
#include "formats/decode.h"
#include "formats/encode/encode.h"
#include "formats/list.h"
#include "formats/parallel.h"
#include "formats/types.h"

namespace py = pybind11;

namespace {

using quantloom::Error;
using quantloom::ErrorKind;
using quantloom::formats::Format;
using quantloom::formats::TypeInfo;
using quantloom::formats::TypeState;

using Bytes = py::array_t<std::uint8_t, py::array::c_style>;
using Floats = py::array_t<float, py::array::c_style>;

// 64 KB of decoded values: what a thread takes at once.
constexpr std::int64_t step = 16384;

const TypeInfo& served_type(std::uint32_t id) {
  const TypeInfo* info = quantloom::formats::type_info(id);
  if (info == nullptr) {
    throw Error(ErrorKind::invalid_argument, "tensor type " + std::to_string(id) + " is unknown",
                "format");
  }
  if (info->state != TypeState::served) {
    throw Error(ErrorKind::invalid_argument,
                "there is no decoder for tensor type " + std::string(info->name), "format");
  }
  return *info;
}

int threads_of(int asked) { return asked > 0 ? asked : quantloom::available_cores(); }

Floats dequantize(const Bytes& blocks, std::uint32_t format, int threads) {
  const TypeInfo& info = served_type(format);
  const std::int64_t size = blocks.size();
  if (size % info.bytes != 0) {
    throw Error(ErrorKind::invalid_argument,
                std::to_string(size) + " bytes are not whole " + info.name + " blocks of " +
                    std::to_string(info.bytes) + " bytes",
                "blocks", std::nullopt, info.bytes);
  }
  const std::int64_t elements = size / info.bytes * info.elements;
  Floats values(elements);
  const auto* source = reinterpret_cast<const std::byte*>(blocks.data());
  float* target = values.mutable_data();
  {
    quantloom::Unlocked release;
    quantloom::formats::parallel_ranges(
        elements, step, threads_of(threads), [&](std::int64_t begin, std::int64_t end) {
          const std::int64_t first_byte = begin / info.elements * info.bytes;
          (void)quantloom::formats::decode_row(static_cast<Format>(format), source + first_byte,
                                               end - begin, target + begin);
        });
  }
  return values;
}

[[noreturn]] void refuse(const TypeInfo& info, quantloom::formats::EncodeResult result,
                         std::int64_t position, float value) {
  using quantloom::formats::EncodeStatus;
  const std::string name(info.name);
  switch (result.status) {
    case EncodeStatus::not_finite:
      throw Error(ErrorKind::numerics,
                  "value " + std::to_string(position) + " is " + std::to_string(value) + "; " +
                      name + " holds finite numbers",
                  "values");
    case EncodeStatus::out_of_range:
      throw Error(ErrorKind::numerics,
                  "value " + std::to_string(position) + " is " + std::to_string(value) +
                      ", too large for " + name,
                  "values");
    case EncodeStatus::not_encodable:
      throw Error(ErrorKind::invalid_argument, "there is no encoder for " + name, "format");
    case EncodeStatus::partial_block:
    case EncodeStatus::done:
      break;
  }
  throw Error(ErrorKind::invalid_argument,
              "the values are not whole " + name + " blocks of " + std::to_string(info.elements),
              "values", std::nullopt, info.elements);
}

// One flat array: the caller has checked that its rows are whole blocks.
py::array_t<std::uint8_t> quantize(const Floats& values, std::uint32_t format, int threads) {
  using quantloom::formats::EncodeResult;
  using quantloom::formats::EncodeStatus;
  const TypeInfo& info = served_type(format);
  const std::int64_t elements = values.size();
  if (!quantloom::formats::encodable(static_cast<Format>(format))) {
    refuse(info, {EncodeStatus::not_encodable, 0}, 0, 0.0f);
  }
  if (elements % info.elements != 0) refuse(info, {EncodeStatus::partial_block, 0}, 0, 0.0f);
  py::array_t<std::uint8_t> blocks(elements / info.elements * info.bytes);
  const float* source = values.data();
  auto* target = reinterpret_cast<std::byte*>(blocks.mutable_data());
  EncodeResult first{EncodeStatus::done, 0};  // the failure at the lowest position
  {
    quantloom::Unlocked release;
    std::mutex mutex;
    quantloom::formats::parallel_ranges(
        elements, step, threads_of(threads), [&](std::int64_t begin, std::int64_t end) {
          EncodeResult result = quantloom::formats::encode_row(
              static_cast<Format>(format), source + begin, end - begin,
              target + begin / info.elements * info.bytes);
          if (result.status == EncodeStatus::done) return;
          result.position += begin;
          const std::lock_guard lock(mutex);
          if (first.status == EncodeStatus::done || result.position < first.position) {
            first = result;
          }
        });
  }
  if (first.status != EncodeStatus::done) {
    refuse(info, first, first.position, source[first.position]);
  }
  return blocks;
}

const char* state_name(TypeState state) {
  switch (state) {
    case TypeState::served:
      return "served";
    case TypeState::known:
      return "known";
    case TypeState::removed:
      return "removed";
  }
  return "";
}

py::list type_table() {
  py::list table;
  for (const TypeInfo& info : quantloom::formats::type_table()) {
    const bool encodable = quantloom::formats::encodable(static_cast<Format>(info.id));
    table.append(py::make_tuple(info.id, info.name, info.elements, info.bytes,
                                state_name(info.state), encodable));
  }
  return table;
}

}  // namespace

void bind_formats(py::module_& m) {
  m.def("type_table", &type_table,
        "Every GGUF tensor type: (id, name, elements per block, bytes per block, state, "
        "encodable).");
  m.def("dequantize", &dequantize, py::arg("blocks").noconvert(), py::arg("format"),
        py::arg("threads") = 0,
        "float32 values of the blocks in a contiguous uint8 array, as a flat array.");
  m.def("quantize", &quantize, py::arg("values").noconvert(), py::arg("format"),
        py::arg("threads") = 0,
        "Blocks of the values in a contiguous float32 array, as a flat uint8 array.");
}
