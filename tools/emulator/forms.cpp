#include "forms.h"

namespace quantloom::emulator {

const Form* find_form(std::string_view opcode) {
  static const Forms forms = [] {
    Forms all;
    add_integer_forms(all);
    add_float_forms(all);
    add_half_forms(all);
    add_bit_forms(all);
    add_convert_forms(all);
    add_warp_forms(all);
    add_control_forms(all);
    add_async_forms(all);
    add_matrix_forms(all);
    add_warpgroup_forms(all);
    return all;
  }();
  const auto found = forms.find(std::string(opcode));
  return found == forms.end() ? nullptr : &found->second;
}

}  // namespace quantloom::emulator
