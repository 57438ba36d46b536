#include "device/device.h"

#include <charconv>

#include "base/error.h"

namespace quantloom::device {

Device parse_device(std::string_view text) {
  if (text == "cpu") return {DeviceType::cpu, 0};
  if (text == "cuda") return {DeviceType::cuda, 0};
  constexpr std::string_view prefix = "cuda:";
  if (text.substr(0, prefix.size()) == prefix) {
    const std::string_view digits = text.substr(prefix.size());
    int index = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), index);
    // One name for each: tensors on "cuda:0" are not also on "cuda:00".
    if (error == std::errc{} && end == digits.data() + digits.size() &&
        digits == std::to_string(index) && index >= 0) {
      return {DeviceType::cuda, index};
    }
  }
  throw Error(ErrorKind::invalid_argument,
              "device '" + std::string(text) +
                  "' is not one of 'cpu', 'cuda', 'cuda:N' or, for a model, 'auto'",
              "device");
}

std::string to_string(const Device& device) {
  if (device.type == DeviceType::cpu) return "cpu";
  return "cuda:" + std::to_string(device.index);
}

}  // namespace quantloom::device
