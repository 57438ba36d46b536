// Text of untrusted origin, made fit for an error message.
#pragma once

#include <string>
#include <string_view>

namespace quantloom {

// Bytes that `text` begins with and that a terminal would obey instead of showing them: a control
// character, or one that turns the direction of the text around it.
inline std::size_t obeyed_bytes(std::string_view text) {
  const auto byte = [&](std::size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u;
  };
  if (byte(0) < 0x20 || byte(0) == 0x7F) return 1;
  if (byte(0) == 0xC2 && byte(1) >= 0x80 && byte(1) < 0xA0) return 2;  // U+0080..9F
  if (byte(0) != 0xE2) return 0;
  if (byte(1) == 0x80 && byte(2) >= 0xA8 && byte(2) <= 0xAE) return 3;   // U+2028..2E
  return byte(1) == 0x81 && byte(2) >= 0xA6 && byte(2) <= 0xA9 ? 3 : 0;  // U+2066..69
}

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
  std::size_t escaped = 0;  // of the bytes from here on
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (escaped == 0) escaped = obeyed_bytes(text.substr(i));
    if (escaped == 0) {
      result += text[i];
      continue;
    }
    --escaped;
    const auto byte = static_cast<unsigned char>(text[i]);
    result += {'\\', 'x', digits[byte >> 4], digits[byte & 15]};
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
