// Matrix products on every instruction set of this machine, every format and precision, against
// float64 over the decoded weights.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <limits>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/thread_pool.h"
#include "cpu/instruction_set.h"
#include "cpu/operations.h"
#include "formats/decode.h"
#include "formats/types.h"

namespace {

using quantloom::cpu::InstructionSet;
using quantloom::formats::Format;
using quantloom::formats::TypeInfo;
using quantloom::ops::Operations;
using quantloom::ops::Precision;
using quantloom::ops::Weight;

int failures = 0;
std::map<std::string, double> worst;  // by instruction set and precision

void expect(bool holds, const std::string& what) {
  if (holds) return;
  ++failures;
  std::printf("FAILED %s\n", what.c_str());
}

constexpr float sentinel = -12345.0f;

struct Matrix {
  std::vector<std::uint8_t> blocks;
  std::vector<float> values;
  Weight weight;
};

// Random bits whose decoded values are of one size: where one block drowns the others, or an
// outlier meets a weight of zero, the error of a single sum says nothing.
Matrix random_matrix(const TypeInfo& info, std::int64_t rows, std::int64_t columns,
                     std::mt19937& random) {
  Matrix matrix;
  const std::int64_t blocks = rows * columns / info.elements;
  matrix.blocks.resize(static_cast<std::size_t>(blocks) * info.bytes);
  matrix.values.resize(static_cast<std::size_t>(rows * columns));
  const auto format = static_cast<Format>(info.id);
  std::uniform_int_distribution<int> byte(0, 255);
  for (std::int64_t b = 0; b < blocks; ++b) {
    std::uint8_t* block = matrix.blocks.data() + b * info.bytes;
    float* values = matrix.values.data() + b * info.elements;
    for (int attempt = 0;; ++attempt) {
      for (std::uint32_t i = 0; i < info.bytes; ++i) {
        block[i] = static_cast<std::uint8_t>(byte(random));
      }
      if (!quantloom::formats::decode_row(format, block, info.elements, values)) std::abort();
      double squares = 0;
      for (std::uint32_t i = 0; i < info.elements; ++i) squares += double{values[i]} * values[i];
      const double size = std::sqrt(squares / info.elements);
      if (size > 0.25 && size < 4) break;
    }
  }
  matrix.weight = {.name = info.name,
                   .format = format,
                   .rows = rows,
                   .columns = columns,
                   .blocks = matrix.blocks.data(),
                   .planes = nullptr};
  return matrix;
}

std::vector<float> random_activations(std::int64_t count, bool outliers, std::mt19937& random) {
  std::normal_distribution<float> normal(0, outliers ? 2.0f : 1.0f);
  std::vector<float> x(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) {
    x[static_cast<std::size_t>(i)] = outliers && i % 101 == 7 ? 3000.0f : normal(random);
  }
  return x;
}

void check_product(Operations& operations, const Matrix& matrix, std::int64_t tokens, bool outliers,
                   std::mt19937& random, const std::string& name) {
  const std::int64_t rows = matrix.weight.rows;
  const std::int64_t columns = matrix.weight.columns;
  const std::vector<float> x = random_activations(tokens * columns, outliers, random);
  constexpr std::int64_t guard = 64;
  std::vector<float> out(static_cast<std::size_t>(tokens * rows + 2 * guard), sentinel);
  std::fill(out.begin() + guard, out.end() - guard, std::numeric_limits<float>::quiet_NaN());
  operations.project(x.data(), tokens, {&matrix.weight, nullptr, out.data() + guard});
  for (std::int64_t i = 0; i < guard; ++i) {
    expect(out[static_cast<std::size_t>(i)] == sentinel &&
               out[out.size() - 1 - static_cast<std::size_t>(i)] == sentinel,
           name + ": wrote outside its output");
  }
  double error = 0;
  double size = 0;
  double expected_size = 0;  // of sums with random signs: one sum alone may cancel to nothing
  for (std::int64_t t = 0; t < tokens; ++t) {
    for (std::int64_t r = 0; r < rows; ++r) {
      double sum = 0;
      for (std::int64_t c = 0; c < columns; ++c) {
        const double term = double{matrix.values[static_cast<std::size_t>(r * columns + c)]} *
                            x[static_cast<std::size_t>(t * columns + c)];
        sum += term;
        expected_size += term * term;
      }
      const double difference = out[static_cast<std::size_t>(guard + t * rows + r)] - sum;
      error += difference * difference;
      size += sum * sum;
    }
  }
  const bool exact = operations.precision() == Precision::exact;
  const double normalized = error / std::max(size, expected_size);
  double& highest =
      worst[std::string(quantloom::cpu::to_string(quantloom::cpu::instruction_set())) +
            (exact ? " exact" : " fast")];
  highest = std::max(highest, normalized);
  const double bound = exact ? 1e-6 : 5e-4;
  if (!(normalized <= bound)) {
    char text[64];
    std::snprintf(text, sizeof(text), ": error %.3g", normalized);
    expect(false, name + text);
  }
}

// The bits must not depend on who computes which rows.
void check_threads(Operations& operations, const Matrix& matrix, std::int64_t tokens,
                   std::mt19937& random, const std::string& name) {
  const auto count = static_cast<std::size_t>(tokens * matrix.weight.rows);
  const std::vector<float> x = random_activations(tokens * matrix.weight.columns, false, random);
  std::vector<float> first(count);
  std::vector<float> second(count);
  quantloom::set_thread_count(1);
  operations.project(x.data(), tokens, {&matrix.weight, nullptr, first.data()});
  quantloom::set_thread_count(3);
  operations.project(x.data(), tokens, {&matrix.weight, nullptr, second.data()});
  quantloom::set_thread_count(2);
  expect(std::memcmp(first.data(), second.data(), count * sizeof(float)) == 0,
         name + ": depends on the number of threads");
}

// What is not finite in one token shows in that token's outputs, and only there.
void check_not_finite(Operations& operations, const Matrix& matrix, std::int64_t tokens,
                      std::mt19937& random, const std::string& name) {
  const std::int64_t rows = matrix.weight.rows;
  const std::int64_t columns = matrix.weight.columns;
  for (const float poison :
       {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
        -std::numeric_limits<float>::infinity()}) {
    std::vector<float> x = random_activations(tokens * columns, false, random);
    const std::int64_t token = tokens / 2;
    x[static_cast<std::size_t>(token * columns + columns / 3)] = poison;
    std::vector<float> out(static_cast<std::size_t>(tokens * rows), 0.0f);
    operations.project(x.data(), tokens, {&matrix.weight, nullptr, out.data()});
    for (std::int64_t t = 0; t < tokens; ++t) {
      for (std::int64_t r = 0; r < rows; ++r) {
        const float value = out[static_cast<std::size_t>(t * rows + r)];
        expect(std::isfinite(value) == (t != token), name + ": not finite is lost or spread");
      }
    }
  }
}

// The matrices of one format, made once for all instruction sets.
class Matrices {
 public:
  explicit Matrices(const TypeInfo& info) : info_(info), random_(info.id + 1) {}

  const Matrix& get(std::int64_t rows, std::int64_t columns) {
    std::unique_ptr<Matrix>& entry = made_[{rows, columns}];
    if (!entry) entry = std::make_unique<Matrix>(random_matrix(info_, rows, columns, random_));
    return *entry;
  }

 private:
  const TypeInfo& info_;
  std::mt19937 random_;
  std::map<std::pair<std::int64_t, std::int64_t>, std::unique_ptr<Matrix>> made_;
};

void check_format(const TypeInfo& info, Matrices& matrices, const std::string& set,
                  bool all_sizes) {
  std::mt19937 random(info.id + 1);
  for (const Precision precision : {Precision::exact, Precision::fast}) {
    const std::unique_ptr<Operations> operations = quantloom::cpu::make_operations(precision);
    const std::string name =
        set + " " + info.name + (precision == Precision::exact ? " exact" : " fast");
    std::vector<std::int64_t> widths = {info.elements, 3 * info.elements, 512};
    if (info.elements == 1) widths = {1, 37, 288};
    if (info.elements == 32) widths = {32, 96, 544};
    for (const std::int64_t columns : widths) {
      for (const std::int64_t rows : {1, 7, 17, 40}) {
        const Matrix& matrix = matrices.get(rows, columns);
        std::vector<std::int64_t> counts = {1, 3, 17};
        if (rows == 40 || all_sizes) counts = {1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 65};
        if (rows == 17 && columns == widths[1]) counts = {63, 64, 65, 127, 128, 129};
        for (const std::int64_t tokens : counts) {
          check_product(*operations, matrix, tokens, rows >= 17 && tokens % 3 == 1, random,
                        name + " " + std::to_string(rows) + " x " + std::to_string(columns) +
                            ", tokens " + std::to_string(tokens));
        }
      }
    }
    const Matrix& matrix = matrices.get(150, widths.back());
    for (const std::int64_t tokens : {1, 5, 40}) {
      check_threads(*operations, matrix, tokens, random, name);
      check_not_finite(*operations, matrix, tokens, random, name);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  const bool all_sizes = argc > 1 && std::string(argv[1]) == "--all";
  const std::string only = argc > 1 && !all_sizes ? argv[1] : "";
  const std::string only_format = argc > 2 ? argv[2] : "";
  const auto& sets = quantloom::cpu::available_instruction_sets();
  for (const TypeInfo& info : quantloom::formats::type_table()) {
    if (info.state != quantloom::formats::TypeState::served) continue;
    if (!only_format.empty() && only_format != info.name) continue;
    Matrices matrices(info);
    for (const InstructionSet set : sets) {
      const std::string name = quantloom::cpu::to_string(set);
      if (!only.empty() && only != name) continue;
      quantloom::cpu::set_instruction_set(name);
      check_format(info, matrices, name, all_sizes);
    }
  }
  for (const auto& [name, error] : worst) {
    std::printf("%-18s highest error %.2g\n", name.c_str(), error);
  }
  if (failures == 0) std::printf("ok\n");
  return failures == 0 ? 0 : 1;
}
