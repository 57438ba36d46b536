// A module's text: variables, functions, kernels.
#include "module.h"

#include <algorithm>
#include <unordered_set>

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

struct Declared {
  std::string_view name;
  std::size_t element_bytes = 1, bytes = 0, alignment = 1;
};

// [.align n] [.ptr ...] .type name[n]...
Declared read_declared(Cursor& cursor) {
  Declared declared;
  std::string_view word = cursor.name();
  while (word == ".align" or word == ".ptr" or word == ".attribute") {
    if (word == ".attribute") {
      cursor.skip_past(')');
    } else if (word == ".align") {
      declared.alignment = cursor.number();
    }
    word = cursor.name();
  }
  if (not word.starts_with('.')) cursor.fail("expected a type");
  declared.element_bytes = type_bytes(word);
  while (cursor.peek() == '.') {  // a pointer parameter's space and alignment
    if (cursor.name() == ".align") cursor.number();
  }
  declared.alignment = std::max(declared.alignment, declared.element_bytes);
  declared.name = cursor.word();
  declared.bytes = declared.element_bytes;
  while (cursor.take('[')) {
    declared.bytes *= cursor.peek() == ']' ? 0 : cursor.number();
    cursor.expect(']');
  }
  return declared;
}

}  // namespace

void Module::Contents::parse() {
  Cursor cursor(text, 0, text.size());
  while (not cursor.done() and cursor.peek() != '\0') directive(cursor);
  for (const Function& function : functions) {
    if (function.is_entry) decode(function);
  }
}

void Module::Contents::directive(Cursor& cursor) {
  bool is_extern = false;
  while (true) {
    const std::size_t at = cursor.at();
    const std::string_view word = cursor.name();
    if (word == ".version" or word == ".target" or word == ".address_size" or word == ".file" or
        word == ".loc") {
      cursor.skip_line();
      return;
    }
    if (word == ".extern") {
      is_extern = true;
    } else if (word == ".visible" or word == ".weak" or word == ".common") {
    } else if (word == ".pragma" or word == ".alias") {
      cursor.skip_past(';');
      return;
    } else if (word == ".section") {
      cursor.skip_past('{');
      cursor.skip_past('}');
      return;
    } else if (word == ".global" or word == ".const" or word == ".shared") {
      variable(cursor, word, is_extern);
      return;
    } else if (word == ".entry" or word == ".func") {
      function(cursor, word == ".entry");
      return;
    } else {
      cursor.fail_at(at, "the emulator does not know this directive");
    }
  }
}

void Module::Contents::variable(Cursor& cursor, std::string_view space, bool is_extern) {
  const Declared declared = read_declared(cursor);
  if (space == ".shared") {
    shared.push_back({declared.name, declared.bytes, declared.alignment, is_extern});
    cursor.expect(';');
    return;
  }
  if (is_extern) cursor.fail("a variable of another module");
  Global& global = globals.emplace_back();
  global.name = declared.name;
  global.bytes = declared.bytes;
  const std::size_t alignment = std::max<std::size_t>(declared.alignment, 256);
  global.storage = std::make_unique<std::byte[]>(declared.bytes + alignment);
  const auto address = reinterpret_cast<std::uintptr_t>(global.storage.get());
  global.data = global.storage.get() + (aligned(address, alignment) - address);
  global_addresses[declared.name] = reinterpret_cast<std::uintptr_t>(global.data);
  if (cursor.take('=')) initialize(cursor, global, declared.element_bytes);
  cursor.expect(';');
}

void Module::Contents::initialize(Cursor& cursor, Global& global, std::size_t element_bytes) {
  std::size_t at = 0;
  const auto value = [&] {
    std::uint64_t bits = 0;
    if (cursor.at_number()) {
      bits = cursor.number();
    } else {
      const std::string_view name = cursor.word();
      const auto found = global_addresses.find(name);
      if (found == global_addresses.end() or element_bytes != 8) cursor.fail("unknown value");
      bits = found->second;
    }
    if (at + element_bytes > global.bytes) cursor.fail("more values than elements");
    std::memcpy(global.data + at, &bits, element_bytes);
    at += element_bytes;
  };
  const auto list = [&](auto&& self) -> void {
    if (not cursor.take('{')) return value();
    while (not cursor.take('}')) {
      self(self);
      if (not cursor.take(',') and cursor.peek() != '}') cursor.fail("expected , or }");
    }
  };
  list(list);
}

void Module::Contents::parameters(Cursor& cursor, std::vector<Variable>& to, std::size_t& bytes) {
  while (not cursor.take(')')) {
    const std::string_view word = cursor.name();
    if (word == ".reg") cursor.fail("parameters in registers are not supported");
    const Declared declared = read_declared(cursor);
    bytes = aligned(bytes, declared.alignment);
    to.push_back({declared.name, bytes, declared.bytes, declared.alignment});
    bytes += declared.bytes;
    if (not cursor.take(',') and cursor.peek() != ')') cursor.fail("expected , or )");
  }
}

void Module::Contents::function(Cursor& cursor, bool is_entry) {
  Function function;
  function.is_entry = is_entry;
  if (cursor.take('(')) {
    parameters(cursor, function.signature.results, function.signature.bytes);
  }
  function.name = cursor.word();
  if (cursor.take('(')) {
    parameters(cursor, function.signature.parameters, function.signature.bytes);
  }
  while (cursor.peek() == '.') {
    const std::string_view word = cursor.name();
    if (word == ".maxntid" or word == ".reqntid") {
      function.maximum_threads = 1;
      do {
        function.maximum_threads *= static_cast<int>(cursor.number());
      } while (cursor.take(','));
    } else if (word == ".pragma") {
      cursor.skip_past(';');
    } else if (word == ".noreturn" or word == ".explicitcluster") {
    } else {
      while (cursor.at_number()) {
        cursor.number();
        cursor.take(',');
      }
    }
  }
  if (not cursor.take(';')) {
    function.body = cursor.at();
    cursor.skip_braces();
    function.body_end = cursor.at();
  }
  const auto [entry, added] = function_index.try_emplace(function.name, functions.size());
  if (added) {
    functions.push_back(std::move(function));
  } else if (function.body != 0) {
    functions[entry->second] = std::move(function);
  }
}

namespace {

// A whole word of a text: the names of PTX begin and end at other characters than those of names.
bool contains_word(std::string_view text, std::string_view word) {
  const auto is_word = [](char c) {
    return (c >= 'a' and c <= 'z') or (c >= 'A' and c <= 'Z') or (c >= '0' and c <= '9') or
           c == '_' or c == '$' or c == '%';
  };
  for (std::size_t at = text.find(word); at != std::string_view::npos;
       at = text.find(word, at + 1)) {
    const bool before = at > 0 and is_word(text[at - 1]);
    const std::size_t end = at + word.size();
    if (not before and not(end < text.size() and is_word(text[end]))) return true;
  }
  return false;
}

}  // namespace

std::vector<const Module::Contents::Function*> Module::Contents::reachable(
    const Function& entry) const {
  std::vector<const Function*> found{&entry};
  for (std::size_t n = 0; n < found.size(); ++n) {
    const std::string_view body =
        std::string_view(text).substr(found[n]->body, found[n]->body_end - found[n]->body);
    if (body.find("call") == std::string_view::npos) continue;
    for (const Function& other : functions) {
      if (other.is_entry or std::find(found.begin(), found.end(), &other) != found.end()) continue;
      if (contains_word(body, other.name)) found.push_back(&other);
    }
  }
  return found;
}

// Static variables of the kernel and of what it calls, then the dynamic ones, which all begin at
// the same place.
std::unordered_map<std::string_view, std::uint32_t> Module::Contents::place_shared(
    const std::vector<const Function*>& reached, KernelCode& kernel) const {
  std::vector<Shared> used;
  for (const Shared& variable : shared) {
    for (const Function* function : reached) {
      const auto body =
          std::string_view(text).substr(function->body, function->body_end - function->body);
      if (not contains_word(body, variable.name)) continue;
      used.push_back(variable);
      break;
    }
  }
  for (const Function* function : reached) {
    const auto body =
        std::string_view(text).substr(function->body, function->body_end - function->body);
    constexpr std::string_view word = ".shared ";
    for (std::size_t at = body.find(word); at != std::string_view::npos;
         at = body.find(word, at + 1)) {
      const char before = at > 0 ? body[at - 1] : ' ';
      if (before != ' ' and before != '\t' and before != '\n' and before != '}') continue;
      Cursor cursor(text, function->body + at + word.size(), function->body_end);
      const Declared declared = read_declared(cursor);
      used.push_back({declared.name, declared.bytes, declared.alignment, false});
    }
  }
  std::unordered_map<std::string_view, std::uint32_t> places;
  std::size_t end = shared_begin, dynamic_alignment = 16;
  for (const Shared& variable : used) {
    if (variable.is_extern) {
      dynamic_alignment = std::max(dynamic_alignment, variable.alignment);
      continue;
    }
    end = aligned(end, variable.alignment);
    places[variable.name] = static_cast<std::uint32_t>(end);
    end += variable.bytes;
  }
  kernel.static_shared_bytes = end - shared_begin;
  kernel.dynamic_shared_at = aligned(end, dynamic_alignment);
  for (const Shared& variable : used) {
    if (variable.is_extern) {
      places[variable.name] = static_cast<std::uint32_t>(kernel.dynamic_shared_at);
    }
  }
  return places;
}

void Module::Contents::decode(const Function& entry) {
  auto kernel = std::make_unique<KernelCode>();
  kernel->name = entry.name;
  kernel->text = &text;
  kernel->maximum_threads = entry.maximum_threads;
  kernel->parameter_bytes = entry.signature.bytes;
  for (const Variable& parameter : entry.signature.parameters) {
    kernel->parameters.push_back({parameter.offset, parameter.bytes});
  }
  Environment environment;
  environment.globals = &global_addresses;
  environment.shared = place_shared(reachable(entry), *kernel);
  std::unordered_map<std::string_view, FunctionCode*> decoded;
  std::unordered_set<std::string_view> open;
  environment.function = [&](std::string_view name) -> std::pair<FunctionCode*, const Signature*> {
    const auto index = function_index.find(name);
    if (index == function_index.end() or functions[index->second].body == 0) return {};
    const Function& function = functions[index->second];
    if (const auto known = decoded.find(name); known != decoded.end()) {
      return {known->second, &function.signature};
    }
    if (not open.insert(name).second) {
      throw std::runtime_error("PTX: " + std::string(name) + " calls itself: not supported");
    }
    auto code = std::make_unique<FunctionCode>();
    code->name = name;
    decode_function(*code, Cursor(text, function.body, function.body_end), environment,
                    &function.signature, function.signature.parameters);
    FunctionCode* made = code.get();
    kernel->functions.push_back(std::move(code));
    decoded[name] = made;
    return {made, &function.signature};
  };
  kernel->functions.push_back(std::make_unique<FunctionCode>());
  FunctionCode& main = *kernel->functions.front();
  main.name = entry.name;
  decode_function(main, Cursor(text, entry.body, entry.body_end), environment, nullptr,
                  entry.signature.parameters);
  kernel->kernel.code = kernel.get();
  kernels.push_back(std::move(kernel));
}

Module::Module(std::string_view ptx) : contents_(std::make_unique<Contents>()) {
  contents_->text = ptx;
  contents_->parse();
}
Module::~Module() = default;

const Kernel* Module::kernel(std::string_view name) const {
  for (const auto& kernel : contents_->kernels) {
    if (kernel->name == name) return &kernel->kernel;
  }
  return nullptr;
}

std::vector<const Kernel*> Module::kernels() const {
  std::vector<const Kernel*> all;
  for (const auto& kernel : contents_->kernels) all.push_back(&kernel->kernel);
  return all;
}

void* Module::variable(std::string_view name, std::size_t* bytes) const {
  for (const Contents::Global& global : contents_->globals) {
    if (global.name != name) continue;
    if (bytes != nullptr) *bytes = global.bytes;
    return global.data;
  }
  return nullptr;
}

void Module::register_variables(Memory& memory) const {
  for (const Contents::Global& global : contents_->globals) memory.add(global.data, global.bytes);
}

const std::string& Kernel::name() const { return code->name; }
const std::vector<Parameter>& Kernel::parameters() const { return code->parameters; }
std::size_t Kernel::parameter_bytes() const { return code->parameter_bytes; }
std::size_t Kernel::static_shared_bytes() const { return code->static_shared_bytes; }
std::size_t Kernel::local_bytes() const { return code->functions.front()->stack_bytes; }
int Kernel::maximum_threads() const { return code->maximum_threads; }

}  // namespace quantloom::emulator
