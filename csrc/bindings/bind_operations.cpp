// The operations of ops/operations.h on NumPy arrays, one call at a time on any device, so that
// pytest can hold each against the reference. Outputs are poisoned before the call and lie between
// sentinels that are checked after it.
#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "bindings/bindings.h"
#include "bindings/interpreter_lock.h"
#include "bindings/names.h"
#include "device/device.h"
#include "formats/types.h"
#include "model/backend.h"
#include "ops/operations.h"

namespace py = pybind11;
namespace ops = quantloom::ops;
using quantloom::Error;
using quantloom::ErrorKind;

namespace {

using Floats = py::array_t<float, py::array::c_style | py::array::forcecast>;
using Integers = py::array_t<std::int32_t, py::array::c_style | py::array::forcecast>;
using Bytes = py::array_t<std::uint8_t, py::array::c_style>;

constexpr std::size_t guard_floats = 64;
constexpr std::uint32_t poison = 0x7fc0dead;    // a NaN: what is not written shows
constexpr std::uint32_t sentinel = 0xdeadbeef;  // beside the output

[[noreturn]] void refuse(const std::string& message, const char* subject) {
  throw Error(ErrorKind::invalid_argument, message, subject);
}

class Runner {
 public:
  Runner(const std::string& device, const std::string& precision)
      : operations_(quantloom::model::make_operations(
            quantloom::device::parse_device(device),
            quantloom::value_of("precision", precision, quantloom::precisions))) {}

  void reserve(std::int64_t tokens, std::int64_t width, std::int64_t context, int heads,
               int head_size, std::int64_t vocabulary) {
    operations_->reserve({.tokens = tokens,
                          .width = width,
                          .context = context,
                          .heads = heads,
                          .head_size = head_size,
                          .vocabulary = vocabulary,
                          .ternary = true});
  }

  ops::Operations& operations() { return *operations_; }

  // Device memory with a copy of an array; lives until release().
  template <class Array>
  auto* upload(const Array& array) {
    using Element = std::remove_const_t<std::remove_pointer_t<decltype(array.data())>>;
    const auto bytes = static_cast<std::size_t>(array.nbytes());
    buffers_.push_back(operations_->allocate(bytes + 64, "test input"));
    operations_->write(buffers_.back().get(), array.data(), bytes);
    return static_cast<Element*>(buffers_.back().get());
  }

  float* upload_or_null(const std::optional<Floats>& array) {
    return array ? upload(*array) : nullptr;
  }

  // A matrix placed on the device as a model's would be.
  const ops::Weight* weight(const Bytes& blocks, std::uint32_t format, std::int64_t columns,
                            bool multiplied = true) {
    const auto* info = quantloom::formats::type_info(format);
    if (info == nullptr || info->bytes == 0 || columns <= 0 || columns % info->elements != 0) {
      refuse("the columns are not whole blocks of a known format", "columns");
    }
    const auto row_bytes = static_cast<std::int64_t>(info->bytes) *
                           (columns / static_cast<std::int64_t>(info->elements));
    if (blocks.nbytes() == 0 || blocks.nbytes() % row_bytes != 0) {
      refuse("the bytes are not whole rows", "blocks");
    }
    weights_.push_back(std::make_unique<ops::Weight>());
    ops::Weight* weight = weights_.back().get();
    *weight = {.name = "test weight",
               .format = static_cast<quantloom::formats::Format>(format),
               .rows = blocks.nbytes() / row_bytes,
               .columns = columns,
               .blocks = blocks.data(),
               .planes = nullptr,
               .looked_up = true,
               .multiplied = multiplied};
    // Threads of its own upload it, and a sanitizer may want the interpreter's lock in them.
    const quantloom::Unlocked unlocked;
    for (ops::Buffer& buffer : operations_->place(std::span(&weight, 1), {})) {
      buffers_.push_back(std::move(buffer));
    }
    return weight;
  }

  // `count` poisoned floats between sentinels.
  float* output(std::size_t count) {
    std::vector<std::uint32_t> words(count + 2 * guard_floats, poison);
    for (std::size_t i = 0; i < guard_floats; ++i) {
      words[i] = sentinel;
      words[guard_floats + count + i] = sentinel;
    }
    buffers_.push_back(operations_->allocate(words.size() * sizeof(float), "test output"));
    operations_->write(buffers_.back().get(), words.data(), words.size() * sizeof(float));
    return static_cast<float*>(buffers_.back().get()) + guard_floats;
  }

  Floats fetch(const float* output, const std::vector<py::ssize_t>& shape) {
    Floats result(shape);
    const auto count = static_cast<std::size_t>(result.size());
    std::vector<std::uint32_t> words(count + 2 * guard_floats);
    operations_->read(words.data(), output - guard_floats, words.size() * sizeof(float));
    for (std::size_t i = 0; i < guard_floats; ++i) {
      if (words[i] != sentinel || words[guard_floats + count + i] != sentinel) {
        throw std::runtime_error("an operation wrote outside its output");
      }
    }
    std::memcpy(result.mutable_data(), words.data() + guard_floats, count * sizeof(float));
    return result;
  }

  template <class Array>
  Array fetch_plain(const void* from, const std::vector<py::ssize_t>& shape) {
    Array result(shape);
    operations_->read(result.mutable_data(), from, static_cast<std::size_t>(result.nbytes()));
    return result;
  }

  void release() {
    operations_->synchronize();
    buffers_.clear();
    weights_.clear();
  }

 private:
  std::unique_ptr<ops::Operations> operations_;
  std::vector<ops::Buffer> buffers_;
  std::vector<std::unique_ptr<ops::Weight>> weights_;
};

struct Matrix {
  Bytes blocks;
  std::uint32_t format;
  std::int64_t columns;
  std::optional<Floats> bias;
};

Floats norm(Runner& r, const Floats& x, const Floats& weight, float epsilon) {
  float* out = r.output(static_cast<std::size_t>(x.size()));
  r.operations().norm(r.upload(x), x.shape(0), x.shape(1), {r.upload(weight), epsilon}, out);
  Floats result = r.fetch(out, {x.shape(0), x.shape(1)});
  r.release();
  return result;
}

// `multiplied`: the table is a head too, which a GPU keeps in another layout.
Floats embed(Runner& r, const Matrix& table, const Integers& tokens, float scale, bool multiplied) {
  const ops::Weight* weight = r.weight(table.blocks, table.format, table.columns, multiplied);
  float* out = r.output(static_cast<std::size_t>(tokens.size() * table.columns));
  r.operations().embed(*weight, r.upload(tokens), tokens.size(), scale, out);
  Floats result = r.fetch(out, {tokens.size(), table.columns});
  r.release();
  return result;
}

std::vector<Floats> norm_project(Runner& r, const Floats& x, const Floats& norm_weight,
                                 float epsilon, const std::vector<Matrix>& matrices) {
  std::vector<ops::Projection> projections;
  for (const Matrix& matrix : matrices) {
    const ops::Weight* weight = r.weight(matrix.blocks, matrix.format, matrix.columns);
    projections.push_back({weight, r.upload_or_null(matrix.bias),
                           r.output(static_cast<std::size_t>(x.shape(0) * weight->rows))});
  }
  r.operations().norm_project(r.upload(x), x.shape(0), {r.upload(norm_weight), epsilon},
                              projections);
  std::vector<Floats> results;
  for (const ops::Projection& p : projections) {
    results.push_back(r.fetch(p.out, {x.shape(0), p.weight->rows}));
  }
  r.release();
  return results;
}

Floats project(Runner& r, const Floats& x, const Matrix& matrix) {
  const ops::Weight* weight = r.weight(matrix.blocks, matrix.format, matrix.columns);
  float* out = r.output(static_cast<std::size_t>(x.shape(0) * weight->rows));
  r.operations().project(r.upload(x), x.shape(0), {weight, r.upload_or_null(matrix.bias), out});
  Floats result = r.fetch(out, {x.shape(0), weight->rows});
  r.release();
  return result;
}

Floats project_add(Runner& r, const Floats& x, const Matrix& matrix, const Floats& residual) {
  const ops::Weight* weight = r.weight(matrix.blocks, matrix.format, matrix.columns);
  if (residual.ndim() != 2 || residual.shape(0) != x.shape(0) ||
      residual.shape(1) != weight->rows) {
    refuse("the residual is not [tokens, rows]", "residual");
  }
  float* out = r.output(static_cast<std::size_t>(residual.size()));
  r.operations().copy(out, r.upload(residual), static_cast<std::size_t>(residual.nbytes()));
  r.operations().project_add(r.upload(x), x.shape(0), *weight, r.upload_or_null(matrix.bias), out);
  Floats result = r.fetch(out, {residual.shape(0), residual.shape(1)});
  r.release();
  return result;
}

Floats norm_gate_up(Runner& r, const Floats& x, const Floats& norm_weight, float epsilon,
                    const Matrix& gate, const Matrix& up, const std::string& activation) {
  const ops::Weight* gate_weight = r.weight(gate.blocks, gate.format, gate.columns);
  const ops::Weight* up_weight = r.weight(up.blocks, up.format, up.columns);
  float* out = r.output(static_cast<std::size_t>(x.shape(0) * gate_weight->rows));
  r.operations().norm_gate_up(
      r.upload(x), x.shape(0), {r.upload(norm_weight), epsilon}, *gate_weight, *up_weight,
      quantloom::value_of("activation", activation, quantloom::activations), out);
  Floats result = r.fetch(out, {x.shape(0), gate_weight->rows});
  r.release();
  return result;
}

Floats feed_forward(Runner& r, const Floats& residual, const Floats& norm_weight, float epsilon,
                    const Matrix& gate, const Matrix& up, const Matrix& down,
                    const std::string& activation) {
  const auto weight_of = [&](const Matrix& m) { return r.weight(m.blocks, m.format, m.columns); };
  const ops::Weight* gate_weight = weight_of(gate);
  const ops::Norm norm{r.upload(norm_weight), epsilon};
  float* out = r.output(static_cast<std::size_t>(residual.size()));
  r.operations().copy(out, r.upload(residual), static_cast<std::size_t>(residual.nbytes()));
  r.operations().feed_forward(
      {.norm = &norm,
       .gate = gate_weight,
       .up = weight_of(up),
       .down = weight_of(down),
       .bias = r.upload_or_null(down.bias),
       .activation = quantloom::value_of("activation", activation, quantloom::activations),
       .between = r.output(static_cast<std::size_t>(residual.shape(0) * gate_weight->rows)),
       .residual = out},
      residual.shape(0));
  Floats result = r.fetch(out, {residual.shape(0), residual.shape(1)});
  r.release();
  return result;
}

Floats elementwise(Runner& r, const std::string& name, const Floats& a, const Floats& b) {
  float* out = r.output(static_cast<std::size_t>(a.size()));
  if (name == "add") {
    r.operations().add(r.upload(a), r.upload(b), a.size(), out);
  } else {
    r.operations().activate(r.upload(a), r.upload(b), a.size(),
                            quantloom::value_of("activation", name, quantloom::activations), out);
  }
  Floats result = r.fetch(out, {a.size()});
  r.release();
  return result;
}

Floats soft_cap(Runner& r, const Floats& x, float cap) {
  float* out = r.output(static_cast<std::size_t>(x.size()));
  r.operations().copy(out, r.upload(x), static_cast<std::size_t>(x.nbytes()));
  r.operations().soft_cap(out, x.size(), cap);
  Floats result = r.fetch(out, {x.size()});
  r.release();
  return result;
}

// One layer of cache that holds nothing yet, filled with NaN or with int8 zeros under NaN scales.
ops::CacheLayer make_cache(Runner& r, const std::string& type, std::int64_t capacity, int kv_heads,
                           int head_size) {
  ops::CacheLayer cache{.type = quantloom::value_of("cache_type", type, quantloom::cache_types),
                        .capacity = capacity,
                        .kv_heads = kv_heads,
                        .head_size = head_size};
  const auto values = static_cast<py::ssize_t>(capacity * kv_heads * head_size);
  const auto fill = [&](py::ssize_t bytes) {
    Bytes content(bytes);
    std::memset(content.mutable_data(), 0xff, static_cast<std::size_t>(bytes));
    return r.upload(content);
  };
  const py::ssize_t element = cache.type == ops::CacheType::f32   ? 4
                              : cache.type == ops::CacheType::f16 ? 2
                                                                  : 1;
  cache.keys = fill(values * element);
  cache.values = fill(values * element);
  if (cache.type == ops::CacheType::q8_0) {
    cache.key_scales = fill(values / 32 * 2);
    cache.value_scales = fill(values / 32 * 2);
  }
  return cache;
}

// Runs the tokens through rope_store and attention in calls of `chunk` tokens from position `first`
// on; positions below `first` hold `past` keys and values, stored without rotation by the same
// operation.
py::dict attend(Runner& r, const Floats& q, const Floats& k, const Floats& v,
                const std::optional<Floats>& q_norm, const std::optional<Floats>& k_norm,
                float epsilon, const Floats& table, bool interleaved, const std::string& cache_type,
                std::int64_t capacity, std::int64_t chunk, float scale, float soft_cap,
                std::int64_t window, const Floats& past_k, const Floats& past_v) {
  const py::ssize_t tokens = q.shape(0), heads = q.shape(1), size = q.shape(2);
  const py::ssize_t kv_heads = k.shape(1);
  const py::ssize_t first = past_k.shape(0);
  if (first + tokens > capacity) refuse("the tokens do not fit the capacity", "capacity");
  const ops::CacheLayer cache =
      make_cache(r, cache_type, capacity, static_cast<int>(kv_heads), static_cast<int>(size));
  ops::Operations& o = r.operations();
  if (first > 0) {
    const std::int32_t zero = 0;
    Floats none({first, heads, size});
    std::memset(none.mutable_data(), 0, static_cast<std::size_t>(none.nbytes()));
    o.rope_store({.q = r.upload(none),
                  .k = r.upload(past_k),
                  .v = r.upload(past_v),
                  .heads = static_cast<int>(heads),
                  .q_norm = {},
                  .k_norm = {},
                  .rope = {.table = r.upload(table), .dimensions = 0, .interleaved = false},
                  .positions = {r.upload(Integers(1, &zero)), first, first},
                  .cache = cache});
  }
  float* q_device = r.output(static_cast<std::size_t>(q.size()));
  float* out = r.output(static_cast<std::size_t>(q.size()));
  o.copy(q_device, r.upload(q), static_cast<std::size_t>(q.nbytes()));
  float* k_device = r.upload(k);
  const float* v_device = r.upload(v);
  const ops::Rope rope{.table = r.upload(table),
                       .dimensions = static_cast<int>(2 * table.shape(1)),
                       .interleaved = interleaved};
  const ops::Norm q_normed{r.upload_or_null(q_norm), epsilon};
  const ops::Norm k_normed{r.upload_or_null(k_norm), epsilon};
  for (py::ssize_t at = 0; at < tokens; at += chunk) {
    const py::ssize_t count = std::min<py::ssize_t>(chunk, tokens - at);
    const std::int32_t position = static_cast<std::int32_t>(first + at);
    const ops::Positions positions{r.upload(Integers(1, &position)), count, first + at + count};
    o.rope_store({.q = q_device + at * heads * size,
                  .k = k_device + at * kv_heads * size,
                  .v = v_device + at * kv_heads * size,
                  .heads = static_cast<int>(heads),
                  .q_norm = q_normed,
                  .k_norm = k_normed,
                  .rope = rope,
                  .positions = positions,
                  .cache = cache});
    o.attention({.q = q_device + at * heads * size,
                 .heads = static_cast<int>(heads),
                 .scale = scale,
                 .soft_cap = soft_cap,
                 .window = window,
                 .positions = positions,
                 .cache = cache,
                 .out = out + at * heads * size});
  }
  py::dict result;
  result["q"] = r.fetch(q_device, {tokens, heads, size});
  result["out"] = r.fetch(out, {tokens, heads, size});
  const std::vector<py::ssize_t> shape{kv_heads, static_cast<py::ssize_t>(capacity), size};
  if (cache.type == ops::CacheType::f32) {
    result["keys"] = r.fetch_plain<Floats>(cache.keys, shape);
    result["values"] = r.fetch_plain<Floats>(cache.values, shape);
  }
  r.release();
  return result;
}

py::list sample(Runner& r, const Floats& logits, const Integers& history, std::int32_t position,
                int steps, std::uint64_t seed, float temperature, std::int32_t top_k, float top_p,
                float min_p, float typical_p, float repetition, float frequency, float presence,
                std::int32_t window, const Integers& bias_tokens, const Floats& bias_values,
                int top_log_probabilities) {
  ops::Operations& o = r.operations();
  const ops::SamplerParameters parameters{
      .seed = seed,
      .bias_tokens = bias_tokens.size() > 0 ? r.upload(bias_tokens) : nullptr,
      .bias_values = bias_values.size() > 0 ? r.upload(bias_values) : nullptr,
      .bias_count = static_cast<std::int32_t>(bias_tokens.size()),
      .top_k = top_k,
      .penalty_window = window,
      .temperature = temperature,
      .top_p = top_p,
      .min_p = min_p,
      .typical_p = typical_p,
      .repetition_penalty = repetition,
      .frequency_penalty = frequency,
      .presence_penalty = presence};
  Bytes raw(sizeof(parameters));
  std::memcpy(raw.mutable_data(), &parameters, sizeof(parameters));
  const std::int32_t before = position - 1;
  ops::Buffer results =
      o.allocate_shared(static_cast<std::size_t>(steps) * sizeof(ops::Choice), "choices");
  // The sampler moves the position on, so that every step writes another slot.
  const ops::Sample arguments{
      .logits = r.upload(logits),
      .vocabulary = logits.size(),
      .parameters = reinterpret_cast<const ops::SamplerParameters*>(r.upload(raw)),
      .greedy = temperature == 0,
      .top_log_probabilities = top_log_probabilities,
      .first = r.upload(Integers(1, &before)),
      .count = 1,
      .history = r.upload(history),
      .token = r.upload(Integers(1, &before)),
      .results = static_cast<ops::Choice*>(results.get()),
      .result_slots = steps};
  for (int step = 0; step < steps; ++step) o.sample(arguments);
  o.synchronize();
  py::list list;
  for (int step = 0; step < steps; ++step) {
    const ops::Choice& choice = arguments.results[(position + step) % steps];
    const auto top = static_cast<std::size_t>(std::max(top_log_probabilities, 0));
    py::dict entry;
    entry["status"] = static_cast<int>(choice.status);
    entry["token"] = choice.token;
    entry["position"] = choice.position;
    entry["log_probability"] = choice.log_probability;
    entry["top_tokens"] = std::vector(choice.top_tokens, choice.top_tokens + top);
    entry["top_log_probabilities"] =
        std::vector(choice.top_log_probabilities, choice.top_log_probabilities + top);
    list.append(entry);
  }
  r.release();
  return list;
}

}  // namespace

void bind_operations(py::module_& m) {
  py::class_<Matrix>(m, "OperationMatrix", "GGUF blocks of [rows, columns] weights, and a bias.")
      .def(py::init<Bytes, std::uint32_t, std::int64_t, std::optional<Floats>>(), py::arg("blocks"),
           py::arg("format"), py::arg("columns"), py::arg("bias") = py::none());
  py::class_<Runner>(m, "OperationRunner", "One operation at a time on NumPy arrays, for tests.")
      .def(py::init<std::string, std::string>(), py::arg("device"), py::arg("precision"))
      .def("reserve", &Runner::reserve, py::arg("tokens"), py::arg("width"), py::arg("context"),
           py::arg("heads"), py::arg("head_size"), py::arg("vocabulary"))
      .def("norm", &norm, py::arg("x"), py::arg("weight"), py::arg("epsilon"))
      .def("embed", &embed, py::arg("table"), py::arg("tokens"), py::arg("scale"),
           py::arg("multiplied"))
      .def("norm_project", &norm_project, py::arg("x"), py::arg("norm_weight"), py::arg("epsilon"),
           py::arg("matrices"))
      .def("project", &project, py::arg("x"), py::arg("matrix"))
      .def("project_add", &project_add, py::arg("x"), py::arg("matrix"), py::arg("residual"))
      .def("norm_gate_up", &norm_gate_up, py::arg("x"), py::arg("norm_weight"), py::arg("epsilon"),
           py::arg("gate"), py::arg("up"), py::arg("activation"))
      .def("feed_forward", &feed_forward, py::arg("residual"), py::arg("norm_weight"),
           py::arg("epsilon"), py::arg("gate"), py::arg("up"), py::arg("down"),
           py::arg("activation"))
      .def("elementwise", &elementwise, py::arg("name"), py::arg("a"), py::arg("b"))
      .def("soft_cap", &soft_cap, py::arg("x"), py::arg("cap"))
      .def("attend", &attend, py::arg("q"), py::arg("k"), py::arg("v"), py::arg("q_norm"),
           py::arg("k_norm"), py::arg("epsilon"), py::arg("table"), py::arg("interleaved"),
           py::arg("cache_type"), py::arg("capacity"), py::arg("chunk"), py::arg("scale"),
           py::arg("soft_cap"), py::arg("window"), py::arg("past_k"), py::arg("past_v"))
      .def("sample", &sample, py::arg("logits"), py::arg("history"), py::arg("position"),
           py::arg("steps"), py::arg("seed"), py::arg("temperature"), py::arg("top_k"),
           py::arg("top_p"), py::arg("min_p"), py::arg("typical_p"), py::arg("repetition"),
           py::arg("frequency"), py::arg("presence"), py::arg("window"), py::arg("bias_tokens"),
           py::arg("bias_values"), py::arg("top_log_probabilities"));
}
