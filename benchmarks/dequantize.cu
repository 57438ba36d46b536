// Checks the dequantization and embedding kernels of every format against the host decoder, bit for
// bit, and times them against a device-to-device copy measured in the same run.
//   benchmark_dequantize [results.json] [weights in Mi, 256 by default; 0 checks alone, at small shapes]
// Exit status 1 when anything differs.
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "dequantize/dequantize.h"
#include "formats/decode.h"
#include "formats/half.h"
#include "formats/list.h"

namespace {

using quantloom::formats::Format;
namespace formats = quantloom::formats;
namespace kernels = quantloom::kernels;

void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n", what, cudaGetErrorString(status));
  std::exit(2);
}

struct Entry {
  Format format;
  const char* name;
  int elements;
  int bytes;
};

std::vector<Entry> entries() {
  std::vector<Entry> list;
#define ADD(F) \
  list.push_back({formats::F::format, formats::F::name, formats::F::elements, formats::F::bytes});
  QL_FLOAT_FORMATS(ADD)
  QL_QUANTIZED_FORMATS(ADD)
#undef ADD
  return list;
}

constexpr Format outputs[] = {Format::f32, Format::f16, Format::bf16};
constexpr const char* output_names[] = {"F32", "F16", "BF16"};
constexpr int output_bytes[] = {4, 2, 2};

__global__ void random_bytes(uint4* data, std::int64_t count, std::uint32_t seed) {
  const std::int64_t step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < count;
       i += step) {
    std::uint32_t word[4];
    for (int j = 0; j < 4; ++j) {
      std::uint32_t x = static_cast<std::uint32_t>(4 * i + j) * 2654435761u + seed;
      x ^= x >> 16;
      x *= 0x7feb352du;
      x ^= x >> 15;
      x *= 0x846ca68bu;
      word[j] = x ^ (x >> 16);
    }
    data[i] = make_uint4(word[0], word[1], word[2], word[3]);
  }
}

// The bits of `value` in the output type; every NaN as one pattern.
std::uint32_t expected_bits(float value, int output) {
  if (std::isnan(value)) return 0xffffffffu;
  if (output == 0) return formats::float_to_bits(value);
  return output == 1 ? formats::float_to_half(value) : formats::float_to_bfloat16(value);
}

std::uint32_t found_bits(const std::uint8_t* bytes, int output) {
  if (output == 0) {
    std::uint32_t bits;
    std::memcpy(&bits, bytes, 4);
    return (bits & 0x7fffffffu) > 0x7f800000u ? 0xffffffffu : bits;
  }
  std::uint16_t bits;
  std::memcpy(&bits, bytes, 2);
  const std::uint32_t infinity = output == 1 ? 0x7c00u : 0x7f80u;
  return (bits & 0x7fffu) > infinity ? 0xffffffffu : bits;
}

constexpr int sentinel = 64;

// Differences between kernel and host over `blocks` blocks that start `shift` units into their
// buffer, the output `out_shift` elements into its own; a changed sentinel counts too.
std::int64_t compare(const Entry& entry, std::int64_t blocks, int shift, int out_shift, int output,
                     std::mt19937& random) {
  const std::int64_t elements = blocks * entry.elements;
  const int offset = shift * (entry.bytes % 2 == 0 ? std::min(entry.bytes, 2) : 1) *
                     (entry.format == Format::f32 ? 2 : 1);
  std::vector<std::uint8_t> host(static_cast<std::size_t>(offset + blocks * entry.bytes));
  for (std::uint8_t& byte : host) byte = static_cast<std::uint8_t>(random());
  std::vector<float> want(static_cast<std::size_t>(elements));
  if (!formats::decode_row(entry.format, host.data() + offset, elements, want.data())) return 1;
  std::uint8_t* in = nullptr;
  std::uint8_t* out = nullptr;
  const std::size_t front = sentinel + static_cast<std::size_t>(out_shift * output_bytes[output]);
  const std::size_t body = static_cast<std::size_t>(elements) * output_bytes[output];
  std::vector<std::uint8_t> found(front + body + sentinel, 0xa5);
  check(cudaMalloc(&in, host.size()), "cudaMalloc");
  check(cudaMalloc(&out, found.size()), "cudaMalloc");
  check(cudaMemcpy(in, host.data(), host.size(), cudaMemcpyHostToDevice), "copy");
  check(cudaMemcpy(out, found.data(), found.size(), cudaMemcpyHostToDevice), "copy");
  check(kernels::dequantize(entry.format, in + offset, elements, outputs[output], out + front,
                            nullptr),
        "dequantize");
  check(cudaMemcpy(found.data(), out, found.size(), cudaMemcpyDeviceToHost), "dequantize");
  std::int64_t different = 0;
  for (std::size_t i = 0; i < front; ++i) different += found[i] != 0xa5;
  for (std::size_t i = front + body; i < found.size(); ++i) different += found[i] != 0xa5;
  for (std::int64_t i = 0; i < elements; ++i) {
    different += found_bits(&found[front + static_cast<std::size_t>(i) * output_bytes[output]],
                            output) != expected_bits(want[static_cast<std::size_t>(i)], output);
  }
  check(cudaFree(in), "cudaFree");
  check(cudaFree(out), "cudaFree");
  return different;
}

std::int64_t compare_embed(const Entry& entry, std::mt19937& random) {
  const std::int64_t columns = 5 * (entry.elements == 1 ? 37 : entry.elements);
  const std::int64_t rows = 33;
  const std::int64_t row_bytes = columns / entry.elements * entry.bytes;
  std::vector<std::uint8_t> table(static_cast<std::size_t>(rows * row_bytes));
  for (std::uint8_t& byte : table) byte = static_cast<std::uint8_t>(random());
  const std::vector<std::int32_t> tokens = {32, 0, 7, 7, -1, 33, 12};
  const float scale = 1.75f;
  const std::size_t count = tokens.size();
  std::vector<float> found(count * columns + 2 * sentinel, 12345.0f);
  std::uint8_t* device_table = nullptr;
  std::int32_t* device_tokens = nullptr;
  float* out = nullptr;
  check(cudaMalloc(&device_table, table.size()), "cudaMalloc");
  check(cudaMalloc(&device_tokens, count * 4), "cudaMalloc");
  check(cudaMalloc(&out, found.size() * 4), "cudaMalloc");
  check(cudaMemcpy(device_table, table.data(), table.size(), cudaMemcpyHostToDevice), "copy");
  check(cudaMemcpy(device_tokens, tokens.data(), count * 4, cudaMemcpyHostToDevice), "copy");
  check(cudaMemcpy(out, found.data(), found.size() * 4, cudaMemcpyHostToDevice), "copy");
  check(kernels::embed(entry.format, device_table, rows, columns, device_tokens,
                       static_cast<std::int64_t>(count), scale, out + sentinel, nullptr),
        "embed");
  check(cudaMemcpy(found.data(), out, found.size() * 4, cudaMemcpyDeviceToHost), "embed");
  std::int64_t different = 0;
  for (int i = 0; i < sentinel; ++i) {
    different += found[static_cast<std::size_t>(i)] != 12345.0f;
    different += found[found.size() - 1 - static_cast<std::size_t>(i)] != 12345.0f;
  }
  std::vector<float> row(static_cast<std::size_t>(columns));
  for (std::size_t i = 0; i < count; ++i) {
    const bool there = tokens[i] >= 0 && tokens[i] < rows;
    const auto* source = table.data() + (there ? tokens[i] : 0) * row_bytes;
    if (!formats::decode_row(entry.format, source, columns, row.data())) return 1;
    for (std::int64_t c = 0; c < columns; ++c) {
      const float want = there ? formats::multiply(scale, row[static_cast<std::size_t>(c)]) : NAN;
      const auto* bytes = reinterpret_cast<const std::uint8_t*>(
          &found[sentinel + i * static_cast<std::size_t>(columns) + static_cast<std::size_t>(c)]);
      different += found_bits(bytes, 0) != expected_bits(want, 0);
    }
  }
  check(cudaFree(device_table), "cudaFree");
  check(cudaFree(device_tokens), "cudaFree");
  check(cudaFree(out), "cudaFree");
  return different;
}

// Of one call in a row of five: between single ones the memory idles.
template <typename Work>
double median_seconds(Work work, int repeats = 11) {
  constexpr int row = 5;
  cudaEvent_t begin;
  cudaEvent_t end;
  check(cudaEventCreate(&begin), "event");
  check(cudaEventCreate(&end), "event");
  for (int i = 0; i < 2; ++i) work();
  std::vector<float> times;
  for (int i = 0; i < repeats; ++i) {
    check(cudaEventRecord(begin), "event");
    for (int j = 0; j < row; ++j) work();
    check(cudaEventRecord(end), "event");
    check(cudaEventSynchronize(end), "timing");
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, begin, end), "event");
    times.push_back(milliseconds / row);
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2] * 1e-3;
}

// One tensor whose output is larger than 4 GiB: its first, middle and last blocks against the host.
std::int64_t compare_large(const Entry& entry) {
  const std::int64_t elements = 1280ll << 20;
  const std::int64_t bytes = elements / entry.elements * entry.bytes;
  uint4* in = nullptr;
  std::uint8_t* out = nullptr;
  check(cudaMalloc(&in, static_cast<std::size_t>(bytes)), "cudaMalloc");
  check(cudaMalloc(&out, static_cast<std::size_t>(elements) * 4), "cudaMalloc");
  random_bytes<<<4096, 256>>>(in, bytes / 16, 99);
  check(cudaMemset(out, 0xa5, static_cast<std::size_t>(elements) * 4), "memset");
  check(kernels::dequantize(entry.format, in, elements, Format::f32, out, nullptr), "dequantize");
  std::int64_t different = 0;
  const std::int64_t span = 64 * 256;
  for (const std::int64_t first : {std::int64_t{0}, elements / 2, elements - span}) {
    std::vector<std::uint8_t> blocks(static_cast<std::size_t>(span / entry.elements * entry.bytes));
    std::vector<std::uint8_t> found(span * 4);
    check(cudaMemcpy(blocks.data(),
                     reinterpret_cast<std::uint8_t*>(in) + first / entry.elements * entry.bytes,
                     blocks.size(), cudaMemcpyDeviceToHost),
          "copy");
    check(cudaMemcpy(found.data(), out + 4 * first, found.size(), cudaMemcpyDeviceToHost), "copy");
    std::vector<float> want(span);
    if (!formats::decode_row(entry.format, blocks.data(), span, want.data())) return 1;
    for (std::int64_t i = 0; i < span; ++i) {
      different += found_bits(&found[static_cast<std::size_t>(4 * i)], 0) !=
                   expected_bits(want[static_cast<std::size_t>(i)], 0);
    }
  }
  check(cudaFree(in), "cudaFree");
  check(cudaFree(out), "cudaFree");
  return different;
}

}  // namespace

int main(int argc, char** argv) {
  std::FILE* json = argc > 1 ? std::fopen(argv[1], "w") : nullptr;
  const std::int64_t weights = (argc > 2 ? std::atoll(argv[2]) : 256) << 20;
  cudaDeviceProp device;
  check(cudaGetDeviceProperties(&device, 0), "cudaGetDeviceProperties");

  std::mt19937 random(1);
  std::int64_t wrong = 0;
  int cases = 0;
  for (const Entry& entry : entries()) {
    std::int64_t here = 0;
    for (int output = 0; output < 3; ++output) {
      const std::int64_t tile = std::max(8192 / entry.elements, 1);
      for (const std::int64_t blocks : {std::int64_t{0}, std::int64_t{1}, std::int64_t{3}, tile - 1,
                                        tile, tile + 1, 3 * tile + 5, 16 * tile + 7}) {
        here += compare(entry, blocks, 0, 0, output, random);
        ++cases;
      }
      here += compare(entry, 2 * tile + 3, 1, 0, output, random);  // blocks not 16-byte aligned
      here += compare(entry, 2 * tile + 3, 0, 1, output, random);  // output not 16-byte aligned
      here += compare(entry, 2 * tile + 3, 3, 3, output, random);
      cases += 3;
    }
    here += compare_embed(entry, random);
    ++cases;
    if (here != 0) {
      std::printf("%s: %lld values differ\n", entry.name, static_cast<long long>(here));
    }
    wrong += here;
  }
  if (weights > 0) {
    wrong += compare_large({Format::q4_0, "Q4_0", 32, 18});
    wrong += compare_large({Format::q6_k, "Q6_K", 256, 210});
    cases += 2;
  }
  std::printf("%s: %d cases, %lld values differ from the host decoder\n", device.name, cases,
              static_cast<long long>(wrong));

  if (weights == 0) return wrong == 0 ? 0 : 1;

  std::uint8_t* in = nullptr;
  std::uint8_t* out = nullptr;
  const std::size_t room = static_cast<std::size_t>(weights) * 4 + 256;
  check(cudaMalloc(&in, room), "cudaMalloc");
  check(cudaMalloc(&out, room), "cudaMalloc");
  random_bytes<<<4096, 256>>>(reinterpret_cast<uint4*>(in), static_cast<std::int64_t>(room / 16),
                              7);
  const auto copy_once = [&] {
    check(cudaMemcpyAsync(out, in, room, cudaMemcpyDeviceToDevice), "copy");
  };
  median_seconds(copy_once, 50);  // the clock rises in the first tens of milliseconds
  const double copy = median_seconds(copy_once);
  const double ceiling = 2.0 * static_cast<double>(room) / copy;
  std::printf("copy ceiling %.0f GB/s; share of it at %lld Mi weights\n%-8s %6s %6s %6s\n",
              ceiling * 1e-9, static_cast<long long>(weights >> 20), "", "F32", "F16", "BF16");
  if (json != nullptr) {
    std::fprintf(json,
                 "{\"device\": \"%s\", \"copy_gb_s\": %.1f, \"mi_weights\": %lld, "
                 "\"cases\": %d, \"different\": %lld, \"formats\": {",
                 device.name, ceiling * 1e-9, static_cast<long long>(weights >> 20), cases,
                 static_cast<long long>(wrong));
  }
  bool first = true;
  for (const Entry& entry : entries()) {
    std::printf("%-8s", entry.name);
    if (json != nullptr) std::fprintf(json, "%s\"%s\": {", first ? "" : ", ", entry.name);
    first = false;
    for (int output = 0; output < 3; ++output) {
      const double seconds = median_seconds([&] {
        check(kernels::dequantize(entry.format, in, weights, outputs[output], out, nullptr),
              "dequantize");
      });
      const double bytes = static_cast<double>(weights) / entry.elements * entry.bytes +
                           static_cast<double>(weights) * output_bytes[output];
      std::printf(" %6.3f", bytes / seconds / ceiling);
      if (json != nullptr) {
        std::fprintf(json, "%s\"%s\": {\"gb_s\": %.1f, \"share\": %.4f}", output == 0 ? "" : ", ",
                     output_names[output], bytes / seconds * 1e-9, bytes / seconds / ceiling);
      }
    }
    std::printf("\n");
    if (json != nullptr) std::fprintf(json, "}");
  }
  if (json != nullptr) {
    std::fprintf(json, "}}\n");
    std::fclose(json);
  }
  return wrong == 0 ? 0 : 1;
}
