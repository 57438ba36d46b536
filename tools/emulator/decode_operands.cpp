// Operands of the instruction in hand.
#include <cctype>

#include "decoder.h"

namespace quantloom::emulator {

void Decoder::unknown(std::string_view opcode) const {
  cursor_.fail_at(begin_, "the emulator does not know " + std::string(opcode));
}

std::optional<Decoder::Register> Decoder::find_register(std::string_view name) const {
  std::size_t digits = 0;
  while (digits < name.size() and
         std::isdigit(static_cast<unsigned char>(name[name.size() - 1 - digits])) != 0) {
    ++digits;
  }
  const std::string_view prefix = name.substr(0, name.size() - digits);
  std::uint32_t number = 0;
  for (const char c : name.substr(name.size() - digits)) {
    number = number * 10 + static_cast<std::uint32_t>(c - '0');
  }
  for (int s = scope_; s >= 0; s = scopes_[static_cast<std::size_t>(s)].parent) {
    const Scope& scope = scopes_[static_cast<std::size_t>(s)];
    if (not scope.registers.empty()) {
      const auto found = scope.registers.find(name);
      if (found != scope.registers.end()) return found->second;
    }
    if (digits == 0) continue;
    for (const Range& range : scope.ranges) {
      if (range.prefix == prefix and number < range.count) {
        return Register{range.first + number, range.kind};
      }
    }
  }
  return std::nullopt;
}

std::optional<Decoder::Symbol> Decoder::find_symbol(std::string_view name) const {
  for (int s = scope_; s >= 0; s = scopes_[static_cast<std::size_t>(s)].parent) {
    const Scope& scope = scopes_[static_cast<std::size_t>(s)];
    const auto found = scope.symbols.find(name);
    if (found != scope.symbols.end()) return found->second;
  }
  if (const auto found = environment_.shared.find(name); found != environment_.shared.end()) {
    return Symbol{Place::shared, found->second};
  }
  if (const auto found = environment_.globals->find(name); found != environment_.globals->end()) {
    return Symbol{Place::global, found->second};
  }
  return std::nullopt;
}

std::uint32_t Decoder::new_register(RegisterClass kind, std::uint8_t flags) {
  registers_.classes.push_back(static_cast<std::uint8_t>(static_cast<std::uint8_t>(kind) | flags));
  return static_cast<std::uint32_t>(registers_.classes.size() - 1);
}

void Decoder::note(std::uint32_t field, std::uint32_t number, bool written) {
  now_uses_.push_back({0, field, number, written});
}

std::uint32_t Decoder::constant(std::uint64_t value, bool wide) {
  auto& known = wide ? wide_constants_ : narrow_constants_;
  if (not wide) value &= 0xffffffffu;
  const auto [entry, added] = known.try_emplace(value, 0);
  if (added) {
    entry->second = static_cast<std::uint32_t>(code_.constants.size() * 8) | 1u;
    const std::uint64_t word = wide ? value : value | value << 32;
    code_.constants.insert(code_.constants.end(), wide ? 32 : 16, word);
  }
  return entry->second;
}

std::optional<std::uint32_t> Decoder::constant_of(const Term& term, bool wide) {
  if (term.kind == Term::Kind::number) return constant(term.number, wide);
  if (term.kind != Term::Kind::name) return std::nullopt;
  if (term.text == "WARP_SZ") return constant(32, wide);
  return std::nullopt;
}

std::uint32_t Decoder::frame_value(std::uint64_t offset, bool kernel_parameter) {
  const auto [entry, added] = frame_values_.try_emplace(offset << 1 | kernel_parameter, 0);
  if (added) {
    entry->second = new_register(RegisterClass::wide, fixed_register);
    registers_.frame_values.push_back(entry->second);
    code_.local_constants.push_back({0, static_cast<std::uint32_t>(offset), kernel_parameter});
  }
  return entry->second;
}

std::uint32_t Decoder::hidden(Handler handler, RegisterClass kind,
                              std::initializer_list<std::uint32_t> sources, std::uint8_t mode) {
  const Instruction kept = now_;
  std::vector<RegisterUse> kept_uses;
  kept_uses.swap(now_uses_);
  now_ = Instruction{};
  now_.handler = handler;
  now_.mode = mode;
  const std::uint32_t number = new_register(kind);
  note(0, number, true);
  std::uint32_t field = 1;
  for (const std::uint32_t source : sources) {
    // Constants come as their odd offsets, with the highest bit set to tell them from registers.
    if ((source >> 31) != 0) {
      now_.op[field] = source & 0x7fffffffu;
    } else {
      note(field, source, false);
    }
    ++field;
  }
  emit();
  now_ = kept;
  now_uses_.swap(kept_uses);
  return number;
}

std::uint32_t Decoder::special(std::string_view name) {
  bool wide = false;
  const auto which = special_register(name, wide);
  if (not which) cursor_.fail_at(begin_, "unknown name " + std::string(name));
  return hidden(special_handler(wide), wide ? RegisterClass::wide : RegisterClass::narrow, {},
                *which);
}

// The number of a register of the wanted width, or a constant's offset with the highest bit set.
std::uint32_t Decoder::source_number(const Term& term, bool wide) {
  constexpr std::uint32_t constant_bit = 0x80000000u;
  if (const auto offset = constant_of(term, wide)) return *offset | constant_bit;
  if (term.kind != Term::Kind::name) cursor_.fail_at(begin_, "an operand of another kind");
  std::optional<Register> found = find_register(term.text);
  if (not found) {
    if (const auto symbol = find_symbol(term.text)) {
      const std::uint64_t value = symbol->value + term.number;
      if (symbol->place == Place::shared or symbol->place == Place::global) {
        return constant(value, wide) | constant_bit;
      }
      const bool parameter = symbol->place == Place::kernel_parameter;
      found = Register{frame_value(value, parameter), RegisterClass::wide};
    } else {
      const std::uint32_t number = special(term.text);
      found = Register{number, static_cast<RegisterClass>(registers_.classes[number])};
    }
  }
  if (found->kind == RegisterClass::predicate) cursor_.fail_at(begin_, "a predicate as a number");
  const bool is_wide = found->kind == RegisterClass::wide;
  if (is_wide == wide) return found->number;
  if (is_wide) return hidden(narrow_handler(), RegisterClass::narrow, {found->number});
  return hidden(widen_handler(false), RegisterClass::wide, {found->number});
}

void Decoder::source(int index, const Term& term, bool wide) {
  const std::uint32_t number = source_number(term, wide);
  if ((number >> 31) != 0) {
    now_.op[static_cast<std::size_t>(index)] = number & 0x7fffffffu;
  } else {
    note(static_cast<std::uint32_t>(index), number, false);
  }
}

void Decoder::source_predicate(int index, const Term& term) {
  auto& field = now_.op[static_cast<std::size_t>(index)];
  if (term.kind == Term::Kind::number) {
    field = (term.number != 0) != term.negated ? 1 : 0;
    return;
  }
  const auto found = find_register(term.text);
  if (not found or found->kind != RegisterClass::predicate) {
    cursor_.fail_at(begin_, "expected a predicate");
  }
  std::uint32_t number = found->number;
  if (term.negated) number = hidden(negate_predicate_handler(), RegisterClass::predicate, {number});
  note(static_cast<std::uint32_t>(index), number, false);
}

void Decoder::destination(int index, const Term& term, RegisterClass kind, std::string_view type) {
  if (term.kind == Term::Kind::discard) return;
  const auto found = find_register(term.text);
  if (not found) cursor_.fail_at(begin_, "expected a register");
  std::uint32_t number = found->number;
  if (found->kind != kind) {
    // Loads and conversions may write a part of a wider register.
    if (kind != RegisterClass::narrow or found->kind != RegisterClass::wide or type.empty()) {
      cursor_.fail_at(begin_, "a register of another width");
    }
    number = new_register(RegisterClass::narrow);
    after_.push_back({found->number, number, type.front() == 's'});
  }
  note(static_cast<std::uint32_t>(index), number, true);
}

void Decoder::list_entry(std::uint32_t number, bool written, bool read) {
  const std::uint32_t at = static_cast<std::uint32_t>(code_.lists.size());
  if (number != no_operand and (number >> 31) != 0) {
    code_.lists.push_back(number & 0x7fffffffu);
  } else {
    code_.lists.push_back(no_operand);
    if (number != no_operand and read) note(first_list_field + at, number, false);
    if (number != no_operand and written) note(first_list_field + at, number, true);
  }
  ++now_.list_size;
}

// 32-bit registers.
void Decoder::list_of(const Term& term, bool written, bool read) {
  if (term.kind != Term::Kind::list) cursor_.fail_at(begin_, "expected a list in braces");
  for (const Term& part : term.parts) {
    if (written) {
      const auto found = find_register(part.text);
      if (not found or found->kind != RegisterClass::narrow) {
        cursor_.fail_at(begin_, "expected 32-bit registers");
      }
      list_entry(found->number, written, read);
    } else {
      list_entry(source_number(part, false), written, read);
    }
  }
}

// The address in a 32-bit register, with its displacement.
void Decoder::shared_address(int index, const Term& term) {
  if (term.kind != Term::Kind::address) cursor_.fail_at(begin_, "expected an address");
  Term base = term;
  base.kind = Term::Kind::name;
  base.number = 0;
  if (term.text.empty()) {
    base.kind = Term::Kind::number;
    base.number = term.number;
    source(index, base, false);
    return;
  }
  std::uint32_t number = source_number(base, false);
  if (term.number != 0) {
    number = hidden(add_handler(false), RegisterClass::narrow,
                    {number, constant(term.number, false) | 0x80000000u});
  }
  if ((number >> 31) != 0) {
    now_.op[static_cast<std::size_t>(index)] = number & 0x7fffffffu;
  } else {
    note(static_cast<std::uint32_t>(index), number, false);
  }
}

void Decoder::wide_address(int index, const Term& term) {
  if (term.kind != Term::Kind::address) cursor_.fail_at(begin_, "expected an address");
  Term base = term;
  base.kind = Term::Kind::name;
  base.number = 0;
  std::uint32_t number = source_number(base, true);
  if (term.number != 0) {
    number = hidden(add_handler(true), RegisterClass::wide,
                    {number, constant(term.number, true) | 0x80000000u});
  }
  if ((number >> 31) != 0) {
    now_.op[static_cast<std::size_t>(index)] = number & 0x7fffffffu;
  } else {
    note(static_cast<std::uint32_t>(index), number, false);
  }
}

// [base + displacement] of a load or a store; the displacement becomes `immediate`. The space is
// made that of a parameter's place where it was one of parameters.
bool Decoder::address(int index, const Term& term, Space& space) {
  if (term.kind != Term::Kind::address) cursor_.fail_at(begin_, "expected an address");
  now_.immediate = static_cast<std::int64_t>(term.number);
  if (space == Space::kernel_parameter and not is_kernel_) space = Space::local;
  if (term.text.empty()) {
    now_.immediate = 0;
    now_.op[static_cast<std::size_t>(index)] = constant(term.number, true);
    return true;
  }
  if (const auto found = find_register(term.text)) {
    note(static_cast<std::uint32_t>(index), found->number, false);
    return found->kind == RegisterClass::wide;
  }
  const auto symbol = find_symbol(term.text);
  if (not symbol) cursor_.fail_at(begin_, "unknown name " + std::string(term.text));
  switch (symbol->place) {
    case Place::local:
      if (space == Space::kernel_parameter) space = Space::local;  // a call's parameter
      [[fallthrough]];
    case Place::kernel_parameter:
      note(static_cast<std::uint32_t>(index),
           frame_value(symbol->value, symbol->place == Place::kernel_parameter), false);
      return true;
    case Place::shared:
      now_.op[static_cast<std::size_t>(index)] = constant(symbol->value, false);
      return false;
    case Place::global:
      now_.op[static_cast<std::size_t>(index)] = constant(symbol->value, true);
      return true;
  }
  return true;
}

void Decoder::emit() {
  const auto at = static_cast<std::uint32_t>(code_.instructions.size());
  now_.source = static_cast<std::uint32_t>(begin_);
  code_.instructions.push_back(now_);
  for (RegisterUse& use : now_uses_) {
    use.instruction = at;
    registers_.uses.push_back(use);
  }
  now_uses_.clear();
}

}  // namespace quantloom::emulator
