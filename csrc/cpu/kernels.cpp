#include "cpu/kernels.h"

#include <string>

#include "base/error.h"
#include "formats/types.h"

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

void fail_no_product(const ops::Weight& weight) {
  const formats::TypeInfo* type = formats::type_info(static_cast<std::uint32_t>(weight.format));
  throw Error(ErrorKind::device,
              "tensor '" + weight.name + "' of type " + (type == nullptr ? "?" : type->name) +
                  " has no product of this form on the CPU",
              weight.name);
}

}  // namespace quantloom::cpu
