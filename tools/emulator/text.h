// Reading PTX text piece by piece.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace quantloom::emulator {

// A place in a module's text.
class Cursor {
 public:
  Cursor(std::string_view text, std::size_t begin, std::size_t end)
      : text_(text), at_(begin), end_(end) {
    skip();
  }
  std::size_t at() const { return at_; }
  bool done() const { return at_ >= end_; }
  char peek() const { return done() ? '\0' : text_[at_]; }
  bool take(char c) {
    if (peek() != c) return false;
    ++at_;
    skip();
    return true;
  }
  void expect(char c);
  std::string_view
  name();  // letters, digits and _ $ % . and ::, e.g. an opcode; empty where there is none
  std::string_view word();  // as name(), but without . and ::
  std::uint64_t number();   // integer, 0x, 0f, 0d, decimal; with a sign
  bool at_number() const;
  void skip_line();
  void skip_past(char c);
  void skip_braces();  // at {: past the } that closes it
  [[noreturn]] void fail(const std::string& what) const;
  [[noreturn]] void fail_at(std::size_t place, const std::string& what) const;

 private:
  void skip();  // spaces and comments
  std::string_view text_;
  std::size_t at_, end_;
};

std::string line_of(std::string_view text,
                    std::size_t at);  // the line's text, without spaces around
std::size_t line_number(std::string_view text, std::size_t at);

// An operand as it is spelled.
struct Term {
  enum class Kind : std::uint8_t { name, number, address, list, either, discard } kind = Kind::name;
  bool negated = false;      // !
  std::string_view text;     // name; of an address its base, empty for a number alone
  std::uint64_t number = 0;  // number's bits; of an address the displacement
  std::vector<Term> parts;   // of a list; of an address the coordinates; of `either` the two (d|p)
};

Term read_term(Cursor& cursor);

}  // namespace quantloom::emulator
