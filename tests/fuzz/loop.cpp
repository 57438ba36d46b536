// Runs a fuzz target without libFuzzer, for compilers that have none and for many plain executions:
//   fuzz_load FOLDER RUNS [SEED]
// Each run changes a file of the folder and gives it to the target. No coverage guides it.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

using Bytes = std::vector<std::uint8_t>;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
extern "C" __attribute__((weak)) int LLVMFuzzerInitialize(int* count, char*** arguments);
extern "C" __attribute__((weak)) std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data,
                                                                     std::size_t size,
                                                                     std::size_t most,
                                                                     unsigned int seed);

namespace {

std::mt19937& generator() {
  static std::mt19937 random;
  return random;
}

}  // namespace

// A bit, a byte, a cut, or bytes that come in between.
extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t most) {
  std::mt19937& random = generator();
  if (size == 0) return 0;
  const std::size_t place = random() % size;
  switch (random() % 4) {
    case 0:
      data[place] ^= static_cast<std::uint8_t>(1u << (random() % 8));
      return size;
    case 1:
      data[place] = static_cast<std::uint8_t>(random());
      return size;
    case 2: {
      const std::size_t gone = std::min<std::size_t>(size - place, random() % 8 + 1);
      std::copy(data + place + gone, data + size, data + place);
      return size - gone;
    }
    default: {
      const std::size_t more = std::min<std::size_t>(most - size, random() % 8 + 1);
      std::copy_backward(data + place, data + size, data + size + more);
      for (std::size_t i = 0; i < more; ++i) data[place + i] = static_cast<std::uint8_t>(random());
      return size + more;
    }
  }
}

int main(int count, char** arguments) {
  if (count < 3) {
    std::fprintf(stderr, "usage: %s FOLDER RUNS [SEED]\n", arguments[0]);
    return 2;
  }
  if (LLVMFuzzerInitialize != nullptr) LLVMFuzzerInitialize(&count, &arguments);
  std::vector<Bytes> files;
  for (const auto& entry : std::filesystem::directory_iterator(arguments[1])) {
    std::ifstream file(entry.path(), std::ios::binary);
    files.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  if (files.empty()) return 2;
  std::sort(files.begin(), files.end());
  std::mt19937& random = generator();
  random.seed(count > 3 ? static_cast<unsigned int>(std::atoi(arguments[3])) : 0);
  const long long runs = std::atoll(arguments[2]);
  Bytes input;
  for (long long run = 0; run < runs; ++run) {
    input = files[random() % files.size()];
    const std::size_t size = input.size();
    const std::size_t most = size + 64;
    input.resize(most);
    const std::size_t changed = LLVMFuzzerCustomMutator != nullptr
                                    ? LLVMFuzzerCustomMutator(input.data(), size, most, random())
                                    : LLVMFuzzerMutate(input.data(), size, most);
    input.resize(changed);
    LLVMFuzzerTestOneInput(input.data(), input.size());
  }
  std::fprintf(stderr, "%lld runs from %zu files\n", runs, files.size());
  return 0;
}
