#include "cpu/instruction_set.h"

#include <atomic>
#include <cstdint>
#include <cstdlib>

#include "base/error.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace quantloom::cpu {
namespace {

constexpr InstructionSet all_sets[] = {InstructionSet::plain, InstructionSet::avx2,
                                       InstructionSet::avx512, InstructionSet::avx512_vnni,
                                       InstructionSet::amx};

#if defined(__x86_64__)

bool bit(std::uint32_t word, int index) { return ((word >> index) & 1u) != 0; }

// The register state that the operating system saves (XCR0).
std::uint64_t saved_state() {
  std::uint32_t low = 0;
  std::uint32_t high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low | static_cast<std::uint64_t>(high) << 32;
}

// Linux gives the tile registers to a process only on request (arch_prctl(2), since 5.16).
bool request_tiles() {
  constexpr long request_permission = 0x1023;
  constexpr long tile_data = 18;
  return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
}

std::vector<InstructionSet> detect() {
  std::vector<InstructionSet> sets = {InstructionSet::plain};
  std::uint32_t a = 0;
  std::uint32_t b = 0;
  std::uint32_t c = 0;
  std::uint32_t d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0) return sets;
  const bool osxsave = bit(c, 27);
  const bool fma = bit(c, 12);
  const bool f16c = bit(c, 29);
  if (!osxsave || !fma || !f16c) return sets;
  const std::uint64_t state = saved_state();
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return sets;

  constexpr std::uint64_t ymm_state = 0x6;
  constexpr std::uint64_t zmm_state = 0xe6;
  constexpr std::uint64_t tile_state = 0x60000;
  const bool avx2 = bit(b, 5) && bit(b, 8) && (state & ymm_state) == ymm_state;  // and BMI2
  if (!avx2) return sets;
  sets.push_back(InstructionSet::avx2);
  const bool avx512 = bit(b, 16) && bit(b, 17) && bit(b, 30) && bit(b, 31) &&
                      (state & zmm_state) == zmm_state;  // F, DQ, BW, VL
  if (!avx512) return sets;
  sets.push_back(InstructionSet::avx512);
  if (!bit(c, 11)) return sets;
  sets.push_back(InstructionSet::avx512_vnni);
  const bool tiles = bit(d, 24) && bit(d, 22) && (state & tile_state) == tile_state;
  std::uint32_t bf16 = 0;
  std::uint32_t ignored = 0;
  const bool avx512_bf16 =
      __get_cpuid_count(7, 1, &bf16, &ignored, &ignored, &ignored) != 0 && bit(bf16, 5);
  if (tiles && avx512_bf16 && request_tiles()) sets.push_back(InstructionSet::amx);
  return sets;
}

#else

std::vector<InstructionSet> detect() { return {InstructionSet::plain}; }

#endif

InstructionSet parse(std::string_view name, const char* source) {
  const std::vector<InstructionSet>& available = available_instruction_sets();
  if (name == "auto" || name.empty()) return available.back();
  std::string known;
  for (const InstructionSet set : all_sets) {
    if (name == to_string(set)) {
      for (const InstructionSet candidate : available) {
        if (candidate == set) return set;
      }
      throw Error(ErrorKind::invalid_argument,
                  std::string(source) + " asks for the instruction set " + std::string(name) +
                      ", which this machine does not have; its highest is " +
                      to_string(available.back()),
                  source);
    }
    known += std::string(known.empty() ? "" : ", ") + to_string(set);
  }
  throw Error(ErrorKind::invalid_argument,
              std::string(source) + " names the unknown instruction set '" + std::string(name) +
                  "'; known are auto, " + known,
              source);
}

std::atomic<int> chosen{-1};

}  // namespace

const char* to_string(InstructionSet set) {
  switch (set) {
    case InstructionSet::plain:
      return "plain";
    case InstructionSet::avx2:
      return "avx2";
    case InstructionSet::avx512:
      return "avx512";
    case InstructionSet::avx512_vnni:
      return "avx512_vnni";
    case InstructionSet::amx:
      return "amx";
  }
  return "plain";
}

const std::vector<InstructionSet>& available_instruction_sets() {
  static const std::vector<InstructionSet> sets = detect();
  return sets;
}

InstructionSet instruction_set() {
  int set = chosen.load();
  if (set < 0) {
    const char* variable = std::getenv("QUANTLOOM_CPU");
    set = static_cast<int>(parse(variable == nullptr ? "auto" : variable, "QUANTLOOM_CPU"));
    chosen.store(set);
  }
  return static_cast<InstructionSet>(set);
}

void set_instruction_set(std::string_view name) {
  chosen.store(static_cast<int>(parse(name, "instruction_set")));
}

}  // namespace quantloom::cpu
