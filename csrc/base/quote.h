// Text of untrusted origin, made fit for an error message.
#pragma once

#include <string>
#include <string_view>

namespace quantloom {

// At most 96 bytes of `text`, with control characters (and NUL) written as \xNN and "..." where
// more was cut off. Other bytes stay, so UTF-8 stays readable; a character cut in half does not
// occur.
inline std::string shortened(std::string_view text) {
  constexpr std::size_t longest = 96;
  constexpr char digits[] = "0123456789abcdef";
  const bool cut = text.size() > longest;
  if (cut) {
    std::size_t end = longest;
    while (end > longest - 4 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
    text = text.substr(0, end);
  }
  std::string result;
  for (const char character : text) {
    const auto byte = static_cast<unsigned char>(character);
    if (byte < 0x20 || byte == 0x7F) {
      result += {'\\', 'x', digits[byte >> 4], digits[byte & 15]};
    } else {
      result += character;
    }
  }
  if (cut) result += "...";
  return result;
}

inline std::string in_quotes(std::string_view text) {
  std::string result(1, '\'');
  result += shortened(text);
  result += '\'';
  return result;
}

}  // namespace quantloom
