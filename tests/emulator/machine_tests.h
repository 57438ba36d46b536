// Little kernels for the emulator's tests: the body in PTX, two buffers, their addresses in %a and
// %b.
#pragma once

#include <cstring>

#include "check.h"
#include "machine.h"

namespace quantloom::emulator {

inline std::string entry(const std::string& body, const std::string& before = "") {
  return ".version 9.0\n.target sm_90a\n.address_size 64\n" + before +
         ".visible .entry test(.param .u64 pa, .param .u64 pb)\n{\n"
         ".reg .pred %p<20>;\n.reg .b16 %h<20>;\n.reg .b32 %r<100>;\n.reg .f32 %f<400>;\n"
         ".reg .b64 %rd<20>;\n.reg .f64 %fd<10>;\n.reg .b64 %a, %b, %ao, %bo;\n"
         ".reg .b32 %tid;\n"
         "ld.param.u64 %a, [pa];\nld.param.u64 %b, [pb];\nmov.u32 %tid, %tid.x;\n"
         "mad.wide.u32 %ao, %tid, 4, %a;\nmad.wide.u32 %bo, %tid, 4, %b;\n" +
         body + "\nret;\n}\n";
}

struct Shape {
  Dim3 grid, block{32, 1, 1}, cluster;
  std::size_t shared = 0;
  bool cooperative = false;
};

// Runs `entry(body)` on two buffers of words; %ao and %bo point at the thread's own.
template <typename A, typename B>
std::optional<Fault> run_body(const std::string& body, std::vector<A>& a, std::vector<B>& b,
                              Shape shape = {}, const std::string& before = "") {
  const Module module(entry(body, before));
  Memory memory;
  memory.add(a.data(), a.size() * sizeof(A));
  memory.add(b.data(), b.size() * sizeof(B));
  module.register_variables(memory);
  const void* parameters[2] = {a.data(), b.data()};
  Launch launch;
  launch.kernel = module.kernel("test");
  launch.grid = shape.grid, launch.block = shape.block, launch.cluster = shape.cluster;
  launch.dynamic_shared_bytes = shape.shared;
  launch.cooperative = shape.cooperative;
  launch.parameters = parameters;
  return run(launch, memory);
}

inline bool fine(const std::optional<Fault>& fault) {
  if (fault) std::fprintf(stderr, "%s\n", fault->text.c_str());
  return not fault;
}
inline bool faults(const std::optional<Fault>& fault, Fault::Kind kind, const char* fragment) {
  if (fault and fault->kind == kind and fault->text.find(fragment) != std::string::npos) {
    return true;
  }
  std::fprintf(stderr, "%s\n", fault ? fault->text.c_str() : "no fault");
  return false;
}

}  // namespace quantloom::emulator
