// The typed look-ups, gates and small parts of the reader that Python does not reach.
#include <cmath>
#include <cstring>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/checked.h"
#include "base/cursor.h"
#include "base/quote.h"
#include "check.h"
#include "formats/list.h"
#include "gguf/file.h"
#include "gguf/split.h"
#include "gguf/utf8.h"
#include "loader/scan.h"

using namespace quantloom;
using gguf::ValueType;

namespace {

// The bytes of a file with only metadata.
class Header {
 public:
  template <typename T>
  Header& key(std::string_view name, ValueType type, T value) {
    begin(name, type);
    put(value);
    return *this;
  }
  Header& key(std::string_view name, std::string_view value) {
    begin(name, ValueType::string);
    put_string(value);
    return *this;
  }
  template <typename T>
  Header& array(std::string_view name, ValueType type, const std::vector<T>& values) {
    begin(name, ValueType::array);
    put(static_cast<std::uint32_t>(type));
    put(static_cast<std::uint64_t>(values.size()));
    for (const T value : values) {
      if constexpr (std::is_same_v<T, std::string_view>) {
        put_string(value);
      } else {
        put(value);
      }
    }
    return *this;
  }

  // The result views into this object.
  gguf::File parse() {
    bytes_.assign({std::byte{'G'}, std::byte{'G'}, std::byte{'U'}, std::byte{'F'}});
    append(bytes_, std::uint32_t{3});
    append(bytes_, std::uint64_t{0});
    append(bytes_, keys_);
    bytes_.insert(bytes_.end(), records_.begin(), records_.end());
    return gguf::parse(bytes_);
  }

 private:
  template <typename T>
  static void append(std::vector<std::byte>& bytes, T value) {
    const auto* source = reinterpret_cast<const std::byte*>(&value);
    bytes.insert(bytes.end(), source, source + sizeof(T));
  }
  template <typename T>
  void put(T value) {
    append(records_, value);
  }
  void put_string(std::string_view text) {
    put(static_cast<std::uint64_t>(text.size()));
    for (const char character : text) put(character);
  }
  void begin(std::string_view name, ValueType type) {
    ++keys_;
    put_string(name);
    put(static_cast<std::uint32_t>(type));
  }

  std::uint64_t keys_ = 0;
  std::vector<std::byte> records_;
  std::vector<std::byte> bytes_;
};

}  // namespace

TEST(integers_of_any_width_are_found_in_their_range) {
  Header header;
  header.key("u8", ValueType::uint8, std::uint8_t{200})
      .key("i8", ValueType::int8, std::int8_t{-3})
      .key("u64", ValueType::uint64, ~std::uint64_t{0})
      .key("i64", ValueType::int64, std::int64_t{-5});
  const gguf::File file = header.parse();
  CHECK(file.require<std::uint64_t>("u8") == 200);
  CHECK(file.require<std::int64_t>("i8") == -3);
  CHECK(file.require<std::uint64_t>("u64") == ~std::uint64_t{0});
  CHECK(file.find<std::int64_t>("i64", -5, 5) == -5);
  CHECK(not file.find<std::int64_t>("absent"));
  CHECK_THROWS(model, "metadata key 'i8' is -3, outside 0 to 18446744073709551615",
               file.require<std::uint64_t>("i8"));
  CHECK_THROWS(model, "'u64' is 18446744073709551615, outside", file.require<std::int64_t>("u64"));
  CHECK_THROWS(model, "'u8' is 200, outside 1 to 199", file.require<std::uint64_t>("u8", 1, 199));
  CHECK_THROWS(model, "metadata key 'absent' is missing", file.require<std::uint64_t>("absent"));
}

TEST(another_type_is_an_error_that_names_both) {
  Header header;
  header.key("llama.block_count", "32")
      .key("flag", ValueType::boolean, std::uint8_t{1})
      .key("ratio", ValueType::float32, 0.5f)
      .key("count", ValueType::uint32, 4u)
      .array<std::uint32_t>("list", ValueType::uint32, {1, 2, 3})
      .array<std::string_view>("words", ValueType::string, {"a", "b"});
  const gguf::File file = header.parse();
  CHECK_THROWS(model, "metadata key 'llama.block_count' is of type string, wanted integer",
               file.require<std::uint64_t>("llama.block_count"));
  CHECK_THROWS(model, "'flag' is of type bool, wanted integer", file.find<std::uint64_t>("flag"));
  CHECK_THROWS(model, "'count' is of type uint32, wanted bool", file.find<bool>("count"));
  CHECK_THROWS(model, "'count' is of type uint32, wanted float", file.find<double>("count"));
  CHECK_THROWS(model, "'ratio' is of type float32, wanted integer",
               file.find<std::uint64_t>("ratio"));
  CHECK_THROWS(model, "'ratio' is of type float32, wanted string",
               file.find<std::string_view>("ratio"));
  CHECK_THROWS(model, "'list' is an array of uint32, wanted integer",
               file.find<std::uint64_t>("list"));
  CHECK_THROWS(model, "'words' is an array of string, wanted float", file.find<double>("words"));
  CHECK_THROWS(model, "'count' is of type uint32, wanted array", file.find<gguf::Array>("count"));
  try {
    (void)file.require<std::uint64_t>("flag");
  } catch (const Error& error) {
    CHECK(error.subject() == "flag");
    CHECK(error.offset() == 24 + 8 + 17 + 4 + 8 + 2);
  }
}

TEST(floats_must_be_finite) {
  Header header;
  header.key("nan", ValueType::float32, std::nanf(""))
      .key("infinite", ValueType::float64, -HUGE_VAL)
      .key("wide", ValueType::float64, 1e300)
      .key("half", ValueType::float32, 0.5f);
  const gguf::File file = header.parse();
  CHECK(file.require<double>("half") == 0.5);
  CHECK(file.require<double>("wide") == 1e300);
  CHECK_THROWS(model, "'nan' is nan, wanted a finite number", file.require<double>("nan"));
  CHECK_THROWS(model, "'infinite' is -inf, wanted a finite", file.find<double>("infinite"));
}

TEST(arrays_hold_their_elements_in_order) {
  Header header;
  header.array<std::int16_t>("small", ValueType::int16, {-1, 0, 7})
      .array<std::uint8_t>("flags", ValueType::boolean, {0, 1, 2})
      .array<std::string_view>("words", ValueType::string, {"", "two"})
      .array<std::uint32_t>("none", ValueType::uint32, {});
  const gguf::File file = header.parse();
  const auto array = [&](std::string_view key) { return file.require<gguf::Array>(key); };
  std::vector<std::string_view> words;
  const auto take = [&](std::string_view word) { words.push_back(word); };
  CHECK((array("small").to_vector<std::int16_t>() == std::vector<std::int16_t>{-1, 0, 7}));
  CHECK_THROWS(model, "an array of int16 where one of uint32 is wanted",
               array("small").to_vector<std::uint32_t>());
  CHECK((array("flags").to_vector<bool>() == std::vector<bool>{false, true, true}));
  array("words").each_string("words", take);
  CHECK((words == std::vector<std::string_view>{"", "two"}));
  CHECK_THROWS(model, "an array of uint32 where one of string is wanted",
               array("none").each_string("none", take));
  CHECK(array("none").to_vector<std::uint32_t>().empty());
  CHECK_THROWS(model, "'absent' is missing", array("absent"));
  CHECK_THROWS(model, "tensor 'x' is missing", file.require_tensor("x"));
}

TEST(lengths_of_strings_that_changed_are_seen) {
  std::vector<std::byte> bytes(24);  // lengths 0, 0, 0
  std::size_t taken = 0;
  const auto read = [&](std::uint64_t strings, std::uint8_t first_length) {
    bytes[0] = std::byte{first_length};
    taken = 0;
    const gguf::Array array(ValueType::string, strings, bytes);
    array.each_string("words", [&](std::string_view) { ++taken; });
  };
  read(3, 0);
  CHECK(taken == 3);
  read(1, 16);
  CHECK(taken == 1);
  const char* said = "metadata key 'words': its 2 strings no longer fill their 24 bytes";
  CHECK_THROWS(gguf, said, read(2, 0));   // one more
  CHECK_THROWS(gguf, said, read(2, 16));  // one less
  CHECK_THROWS(gguf, said, read(2, 17));  // past the end
  CHECK_THROWS(gguf, said, read(2, 12));  // half a length
  CHECK(taken == 1);
}

TEST(a_dimension_above_2_31_stops_at_the_gate) {
  CHECK(narrow_to_int32((std::int64_t{1} << 31) - 1, "columns") == 2147483647);
  CHECK_THROWS(invalid_argument, "columns is 2147483648, outside 0 to 2147483647",
               narrow_to_int32(std::int64_t{1} << 31, "columns"));
  CHECK_THROWS(invalid_argument, "columns is -1", narrow_to_int32(-1, "columns"));
  CHECK(not try_multiply(std::uint64_t{1} << 32, std::uint64_t{1} << 32));
  CHECK(not try_add(~std::uint64_t{0}, 1));
}

TEST(the_cursor_never_passes_the_end) {
  const std::byte bytes[5] = {};
  Cursor cursor(bytes);
  CHECK(cursor.read<std::uint32_t>("number") == 0);
  CHECK_THROWS(gguf, "the file ends inside the number: 4 bytes wanted at byte 4, 1 left",
               cursor.read<std::uint32_t>("number"));
  CHECK_THROWS(gguf, "bytes wanted at byte 4", cursor.take(~std::uint64_t{0}, "text"));
  CHECK(cursor.take(1, "text").size() == 1);
  CHECK(cursor.remaining() == 0);
  cursor.set_subject("key");
  CHECK_THROWS(gguf, "inside the text of 'key'", cursor.take(1, "text"));
}

TEST(text_in_messages_is_short_and_printable) {
  CHECK(in_quotes("a\nb\x1b") == "'a\\x0ab\\x1b'");
  CHECK(in_quotes("\u009B2J") == "'\\xc2\\x9b2J'");  // the other way to write ESC [
  CHECK(in_quotes("a\u202Eb\u2066") == "'a\\xe2\\x80\\xaeb\\xe2\\x81\\xa6'");
  CHECK(in_quotes("\u00A0\u20AC\xE2\xC2") == "'\u00A0\u20AC\xE2\xC2'");
  CHECK(shortened(std::string(500, 'x')).size() == 99);
  const std::string wide = shortened(std::string(200, '\xB2'));
  CHECK(wide.size() <= 99);
  std::string greek;
  for (int i = 0; i < 100; ++i) greek += "\xCE\xB2";
  for (const char* prefix : {"", "x"}) CHECK(gguf::is_utf8(shortened(prefix + greek)));
}

TEST(utf8_as_the_unicode_standard_has_it) {
  for (const char* good : {"", "a", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF",
                           "\xEE\x80\x80", "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"}) {
    CHECK(gguf::is_utf8(good));
  }
  for (const char* bad :
       {"\x80", "\xC0\x80", "\xC1\xBF", "\xC2", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xE2\x82",
        "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF", "a\xE2\x28\xA1"}) {
    CHECK(not gguf::is_utf8(bad));
  }
}

TEST(split_names) {
  const auto name = gguf::parse_split_name("a-00001-of-00002-00003-of-00010.gguf");
  CHECK(name && name->prefix == "a-00001-of-00002" && name->number == 3 && name->count == 10);
  CHECK(name && gguf::to_string(*name) == "a-00001-of-00002-00003-of-00010.gguf");
  CHECK(not gguf::parse_split_name("a-00003-of-00002.gguf"));
  CHECK(not gguf::parse_split_name("a- 0001-of-00002.gguf"));
}

namespace {

// Every group of every block, one by one: what the scan may skip.
template <class F>
std::uint64_t first_bad_block(const std::vector<std::byte>& bytes) {
  const std::uint64_t blocks = bytes.size() / F::bytes;
  for (std::uint64_t i = 0; i < blocks; ++i) {
    typename F::Block block;
    std::memcpy(&block, bytes.data() + i * F::bytes, sizeof(block));
    for (int group = 0; group < F::elements / F::group; ++group) {
      const formats::Affine affine = F::affine(block, group);
      const float largest = static_cast<float>(std::max<int>(-F::minimum_quant, F::maximum_quant));
      if (not std::isfinite(affine.scale * largest) || not std::isfinite(affine.offset)) return i;
    }
  }
  return blocks;
}

template <class F>
void check_scan() {
  std::mt19937 random(11);
  const formats::TypeInfo& type = *formats::type_info(static_cast<std::uint32_t>(F::format));
  for (int round = 0; round < 100; ++round) {
    std::vector<std::byte> bytes(64 * F::bytes);
    for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
    const std::uint64_t expected = first_bad_block<F>(bytes);
    CHECK(loader::find_non_finite(type, bytes, 0, 64).value_or(64) == expected);
    const auto after = loader::find_non_finite(type, bytes, expected + 1, ~std::uint64_t{0});
    CHECK(not after || *after > expected);
  }
}

}  // namespace

TEST(the_first_group_tells_for_the_whole_block) {
#define QL_CHECK(F) check_scan<formats::F>();
  QL_QUANTIZED_FORMATS(QL_CHECK)
#undef QL_CHECK
}

int main() { return check::run_all(); }
