// Statements and declarations of a function's body.
#include "decoder.h"

#include <algorithm>

namespace quantloom::emulator {
namespace {

std::size_t type_bytes(std::string_view type) {
  if (type.ends_with("64")) return 8;
  if (type.ends_with("32")) return 4;
  if (type.ends_with("16")) return 2;
  return 1;
}

std::size_t aligned(std::size_t value, std::size_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}

}  // namespace

Decoder::Decoder(FunctionCode& code, Cursor body, const Environment& environment,
                 const Signature* signature, const std::vector<Variable>& parameters)
    : code_(code), cursor_(body), environment_(environment), is_kernel_(signature == nullptr) {
  scopes_.emplace_back();
  for (const Variable& parameter : parameters) {
    scopes_[0].symbols[parameter.name] = {is_kernel_ ? Place::kernel_parameter : Place::local,
                                          parameter.offset};
  }
  if (signature != nullptr) {
    for (const Variable& result : signature->results) {
      scopes_[0].symbols[result.name] = {Place::local, result.offset};
    }
    code_.local_bytes = aligned(signature->bytes, 16);
  }
}

void Decoder::run() {
  cursor_.expect('{');
  while (true) {
    if (cursor_.done()) cursor_.fail("a function without its end");
    if (cursor_.peek() == '}' and scope_ == 0) break;
    statement();
  }
  finish();
}

void Decoder::statement() {
  begin_ = cursor_.at();
  if (cursor_.take('{')) {
    scopes_.emplace_back().parent = scope_;
    scope_ = static_cast<int>(scopes_.size()) - 1;
  } else if (cursor_.take('}')) {
    scope_ = scopes_[static_cast<std::size_t>(scope_)].parent;
  } else if (cursor_.peek() == '.') {
    declaration();
  } else if (not cursor_.take(';')) {
    instruction();
  }
}

void Decoder::declaration() {
  const std::string_view directive = cursor_.name();
  if (directive == ".reg") {
    declare_registers();
  } else if (directive == ".local" or directive == ".param") {
    declare_local(1);
  } else if (directive == ".shared" or directive == ".pragma") {
    cursor_.skip_past(';');  // the module has given shared variables their places
  } else if (directive == ".loc") {
    cursor_.skip_line();
  } else {
    cursor_.fail_at(begin_, "the emulator does not know " + std::string(directive));
  }
}

void Decoder::declare_registers() {
  const std::string_view type = cursor_.name();
  RegisterClass kind = RegisterClass::narrow;
  if (type == ".pred") kind = RegisterClass::predicate;
  if (type.ends_with("64")) kind = RegisterClass::wide;
  if (type.ends_with("128")) unknown(type);
  do {
    const std::string_view name = cursor_.word();
    Scope& scope = scopes_[static_cast<std::size_t>(scope_)];
    const auto first = static_cast<std::uint32_t>(registers_.classes.size());
    if (cursor_.take('<')) {
      const auto count = static_cast<std::uint32_t>(cursor_.number());
      cursor_.expect('>');
      scope.ranges.push_back({name, first, count, kind});
      registers_.classes.insert(registers_.classes.end(), count, static_cast<std::uint8_t>(kind));
    } else {
      scope.registers[name] = {new_register(kind), kind};
    }
  } while (cursor_.take(','));
  cursor_.expect(';');
}

void Decoder::declare_local(std::size_t alignment) {
  std::string_view word = cursor_.name();
  if (word == ".align") {
    alignment = cursor_.number();
    word = cursor_.name();
  }
  std::size_t bytes = type_bytes(word);
  alignment = std::max(alignment, bytes);
  const std::string_view name = cursor_.word();
  while (cursor_.take('[')) {
    bytes *= cursor_.number();
    cursor_.expect(']');
  }
  cursor_.expect(';');
  code_.local_bytes = aligned(code_.local_bytes, alignment);
  scopes_[static_cast<std::size_t>(scope_)].symbols[name] = {Place::local, code_.local_bytes};
  code_.local_bytes += bytes;
}

void Decoder::declare_table(std::string_view label) {
  const auto table = static_cast<int>(code_.branch_tables.size());
  code_.branch_tables.emplace_back();
  scopes_[static_cast<std::size_t>(scope_)].labels[label] = static_cast<std::uint32_t>(table);
  int entry = 0;
  do {
    jumps_.push_back({0, cursor_.word(), scope_, begin_, table, entry++});
  } while (cursor_.take(','));
  cursor_.expect(';');
  code_.branch_tables.back().resize(static_cast<std::size_t>(entry));
}

void Decoder::instruction() {
  now_ = Instruction{};
  now_.list = static_cast<std::uint32_t>(code_.lists.size());
  now_uses_.clear();
  after_.clear();
  std::optional<std::uint32_t> guard;
  bool negated = false;
  if (cursor_.take('@')) {
    negated = cursor_.take('!');
    const auto found = find_register(cursor_.word());
    if (not found or found->kind != RegisterClass::predicate) {
      cursor_.fail_at(begin_, "expected a predicate");
    }
    guard = found->number;
  }
  const std::string_view opcode = cursor_.name();
  if (opcode.empty()) cursor_.fail("expected an instruction");
  if (cursor_.take(':')) {
    Cursor ahead = cursor_;
    if (ahead.name() == ".branchtargets") {
      cursor_ = ahead;
      declare_table(opcode);
      return;
    }
    scopes_[static_cast<std::size_t>(scope_)].labels[opcode] =
        static_cast<std::uint32_t>(code_.instructions.size());
    return;
  }
  now_.guard_negated = negated;
  const auto set_guard = [&] {
    if (guard) {
      now_.guard = 0;
      note(guard_field, *guard, false);
    }
  };
  if (opcode == "call" or opcode == "call.uni") {
    set_guard();
    call();
    return;
  }
  terms_.clear();
  if (not cursor_.take(';')) {
    do {
      terms_.push_back(read_term(cursor_));
    } while (cursor_.take(','));
    cursor_.expect(';');
  }
  const auto starts = [&](std::string_view text) { return opcode.starts_with(text); };
  if (opcode == "bra" or opcode == "bra.uni" or starts("brx.idx")) {
    branch(opcode);
  } else if (starts("mov.")) {
    move(opcode.substr(4));
  } else if (starts("ld.") or starts("ldu.")) {
    load(opcode);
  } else if (starts("st.") and not starts("st.async") and not starts("st.bulk")) {
    store(opcode);
  } else if (starts("atom.") or starts("red.")) {
    atomic(opcode);
  } else if (const Form* known = find_form(opcode)) {
    form(*known, opcode);
  } else {
    unknown(opcode);
  }
  set_guard();
  const auto widened = after_;
  const Instruction main = now_;
  emit();
  for (const After& after : widened) {
    now_ = Instruction{};
    now_.guard_negated = main.guard_negated;
    now_.handler = widen_handler(after.is_signed);
    note(0, after.to, true);
    note(1, after.from, false);
    set_guard();
    emit();
  }
}

void Decoder::branch(std::string_view opcode) {
  if (terms_.empty()) cursor_.fail_at(begin_, "expected a label");
  if (opcode.starts_with("brx")) {
    if (terms_.size() != 2) cursor_.fail_at(begin_, "expected an index and a label");
    now_.kind = Kind::indexed_branch;
    source(0, terms_[0], false);
    jumps_.push_back({static_cast<std::uint32_t>(code_.instructions.size()), terms_[1].text, scope_,
                      begin_, -2, 0});
    return;
  }
  now_.kind = Kind::branch;
  jumps_.push_back({static_cast<std::uint32_t>(code_.instructions.size()), terms_[0].text, scope_,
                    begin_, -1, 0});
}

// call (results), name, (arguments); both lists may be missing.
void Decoder::call() {
  std::vector<std::string_view> names[2];
  const auto names_in_parentheses = [&](std::vector<std::string_view>& to) {
    while (not cursor_.take(')')) {
      to.push_back(cursor_.word());
      if (not cursor_.take(',') and cursor_.peek() != ')') cursor_.fail("expected , or )");
    }
  };
  if (cursor_.take('(')) {
    names_in_parentheses(names[0]);
    cursor_.expect(',');
  }
  const std::string_view callee = cursor_.word();
  if (cursor_.take(',')) {
    cursor_.expect('(');
    names_in_parentheses(names[1]);
  }
  cursor_.expect(';');
  const auto [function, signature] = environment_.function(callee);
  if (function == nullptr) {
    cursor_.fail_at(begin_, "the emulator knows no function " + std::string(callee));
  }
  CallCode code{function, {}, {}};
  const auto pair = [&](const std::vector<std::string_view>& given,
                        const std::vector<Variable>& wanted, bool results) {
    if (given.size() != wanted.size()) cursor_.fail_at(begin_, "another number of parameters");
    for (std::size_t n = 0; n < given.size(); ++n) {
      const auto symbol = find_symbol(given[n]);
      if (not symbol or symbol->place != Place::local) {
        cursor_.fail_at(begin_, "unknown parameter " + std::string(given[n]));
      }
      const auto here = static_cast<std::uint32_t>(symbol->value);
      const auto there = static_cast<std::uint32_t>(wanted[n].offset);
      const auto bytes = static_cast<std::uint32_t>(wanted[n].bytes);
      if (results) {
        code.results.push_back({there, here, bytes});
      } else {
        code.arguments.push_back({here, there, bytes});
      }
    }
  };
  pair(names[0], signature->results, true);
  pair(names[1], signature->parameters, false);
  now_.kind = Kind::call;
  now_.target = static_cast<std::uint32_t>(code_.calls.size());
  code_.calls.push_back(std::move(code));
  emit();
}

void Decoder::finish() {
  // Falling off the end is leaving.
  begin_ = cursor_.at();
  now_ = Instruction{};
  now_.kind = Kind::leave;
  emit();
  for (const Jump& jump : jumps_) {
    std::optional<std::uint32_t> target;
    for (int s = jump.scope; s >= 0 and not target;
         s = scopes_[static_cast<std::size_t>(s)].parent) {
      const auto& labels = scopes_[static_cast<std::size_t>(s)].labels;
      if (const auto found = labels.find(jump.label); found != labels.end()) {
        target = found->second;
      }
    }
    if (not target) {
      cursor_.fail_at(jump.at, "unknown label " + std::string(jump.label));
    }
    if (jump.table >= 0) {
      code_.branch_tables[static_cast<std::size_t>(jump.table)]
                         [static_cast<std::size_t>(jump.entry)] = *target;
    } else {
      code_.instructions[jump.instruction].target = *target;
    }
  }
  code_.local_bytes = aligned(code_.local_bytes, 16);
  code_.stack_bytes = code_.local_bytes;
  for (const CallCode& call : code_.calls) {
    code_.stack_bytes = std::max(code_.stack_bytes, code_.local_bytes + call.function->stack_bytes);
  }
  place_registers(code_, registers_);
}

void decode_function(FunctionCode& code, Cursor body, const Environment& environment,
                     const Signature* signature, const std::vector<Variable>& parameters) {
  Decoder(code, body, environment, signature, parameters).run();
}

}  // namespace quantloom::emulator
