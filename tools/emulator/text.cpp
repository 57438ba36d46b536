#include "text.h"

#include <bit>
#include <charconv>
#include <cstdlib>

namespace quantloom::emulator {
namespace {

bool is_word(char c) {
  return (c >= 'a' and c <= 'z') or (c >= 'A' and c <= 'Z') or (c >= '0' and c <= '9') or
         c == '_' or c == '$' or c == '%';
}
bool is_digit(char c) { return c >= '0' and c <= '9'; }

}  // namespace

std::size_t line_number(std::string_view text, std::size_t at) {
  std::size_t line = 1;
  for (std::size_t i = 0; i < at and i < text.size(); ++i) line += text[i] == '\n';
  return line;
}

std::string line_of(std::string_view text, std::size_t at) {
  at = std::min(at, text.size());
  std::size_t begin = at, end = at;
  while (begin > 0 and text[begin - 1] != '\n') --begin;
  while (end < text.size() and text[end] != '\n') ++end;
  std::string line;
  for (const char c : text.substr(begin, std::min<std::size_t>(end - begin, 300))) {
    const char kept = c == '\t' ? ' ' : c;
    if (kept != ' ' or (not line.empty() and line.back() != ' ')) line += kept;
  }
  return line;
}

void Cursor::fail_at(std::size_t place, const std::string& what) const {
  throw std::runtime_error("PTX line " + std::to_string(line_number(text_, place)) + ": " + what +
                           ": " + line_of(text_, place));
}
void Cursor::fail(const std::string& what) const { fail_at(at_, what); }

void Cursor::skip() {
  while (at_ < end_) {
    const char c = text_[at_];
    if (c == ' ' or c == '\t' or c == '\n' or c == '\r') {
      ++at_;
    } else if (c == '/' and at_ + 1 < end_ and text_[at_ + 1] == '/') {
      while (at_ < end_ and text_[at_] != '\n') ++at_;
    } else if (c == '/' and at_ + 1 < end_ and text_[at_ + 1] == '*') {
      const std::size_t close = text_.find("*/", at_ + 2);
      at_ = close == std::string_view::npos ? end_ : close + 2;
    } else {
      return;
    }
  }
}

void Cursor::expect(char c) {
  if (not take(c)) fail(std::string("expected '") + c + "'");
}

std::string_view Cursor::name() {
  const std::size_t begin = at_;
  while (at_ < end_) {
    const char c = text_[at_];
    if (is_word(c) or c == '.') {
      ++at_;
    } else if (c == ':' and at_ + 2 < end_ and text_[at_ + 1] == ':' and is_word(text_[at_ + 2])) {
      at_ += 2;
    } else {
      break;
    }
  }
  const std::string_view found = text_.substr(begin, at_ - begin);
  skip();
  return found;
}

std::string_view Cursor::word() {
  const std::size_t begin = at_;
  while (at_ < end_ and is_word(text_[at_])) ++at_;
  const std::string_view found = text_.substr(begin, at_ - begin);
  skip();
  return found;
}

bool Cursor::at_number() const {
  return is_digit(peek()) or (peek() == '-' and at_ + 1 < end_ and is_digit(text_[at_ + 1]));
}

std::uint64_t Cursor::number() {
  const std::size_t begin = at_;
  const bool minus = peek() == '-';
  if (minus) ++at_;
  std::uint64_t value = 0;
  int base = 10;
  if (peek() == '0' and at_ + 1 < end_) {
    const char kind = text_[at_ + 1];
    if (kind == 'x' or kind == 'X' or kind == 'f' or kind == 'F' or kind == 'd' or kind == 'D') {
      base = 16, at_ += 2;
    } else if (kind == 'b' or kind == 'B') {
      base = 2, at_ += 2;
    }
  }
  const auto [last, error] = std::from_chars(text_.data() + at_, text_.data() + end_, value, base);
  if (error != std::errc{}) fail_at(begin, "not a number");
  at_ = static_cast<std::size_t>(last - text_.data());
  if (base == 10 and peek() == '.') {
    char* after = nullptr;
    const std::string copy(text_.substr(begin, std::min<std::size_t>(64, end_ - begin)));
    const double real = std::strtod(copy.c_str(), &after);
    at_ = begin + static_cast<std::size_t>(after - copy.c_str());
    skip();
    return std::bit_cast<std::uint64_t>(real);
  }
  if (peek() == 'U') ++at_;
  skip();
  return minus ? 0 - value : value;
}

void Cursor::skip_line() {
  while (at_ < end_ and text_[at_] != '\n') ++at_;
  skip();
}
void Cursor::skip_past(char c) {
  while (at_ < end_ and text_[at_] != c) ++at_;
  if (at_ < end_) ++at_;
  skip();
}

void Cursor::skip_braces() {
  const std::size_t begin = at_;
  int depth = 0;
  do {
    if (done()) fail_at(begin, "a brace without its end");
    const char c = text_[at_];
    depth += c == '{' ? 1 : c == '}' ? -1 : 0;
    ++at_;
    if (c == '/' or text_[std::min(at_, end_ - 1)] == '/') skip();
  } while (depth > 0);
  skip();
}

Term read_term(Cursor& cursor) {
  Term term;
  if (cursor.take('!')) {
    term = read_term(cursor);
    term.negated = true;
    return term;
  }
  if (cursor.take('{')) {
    term.kind = Term::Kind::list;
    while (not cursor.take('}')) {
      term.parts.push_back(read_term(cursor));
      if (not cursor.take(',') and cursor.peek() != '}') cursor.fail("expected , or }");
    }
    return term;
  }
  if (cursor.take('[')) {
    term.kind = Term::Kind::address;
    if (cursor.at_number()) {
      term.number = cursor.number();
    } else {
      term.text = cursor.word();
      if (cursor.take('+') or cursor.peek() == '-') term.number = cursor.number();
    }
    if (cursor.take(',')) term.parts = read_term(cursor).parts;
    cursor.expect(']');
    return term;
  }
  if (cursor.at_number()) {
    term.kind = Term::Kind::number;
    term.number = cursor.number();
    return term;
  }
  term.text = cursor.name();
  if (term.text.empty()) cursor.fail("expected an operand");
  if (term.text == "_") term.kind = Term::Kind::discard;
  if (cursor.take('+')) {
    term.number = cursor.number();
  } else if (cursor.take('|')) {
    Term both;
    both.kind = Term::Kind::either;
    both.parts.push_back(std::move(term));
    both.parts.push_back(read_term(cursor));
    return both;
  }
  return term;
}

}  // namespace quantloom::emulator
