// quantloom._quantloom.Model and Session: what python/quantloom/model.py stands on.
#include <pybind11/functional.h>
#include <pybind11/gil_safe_call_once.h>
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "base/error.h"
#include "base/thread_pool.h"
#include "bindings/bindings.h"
#include "bindings/interpreter_lock.h"
#include "bindings/names.h"
#include "cpu/sample.h"
#include "device/device.h"
#include "generate/session.h"
#include "loader/model_file.h"
#include "model/backend.h"
#include "model/model.h"

namespace py = pybind11;

namespace {

using namespace quantloom;
using generate::FinishReason;
using generate::GenerateOptions;
using generate::Session;
using model::Model;
using Tokens = py::array_t<std::int64_t, py::array::c_style>;

constexpr Named<FinishReason> finish_reasons[] = {{"", FinishReason::none},
                                                  {"stop", FinishReason::stop},
                                                  {"length", FinishReason::length},
                                                  {"cancelled", FinishReason::cancelled}};

// Lets Python run its signal handlers (Ctrl-C) in the middle of long work; what they raise stops
// it. They run on the main thread alone, and a busy Python thread gives the lock up after 5 ms: a
// prompt that asked once a layer took 50 ms instead of 4.
class SignalHandlers {
 public:
  SignalHandlers() : on_main_thread_(on_main_thread()) {}  // with the interpreter lock

  void operator()() {
    if (not on_main_thread_ or Clock::now() - last_ < interval) return;
    const quantloom::Locked hold;
    if (PyErr_CheckSignals() != 0) throw py::error_already_set();
    last_ = Clock::now();
  }

 private:
  using Clock = std::chrono::steady_clock;
  static constexpr std::chrono::milliseconds interval{20};

  // As Python sees it: in a child of fork(), the thread that forked.
  static bool on_main_thread() {
    PYBIND11_CONSTINIT static py::gil_safe_call_once_and_store<py::object> main_thread;
    const py::object& get =
        main_thread
            .call_once_and_store_result(
                [] { return py::object(py::module_::import("threading").attr("main_thread")); })
            .get_stored();
    return get().attr("ident").cast<unsigned long>() == PyThread_get_thread_ident();
  }

  bool on_main_thread_;
  Clock::time_point last_ = Clock::now();
};

std::shared_ptr<Model> load(const std::shared_ptr<loader::ModelFile>& file,
                            const std::string& device, const std::string& precision,
                            const std::string& cache_type,
                            std::optional<std::int64_t> context_length,
                            std::optional<std::int64_t> gpu_layers, bool as_fit,
                            std::optional<int> threads, bool check_weights, bool batch_invariant,
                            const py::object& progress) {
  const model::LoadOptions options{
      .device = device::parse_device(device),
      .gpu_layers = {.count = gpu_layers, .as_fit = as_fit},
      .precision = value_of("precision", precision, precisions),
      .cache_type = value_of("cache_type", cache_type, cache_types),
      .context_length = context_length,
      .check_weights = check_weights,
      .batch_invariant = batch_invariant,
  };
  const bool tells = not progress.is_none();
  std::optional<std::uint64_t> told;
  SignalHandlers run_signal_handlers;
  const model::LoadProgress report = [&](std::uint64_t done, std::uint64_t total) {
    run_signal_handlers();
    if (not tells or told == done) return;
    told = done;
    const quantloom::Locked hold;
    progress(done, total);
  };
  const quantloom::Unlocked release;
  set_thread_count(threads.value_or(0));
  return Model::load(file, options, report);
}

GenerateOptions options_of(std::int64_t max_new_tokens, std::vector<std::int32_t> stop_tokens,
                           const py::dict& sampler) {
  GenerateOptions options{
      .sampler = {}, .max_new_tokens = max_new_tokens, .stop_tokens = std::move(stop_tokens)};
  generate::SamplerOptions& s = options.sampler;
  const auto take = [&sampler](const char* name, auto& field) {
    if (sampler.contains(name)) {
      field = sampler[name].cast<std::remove_reference_t<decltype(field)>>();
    }
  };
  take("temperature", s.temperature);
  take("top_k", s.top_k);
  take("top_p", s.top_p);
  take("min_p", s.min_p);
  take("typical_p", s.typical_p);
  take("repetition_penalty", s.repetition_penalty);
  take("frequency_penalty", s.frequency_penalty);
  take("presence_penalty", s.presence_penalty);
  take("penalty_window", s.penalty_window);
  take("seed", s.seed);
  take("logit_bias", s.logit_bias);
  take("logprobs", s.log_probabilities);
  take("speculate", options.speculate);
  return options;
}

std::span<const std::int64_t> span_of(const Tokens& tokens) {
  return {tokens.data(), static_cast<std::size_t>(tokens.size())};
}

// (token, log-probability, [(token, log-probability), ...]), or None for both where top is
// negative.
py::tuple choice_tuple(const ops::Choice& choice, int top) {
  if (top < 0) return py::make_tuple(choice.token, py::none(), py::none());
  py::list candidates;
  for (int i = 0; i < std::min(top, ops::max_top_log_probabilities); ++i) {
    candidates.append(py::make_tuple(choice.top_tokens[i], choice.top_log_probabilities[i]));
  }
  return py::make_tuple(choice.token, choice.log_probability, candidates);
}

// (finish reason, (prompt tokens, reused tokens, new tokens, prefill seconds, decode seconds,
// drafted tokens, accepted tokens)), or ("", None) where nothing is known.
py::tuple outcome_tuple(const std::optional<generate::Outcome>& outcome) {
  if (not outcome) return py::make_tuple("", py::none());
  const generate::Timings& t = outcome->timings;
  return py::make_tuple(
      name_of(outcome->reason, finish_reasons),
      py::make_tuple(t.prompt_tokens, t.reused_tokens, t.new_tokens, t.prefill_seconds,
                     t.decode_seconds, t.drafted_tokens, t.accepted_tokens));
}

py::tuple next(Session& session, std::uint64_t generation, int top) {
  std::variant<ops::Choice, std::optional<generate::Outcome>> step;
  SignalHandlers run_signal_handlers;
  {
    const quantloom::Unlocked release;
    step = session.next(generation, std::ref(run_signal_handlers));
  }
  if (const auto* choice = std::get_if<ops::Choice>(&step)) return choice_tuple(*choice, top);
  return outcome_tuple(std::get<1>(step));
}

py::tuple end(Session& session, std::uint64_t generation) {
  std::optional<generate::Outcome> outcome;
  {
    const quantloom::Unlocked release;
    outcome = session.end(generation);
  }
  return outcome_tuple(outcome);
}

py::array_t<float> logits(Session& session, const Tokens& tokens) {
  const std::int64_t vocabulary = session.vocabulary();
  py::array_t<float> result;
  float* data = nullptr;
  const auto sink = [&](std::int64_t first_row, std::int64_t rows, const float* values) {
    if (rows == 0) {
      const quantloom::Locked hold;
      result = py::array_t<float>({static_cast<py::ssize_t>(tokens.size()), vocabulary});
      data = result.mutable_data();
      return;
    }
    std::memcpy(data + first_row * vocabulary, values,
                static_cast<std::size_t>(rows * vocabulary) * sizeof(float));
  };
  SignalHandlers run_signal_handlers;
  {
    const quantloom::Unlocked release;
    session.logits(span_of(tokens), sink, std::ref(run_signal_handlers));
  }
  return result;
}

py::tuple sample_once(const py::array_t<float, py::array::c_style>& logits,
                      std::vector<std::int32_t> history, const py::dict& sampler) {
  const GenerateOptions options = options_of(1, {}, sampler);
  generate::validate(options, logits.size());
  ops::SamplerParameters parameters =
      generate::to_parameters(options.sampler, static_cast<std::int64_t>(history.size()));
  const auto [tokens, values] = generate::bias_lists(options.sampler);
  parameters.bias_tokens = tokens.data();
  parameters.bias_values = values.data();
  std::int32_t first = 0;
  std::int32_t token = 0;
  ops::Choice choice;
  const auto count = static_cast<std::int64_t>(history.size());
  history.push_back(0);
  cpu::sample({.logits = logits.data(),
               .vocabulary = logits.size(),
               .parameters = &parameters,
               .greedy = options.sampler.temperature == 0,
               .top_log_probabilities = static_cast<int>(options.sampler.log_probabilities),
               .first = &first,
               .count = count,
               .history = history.data(),
               .token = &token,
               .results = &choice,
               .result_slots = 1});
  if (choice.status != ops::ChoiceStatus::chosen) {
    throw Error(ErrorKind::numerics, "no token can be chosen", "logits");
  }
  return choice_tuple(choice, static_cast<int>(options.sampler.log_probabilities));
}

}  // namespace

void bind_model(py::module_& m) {
  m.def("sample", &sample_once, py::arg("logits"), py::arg("history"), py::arg("sampler"),
        "One choice of the CPU's sampler from raw logits after the tokens of history: (token, "
        "log-probability, [(token, log-probability), ...]), for the tests of its definition.");
  m.def(
      "default_device",
      [] {
        const model::DefaultDevice chosen = model::default_device();
        return py::make_tuple(device::to_string(chosen.device), chosen.reason);
      },
      "(what \"auto\" stands for, why)");

  py::class_<Model, std::shared_ptr<Model>>(m, "Model", "Weights on a device.")
      .def_static("load", &load, py::arg("file"), py::arg("device"), py::arg("precision"),
                  py::arg("cache_type"), py::arg("context_length"), py::arg("gpu_layers"),
                  py::arg("as_fit"), py::arg("threads"), py::arg("check_weights"),
                  py::arg("batch_invariant"), py::arg("progress"))
      .def_property_readonly("architecture",
                             [](const Model& m) { return m.description().architecture->name; })
      .def_property_readonly(
          "device", [](const Model& m) { return device::to_string(m.stages().front().device); })
      .def_property_readonly(
          "precision", [](const Model& m) { return name_of(m.options().precision, precisions); })
      .def_property_readonly(
          "cache_type", [](const Model& m) { return name_of(m.options().cache_type, cache_types); })
      .def_property_readonly("batch_invariant",
                             [](const Model& m) { return m.options().batch_invariant; })
      .def_property_readonly("context_length", &Model::context_length)
      .def_property_readonly("trained_context_length",
                             [](const Model& m) { return m.hyperparameters().context_length; })
      .def_property_readonly("vocabulary_size",
                             [](const Model& m) { return m.hyperparameters().vocabulary; })
      .def_property_readonly("embedding_length",
                             [](const Model& m) { return m.hyperparameters().embedding_length; })
      .def_property_readonly("block_count",
                             [](const Model& m) { return m.hyperparameters().block_count; })
      .def_property_readonly("weight_bytes", &Model::weight_bytes)
      .def_property_readonly(
          "cache_bytes",
          [](const Model& m) {
            return model::Cache::bytes_needed(m.hyperparameters(), m.options().cache_type,
                                              m.context_length(), m.hyperparameters().block_count);
          },
          "Bytes of the KV cache of one session.")
      .def_property_readonly("gpu_layers", &Model::gpu_layers)
      .def_property_readonly("gpu_obstacle", &Model::gpu_obstacle)
      .def_property_readonly("step_obstacle", &Model::step_obstacle)
      .def_property_readonly("full_step_obstacle", &Model::full_step_obstacle)
      .def(
          "tensors",
          [](const Model& m) {
            py::list list;
            for (const model::PlacedTensor& t : m.tensors()) {
              list.append(py::make_tuple(t.name, t.type, t.device, t.kernel, t.bytes));
            }
            return list;
          },
          "(name, type, device, kernel, bytes) of all that was placed");

  py::class_<Session, std::shared_ptr<Session>>(m, "Session", "One sequence on a model.")
      .def(py::init(
               [](const std::shared_ptr<Model>& model, std::optional<std::int64_t> prefill_chunk) {
                 const quantloom::Unlocked release;
                 return std::make_shared<Session>(model, prefill_chunk);
               }),
           py::arg("model"), py::arg("prefill_chunk"))
      .def(
          "begin",
          [](Session& session, std::uint64_t generation, const Tokens& prompt,
             std::int64_t max_new_tokens, std::vector<std::int32_t> stop_tokens,
             const py::dict& sampler) {
            GenerateOptions options = options_of(max_new_tokens, std::move(stop_tokens), sampler);
            const quantloom::Unlocked release;
            session.begin(generation, span_of(prompt), std::move(options));
          },
          py::arg("generation"), py::arg("prompt"), py::arg("max_new_tokens"),
          py::arg("stop_tokens"), py::arg("sampler"))
      .def("next", &next, py::arg("generation"), py::arg("top"),
           "(token, log-probability, candidates), or at the end (finish reason, timings).")
      .def("end", &end, py::arg("generation"),
           "(finish reason, timings), or (\"\", None) where another generation has begun since.")
      .def("logits", &logits, py::arg("tokens"))
      .def("cancel", py::overload_cast<>(&Session::cancel))
      .def("cancel", py::overload_cast<std::uint64_t>(&Session::cancel), py::arg("generation"))
      .def("reset", &Session::reset)
      .def("tokens", &Session::tokens)
      .def("close", &Session::close, py::call_guard<quantloom::Unlocked>())
      .def_property_readonly("closed", &Session::closed);
}
