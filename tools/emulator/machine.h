// A GPU of compute capability 9.0 on the CPU: it interprets the PTX that nvcc made of the kernels,
// warp by warp, so that a machine without a GPU can hold every kernel against its reference. It
// checks what compute-sanitizer's memcheck checks (addresses, alignment) and says what a hang waits
// for. It tells nothing about speed.
//
// Source: "Parallel Thread Execution ISA", NVIDIA, version 9.0.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <vector>

namespace quantloom::emulator {

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
};

// What a device pointer may point into. Device addresses are host addresses.
class Memory {
 public:
  struct Range {
    std::uintptr_t begin = 0, end = 0;  // [begin, end); empty where nothing was found
  };
  void add(const void* begin, std::size_t bytes);
  void remove(const void* begin);
  Range find(std::uintptr_t address) const;  // the allocation that holds the address

 private:
  mutable std::shared_mutex mutex_;
  std::map<std::uintptr_t, std::uintptr_t> ranges_;
};

// What ends a launch early: its kind decides the CUDA error, its text names the kernel, block,
// thread, PTX line and what was wrong.
struct Fault {
  enum class Kind { illegal_address, misaligned_address, trap, illegal_instruction, hang } kind;
  std::string text;
};

struct Parameter {
  std::size_t offset = 0, bytes = 0;
};

class Module;

// One .entry of a module.
class Kernel {
 public:
  const std::string& name() const;
  const std::vector<Parameter>& parameters() const;  // offsets in the parameter buffer
  std::size_t parameter_bytes() const;
  std::size_t static_shared_bytes() const;
  std::size_t local_bytes() const;  // per thread
  int maximum_threads() const;      // .maxntid's product; 1024 where it is not given
  const struct KernelCode* code = nullptr;
};

// One PTX text. Throws std::runtime_error with line and reason for what it does not know: an
// unknown instruction is an error when the module is read, never when it runs.
class Module {
 public:
  explicit Module(std::string_view ptx);
  ~Module();
  const Kernel* kernel(std::string_view name) const;  // null where there is none
  std::vector<const Kernel*> kernels() const;
  void* variable(std::string_view name,
                 std::size_t* bytes) const;       // .global and .const; null where there is none
  void register_variables(Memory& memory) const;  // so that kernels may read them
 private:
  struct Contents;
  std::unique_ptr<Contents> contents_;
};

struct Launch {
  const Kernel* kernel = nullptr;
  Dim3 grid, block, cluster;
  std::size_t dynamic_shared_bytes = 0;
  bool cooperative = false;          // all blocks run side by side
  const void* parameters = nullptr;  // parameter_bytes() of them
};

struct Statistics {
  std::uint64_t warp_instructions = 0;
};

// Runs a launch to its end. Returns what stopped it early. Blocks are spread over host threads;
// blocks of a cooperative launch, and of one cluster, run side by side, so that they can wait for
// each other.
std::optional<Fault> run(const Launch& launch, const Memory& memory,
                         Statistics* statistics = nullptr);

}  // namespace quantloom::emulator
