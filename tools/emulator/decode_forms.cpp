// Instructions by their spelling: moves, loads, stores, atomics, and those of the forms' table.
#include <algorithm>

#include "decoder.h"

namespace quantloom::emulator {
namespace {

struct Spelling {
  std::vector<std::string_view> parts;
  std::size_t next = 1;
  explicit Spelling(std::string_view opcode) {
    std::size_t begin = 0;
    while (begin <= opcode.size()) {
      const std::size_t dot = std::min(opcode.find('.', begin), opcode.size());
      parts.push_back(opcode.substr(begin, dot - begin));
      begin = dot + 1;
    }
  }
  bool take(std::string_view word) {
    if (next >= parts.size() or parts[next] != word) return false;
    ++next;
    return true;
  }
  bool take_any(std::initializer_list<std::string_view> words) {
    return std::any_of(words.begin(), words.end(), [&](auto word) { return take(word); });
  }
  std::string_view rest() const { return next + 1 == parts.size() ? parts[next] : ""; }
};

// Modifiers before the space; true where the access is ordered against other threads'.
bool take_order(Spelling& spelling) {
  const bool ordered =
      spelling.take_any({"volatile", "relaxed", "acquire", "release", "acq_rel", "mmio"});
  if (not ordered) spelling.take("weak");
  spelling.take_any({"cta", "cluster", "gpu", "sys"});
  return ordered;
}

std::optional<Space> take_space(Spelling& spelling) {
  if (spelling.take("global")) return Space::global;
  if (spelling.take_any({"shared", "shared::cta", "shared::cluster"})) return Space::shared;
  if (spelling.take("local")) return Space::local;
  if (spelling.take_any({"param", "param::entry", "param::func"})) return Space::kernel_parameter;
  if (spelling.take("const")) return Space::global;
  return Space::generic;
}

void take_cache_hints(Spelling& spelling) {
  while (spelling.take_any({"nc", "ca", "cg", "cs", "lu", "cv", "wb", "wt", "L1::evict_normal",
                            "L1::evict_unchanged", "L1::evict_first", "L1::evict_last",
                            "L1::no_allocate", "L2::cache_hint", "L2::evict_first", "L2::64B",
                            "L2::128B", "L2::256B"})) {
  }
}

unsigned take_vector(Spelling& spelling) {
  if (spelling.take("v2")) return 2;
  if (spelling.take("v4")) return 4;
  if (spelling.take("v8")) return 8;
  return 1;
}

}  // namespace

void Decoder::move(std::string_view type) {
  if (terms_.size() != 2) cursor_.fail_at(begin_, "expected two operands");
  const Term &to = terms_[0], &from = terms_[1];
  const bool wide = is_wide_type(type);
  const unsigned bits = type.ends_with("64") ? 64 : type.ends_with("32") ? 32 : 16;
  if (to.kind == Term::Kind::list or from.kind == Term::Kind::list) {
    const bool unpacks = to.kind == Term::Kind::list;
    const auto parts = static_cast<unsigned>(unpacks ? to.parts.size() : from.parts.size());
    now_.handler =
        unpacks ? unpack_handler(parts, bits / parts) : pack_handler(parts, bits / parts);
    if (now_.handler == nullptr) unknown("mov." + std::string(type) + " of such a vector");
    if (unpacks) {
      for (const Term& part : to.parts) {
        const auto found = find_register(part.text);
        if (part.kind != Term::Kind::discard and
            (not found or found->kind != RegisterClass::narrow)) {
          cursor_.fail_at(begin_, "expected registers");
        }
        list_entry(part.kind == Term::Kind::discard ? no_operand : found->number, true, false);
      }
      source(1, from, wide);
    } else {
      list_of(from, false, true);
      destination(0, to, wide ? RegisterClass::wide : RegisterClass::narrow, "");
    }
    return;
  }
  if (from.kind == Term::Kind::name and not find_register(from.text) and
      not find_symbol(from.text) and from.text.starts_with('%')) {
    bool special_is_wide = false;
    const auto which = special_register(from.text, special_is_wide);
    if (not which) cursor_.fail_at(begin_, "unknown name " + std::string(from.text));
    if (special_is_wide == wide) {
      now_.handler = special_handler(wide);
      now_.mode = *which;
      destination(0, to, wide ? RegisterClass::wide : RegisterClass::narrow, "");
      return;
    }
  }
  const Form* known = find_form("mov." + std::string(type));
  if (known == nullptr) unknown("mov." + std::string(type));
  form(*known, "mov");
}

void Decoder::load(std::string_view opcode) {
  Spelling spelling(opcode);
  const bool ordered = take_order(spelling);
  Space space = *take_space(spelling);
  take_cache_hints(spelling);
  const unsigned count = take_vector(spelling);
  const std::string_view type = spelling.rest();
  if (terms_.size() < 2) cursor_.fail_at(begin_, "expected a register and an address");
  const bool wide_address = address(1, terms_[1], space);
  now_.handler = type.empty() ? nullptr : load_handler(space, type, wide_address, ordered);
  if (now_.handler == nullptr) unknown(opcode);
  const RegisterClass kind = is_wide_type(type) ? RegisterClass::wide : RegisterClass::narrow;
  const auto one = [&](const Term& term) {
    if (term.kind == Term::Kind::discard) unknown("a load into _");
    const auto found = find_register(term.text);
    if (not found) cursor_.fail_at(begin_, "expected a register");
    std::uint32_t number = found->number;
    if (found->kind != kind) {
      if (kind != RegisterClass::narrow or found->kind != RegisterClass::wide) {
        cursor_.fail_at(begin_, "a register of another width");
      }
      number = new_register(RegisterClass::narrow);
      after_.push_back({found->number, number, type.front() == 's'});
    }
    list_entry(number, true, false);
  };
  if (count == 1) {
    one(terms_[0]);
  } else {
    for (const Term& part : terms_[0].parts) one(part);
  }
  if (now_.list_size != count) cursor_.fail_at(begin_, "a vector of another length");
}

void Decoder::store(std::string_view opcode) {
  Spelling spelling(opcode);
  const bool ordered = take_order(spelling);
  Space space = *take_space(spelling);
  take_cache_hints(spelling);
  const unsigned count = take_vector(spelling);
  const std::string_view type = spelling.rest();
  if (terms_.size() < 2) cursor_.fail_at(begin_, "expected an address and a value");
  const bool wide_address = address(0, terms_[0], space);
  now_.handler = type.empty() or space == Space::kernel_parameter
                     ? nullptr
                     : store_handler(space, type, wide_address, ordered);
  if (now_.handler == nullptr) unknown(opcode);
  const bool wide = is_wide_type(type);
  if (count == 1) {
    list_entry(source_number(terms_[1], wide), false, true);
  } else {
    for (const Term& part : terms_[1].parts) list_entry(source_number(part, wide), false, true);
  }
  if (now_.list_size != count) cursor_.fail_at(begin_, "a vector of another length");
}

void Decoder::atomic(std::string_view opcode) {
  Spelling spelling(opcode);
  const bool returns = spelling.parts[0] == "atom";
  take_order(spelling);
  Space space = *take_space(spelling);
  if (spelling.next >= spelling.parts.size()) unknown(opcode);
  const std::string_view operation = spelling.parts[spelling.next++];
  spelling.take("noftz");
  take_cache_hints(spelling);
  const std::string_view type = spelling.rest();
  const std::size_t at = returns ? 1 : 0;
  if (terms_.size() < at + 2) cursor_.fail_at(begin_, "too few operands");
  const bool wide_address = address(1, terms_[at], space);
  now_.handler = type.empty() ? nullptr : atomic_handler(space, operation, type, wide_address);
  if (now_.handler == nullptr) unknown(opcode);
  const bool wide = is_wide_type(type);
  if (returns) {
    destination(0, terms_[0], wide ? RegisterClass::wide : RegisterClass::narrow, "");
  }
  source(2, terms_[at + 1], wide);
  if (operation == "cas") {
    if (terms_.size() < at + 3) cursor_.fail_at(begin_, "too few operands");
    source(3, terms_[at + 2], wide);
  }
}

void Decoder::form(const Form& form, std::string_view opcode) {
  now_.handler = form.handler;
  now_.kind = form.kind;
  now_.mode = form.mode;
  now_.meet_operand = form.meet_operand;
  // The result's type, where a conversion may widen it.
  std::string_view type;
  if (opcode.starts_with("cvt.")) {
    const std::size_t last = opcode.rfind('.');
    type = opcode.substr(opcode.rfind('.', last - 1) + 1);
  }
  std::size_t next = 0;
  int field = 0, numbers = 0;
  bool optional = false;
  const Term* second = nullptr;
  for (const char letter : form.operands) {
    if (letter == '?') {
      optional = true;
      continue;
    }
    if (letter == '*') {
      next = terms_.size();
      break;
    }
    if (letter == 'Q') {
      if (second != nullptr) destination(field, *second, RegisterClass::predicate, "");
      ++field;
      continue;
    }
    if (next >= terms_.size()) {
      if (not optional) cursor_.fail_at(begin_, "too few operands");
      ++field;
      continue;
    }
    const Term* term = &terms_[next++];
    if (term->kind == Term::Kind::either) second = &term->parts[1], term = &term->parts[0];
    switch (letter) {
      case 'W':
        destination(field, *term, RegisterClass::narrow, type);
        break;
      case 'X':
        destination(field, *term, RegisterClass::wide, "");
        break;
      case 'P':
        destination(field, *term, RegisterClass::predicate, "");
        break;
      case 'w':
        source(field, *term, false);
        break;
      case 'x':
        source(field, *term, true);
        break;
      case 'p':
        source_predicate(field, *term);
        break;
      case 'm':
        shared_address(field, *term);
        break;
      case 'g':
        wide_address(field, *term);
        break;
      case 't':
        wide_address(field, *term);
        for (const Term& part : term->parts) list_entry(source_number(part, false), false, true);
        break;
      case 'V':
        list_of(*term, true, false);
        break;
      case 'U':
        list_of(*term, true, true);
        break;
      case 'v':
        list_of(*term, false, true);
        break;
      case 'A':  // a vector or a descriptor
        if (term->kind == Term::Kind::list) {
          list_of(*term, false, true);
        } else {
          source(field, *term, true);
        }
        break;
      case 'i':
        if (term->kind != Term::Kind::number) cursor_.fail_at(begin_, "expected a constant");
        now_.immediate |= static_cast<std::int64_t>((term->number & 255u) << 8 * numbers++);
        continue;
      default:
        cursor_.fail_at(begin_, "a form's letter without a meaning");
    }
    ++field;
  }
  if (next < terms_.size()) cursor_.fail_at(begin_, "too many operands");
}

}  // namespace quantloom::emulator
