// What a Module holds.
#pragma once

#include "decode.h"

namespace quantloom::emulator {

struct Module::Contents {
  struct Shared {
    std::string_view name;
    std::size_t bytes = 0, alignment = 1;
    bool is_extern = false;
  };
  struct Function {
    std::string_view name;
    bool is_entry = false;
    Signature signature;
    std::size_t body = 0, body_end = 0;  // in the text; 0 where only declared
    int maximum_threads = 1024;
  };
  struct Global {
    std::string_view name;
    std::size_t bytes = 0;
    std::unique_ptr<std::byte[]> storage;
    std::byte* data = nullptr;
  };

  std::string text;
  std::vector<Shared> shared;
  std::vector<Function> functions;
  std::unordered_map<std::string_view, std::size_t> function_index;
  std::vector<Global> globals;
  std::unordered_map<std::string_view, std::uint64_t> global_addresses;
  std::vector<std::unique_ptr<KernelCode>> kernels;

  void parse();
  void decode(const Function& entry);

 private:
  void directive(Cursor& cursor);
  void variable(Cursor& cursor, std::string_view space, bool is_extern);
  void initialize(Cursor& cursor, Global& global, std::size_t element_bytes);
  void function(Cursor& cursor, bool is_entry);
  void parameters(Cursor& cursor, std::vector<Variable>& to, std::size_t& bytes);
  std::vector<const Function*> reachable(const Function& entry) const;
  std::unordered_map<std::string_view, std::uint32_t> place_shared(
      const std::vector<const Function*>& functions, KernelCode& kernel) const;
};

}  // namespace quantloom::emulator
