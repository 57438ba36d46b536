#include "cpu/kernels.h"

#include <string>

#include "base/error.h"

namespace quantloom::cpu {

const Kernels& kernels(InstructionSet set) {
  switch (set) {
    case InstructionSet::plain:
      return plain_kernels();
#if defined(__x86_64__)
    case InstructionSet::avx2:
      return avx2_kernels();
    case InstructionSet::avx512:
      return avx512_kernels();
    case InstructionSet::avx512_vnni:
      return vnni_kernels();
    case InstructionSet::amx:
      return amx_kernels();
#else
    default:
      break;
#endif
  }
  throw Error(ErrorKind::invalid_argument,
              std::string("this build has no kernels for ") + to_string(set), "instruction_set");
}

}  // namespace quantloom::cpu
