// The format room under the sanitizers: every decoder on random bytes at odd addresses, every
// encoder on weights of every size, and the conversions of halves.
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "check.h"
#include "formats/decode.h"
#include "formats/encode/encode.h"
#include "formats/half.h"
#include "formats/list.h"
#include "formats/parallel.h"
#include "formats/types.h"

using namespace quantloom::formats;

namespace {

constexpr Format all_formats[] = {
#define QL_FORMAT(F) F::format,
    QL_FLOAT_FORMATS(QL_FORMAT) QL_QUANTIZED_FORMATS(QL_FORMAT)
#undef QL_FORMAT
};

constexpr int row = 1024;  // whole blocks of every format

std::vector<std::byte> random_bytes(std::size_t size, std::uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<std::byte> bytes(size);
  for (std::byte& byte : bytes) byte = static_cast<std::byte>(random() & 255u);
  return bytes;
}

std::size_t row_bytes(Format format) {
  const TypeInfo* info = type_info(static_cast<std::uint32_t>(format));
  return static_cast<std::size_t>(row) / info->elements * info->bytes;
}

// As bits, but any NaN equals any other: compilers may order the operands of a product as they
// like.
bool same(float a, float b) {
  return float_to_bits(a) == float_to_bits(b) || (std::isnan(a) && std::isnan(b));
}

}  // namespace

TEST(decode_random_bytes_at_odd_addresses) {
  for (const Format format : all_formats) {
    const std::size_t size = row_bytes(format);
    for (std::uint32_t seed = 0; seed < 50; ++seed) {
      const std::vector<std::byte> bytes = random_bytes(size, seed);
      std::vector<std::byte> shifted(size + 1);
      std::memcpy(shifted.data() + 1, bytes.data(), size);
      std::vector<float> even(row);
      std::vector<float> odd(row);
      CHECK(decode_row(format, bytes.data(), row, even.data()));
      CHECK(decode_row(format, shifted.data() + 1, row, odd.data()));
      for (std::size_t i = 0; i < row; ++i) CHECK(same(even[i], odd[i]));
    }
  }
}

TEST(decode8_and_quants_agree_with_blocks) {
  for (const Format format : all_formats) {
    const bool known = visit_format(
        format,
        []<class F>(F) {
          if constexpr (F::quantized) {
            const std::vector<std::byte> bytes = random_bytes(F::bytes * 200, 9);
            for (int i = 0; i < 200; ++i) {
              typename F::Block block;
              std::memcpy(&block, bytes.data() + i * F::bytes, F::bytes);
              float whole[F::elements];
              decode_block<F>(block, whole);
              for (int k = 0; k < F::elements / 8; ++k) {
                float part[8];
                decode8<F>(block, k, part);
                for (int i = 0; i < 8; ++i) CHECK(same(part[i], whole[8 * k + i]));
                std::int8_t q[8];
                F::quants8(block, k, q);
                for (const std::int8_t value : q) {
                  CHECK(value >= F::minimum_quant && value <= F::maximum_quant);
                }
              }
            }
          }
          return true;
        },
        [] { return false; });
    CHECK(known);
  }
}

TEST(parts_of_a_block_and_unknown_formats_are_refused) {
  float values[row] = {};
  std::byte bytes[4 * row] = {};
  for (const Format format : all_formats) {
    const int elements = static_cast<int>(type_info(static_cast<std::uint32_t>(format))->elements);
    CHECK(!decode_row(format, bytes, -elements, values));
    if (elements == 1) continue;
    CHECK(!decode_row(format, bytes, elements - 1, values));
    if (!encodable(format)) continue;
    CHECK(encode_row(format, values, elements + 1, bytes).status == EncodeStatus::partial_block);
  }
  const auto unknown = static_cast<Format>(9);
  CHECK(!decode_row(unknown, bytes, 32, values));
  CHECK(encode_row(unknown, values, 32, bytes).status == EncodeStatus::not_encodable);
  CHECK(!encodable(unknown));
  CHECK(type_info(43) == nullptr);
  CHECK(type_info(std::numeric_limits<std::uint32_t>::max()) == nullptr);
}

TEST(encode_weights_of_every_magnitude) {
  std::mt19937 random(11);
  std::normal_distribution<float> normal;
  for (const Format format : all_formats) {
    if (!encodable(format)) continue;
    for (int exponent = -150; exponent <= 126; exponent += 4) {
      std::vector<float> values(row);
      for (float& value : values) value = std::ldexp(normal(random), exponent);
      values[3] = 0.0f;
      std::vector<std::byte> blocks(row_bytes(format));
      const EncodeResult result = encode_row(format, values.data(), row, blocks.data());
      CHECK(result.status == EncodeStatus::done || result.status == EncodeStatus::out_of_range);
      if (exponent <= 8) CHECK(result.status == EncodeStatus::done);
      if (result.status != EncodeStatus::done) continue;
      std::vector<float> decoded(row);
      CHECK(decode_row(format, blocks.data(), row, decoded.data()));
      for (const float value : decoded) CHECK(std::isfinite(value));
    }
  }
}

TEST(encode_random_bits_as_weights) {
  for (const Format format : all_formats) {
    if (!encodable(format)) continue;
    for (std::uint32_t seed = 0; seed < 30; ++seed) {
      const std::vector<std::byte> bytes = random_bytes(row * sizeof(float), seed);
      std::vector<float> values(row);
      std::memcpy(values.data(), bytes.data(), bytes.size());
      std::vector<std::byte> blocks(row_bytes(format));
      const EncodeResult result = encode_row(format, values.data(), row, blocks.data());
      CHECK(result.position >= 0 && result.position < row);
      if (result.status == EncodeStatus::not_finite) {
        CHECK(!std::isfinite(values[static_cast<std::size_t>(result.position)]));
      }
    }
  }
}

TEST(every_half_survives_the_way_there_and_back) {
  for (std::uint32_t bits = 0; bits < 65536; ++bits) {
    const auto half = static_cast<std::uint16_t>(bits);
    const float value = half_to_float(half);
    const bool nan = (half & 0x7fffu) > 0x7c00u;
    CHECK(std::isnan(value) == nan);
    if (!nan) CHECK(float_to_half(value) == half);
    if (nan) CHECK((float_to_half(value) & 0x7fffu) > 0x7c00u);
    const float wide = bfloat16_to_float(half);
    if (!std::isnan(wide)) CHECK(float_to_bfloat16(wide) == half);
    if (std::isnan(wide)) CHECK(std::isnan(bfloat16_to_float(float_to_bfloat16(wide))));
  }
}

TEST(ranges_cover_everything_once) {
  for (const std::int64_t count : {0, 1, 5, 64, 1000, 1025}) {
    for (const std::int64_t step : {1, 7, 64, 2000}) {
      for (const int threads : {1, 2, 5}) {
        std::vector<unsigned char> seen(static_cast<std::size_t>(count));
        parallel_ranges(count, step, threads, [&](std::int64_t begin, std::int64_t end) {
          CHECK(begin % step == 0 && begin <= end && end <= count);
          for (std::int64_t i = begin; i < end; ++i) ++seen[static_cast<std::size_t>(i)];
        });
        for (const unsigned char times : seen) CHECK(times == 1);
      }
    }
  }
}

int main() { return quantloom::check::run_all(); }
