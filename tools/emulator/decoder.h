// The decoder's state while it reads one function.
#pragma once

#include "access.h"
#include "decode.h"
#include "forms.h"

namespace quantloom::emulator {

class Decoder {
 public:
  Decoder(FunctionCode& code, Cursor body, const Environment& environment,
          const Signature* signature, const std::vector<Variable>& parameters);
  void run();

 private:
  struct Register {
    std::uint32_t number = 0;
    RegisterClass kind = RegisterClass::narrow;
  };
  struct Range {  // %r<10>
    std::string_view prefix;
    std::uint32_t first = 0, count = 0;
    RegisterClass kind = RegisterClass::narrow;
  };
  enum class Place { local, shared, kernel_parameter, global };
  struct Symbol {
    Place place = Place::local;
    std::uint64_t value = 0;
  };
  struct Scope {
    std::vector<Range> ranges;
    std::unordered_map<std::string_view, Register> registers;
    std::unordered_map<std::string_view, Symbol> symbols;
    std::unordered_map<std::string_view, std::uint32_t> labels;
    int parent = -1;
  };
  struct Jump {
    std::uint32_t instruction = 0;
    std::string_view label;
    int scope = 0;
    std::size_t at = 0;
    int table = -1, entry = 0;
  };

  // Declarations and statements.
  void statement();
  void declaration();
  void declare_registers();
  void declare_local(std::size_t alignment);
  void declare_table(std::string_view label);
  void instruction();
  void branch(std::string_view opcode);
  void call();
  void move(std::string_view type);
  void load(std::string_view opcode);
  void store(std::string_view opcode);
  void atomic(std::string_view opcode);
  void form(const Form& form, std::string_view opcode);
  void finish();

  // Operands of the instruction in hand.
  std::optional<Register> find_register(std::string_view name) const;
  std::optional<Symbol> find_symbol(std::string_view name) const;
  std::uint32_t new_register(RegisterClass kind, std::uint8_t flags = 0);
  void note(std::uint32_t field, std::uint32_t number, bool written);
  void source(int index, const Term& term, bool wide);
  void source_predicate(int index, const Term& term);
  void destination(int index, const Term& term, RegisterClass kind, std::string_view type);
  void list_entry(std::uint32_t number, bool written, bool read);
  void list_of(const Term& term, bool written, bool read);
  std::uint32_t source_number(const Term& term, bool wide);  // a register that holds the operand
  std::optional<std::uint32_t> constant_of(const Term& term, bool wide);
  std::uint32_t constant(std::uint64_t value, bool wide);
  std::uint32_t frame_value(std::uint64_t offset, bool kernel_parameter);
  void shared_address(int index, const Term& term);
  void wide_address(int index, const Term& term);
  bool address(int index, const Term& term, Space& space);  // whether it takes 64 bits
  std::uint32_t special(std::string_view name);

  // Instructions that the text does not spell.
  std::uint32_t hidden(Handler handler, RegisterClass kind,
                       std::initializer_list<std::uint32_t> sources, std::uint8_t mode = 0);
  void emit();
  [[noreturn]] void unknown(std::string_view opcode) const;

  FunctionCode& code_;
  Cursor cursor_;
  const Environment& environment_;
  const bool is_kernel_;
  Registers registers_;
  std::vector<Scope> scopes_;
  int scope_ = 0;
  std::vector<Jump> jumps_;
  std::unordered_map<std::uint64_t, std::uint32_t> narrow_constants_, wide_constants_;
  std::unordered_map<std::uint64_t, std::uint32_t> frame_values_;

  // The instruction in hand.
  Instruction now_;
  std::vector<RegisterUse> now_uses_;
  std::vector<Term> terms_;
  std::size_t begin_ = 0;
  struct After {
    std::uint32_t to = 0, from = 0;
    bool is_signed = false;
  };
  std::vector<After> after_;  // widening of what was loaded
};

std::optional<std::uint8_t> special_register(std::string_view name, bool& wide);
Handler special_handler(bool wide);
Handler widen_handler(bool is_signed);
Handler narrow_handler();
Handler add_handler(bool wide);
Handler negate_predicate_handler();
Handler pack_handler(unsigned parts, unsigned bits);
Handler unpack_handler(unsigned parts, unsigned bits);

}  // namespace quantloom::emulator
