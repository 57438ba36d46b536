// libFuzzer target: whatever the bytes, loading a model on the CPU and generating two tokens gives
// an Error of a kind that a file can cause, or tokens of the vocabulary. At the end it says how
// many inputs got past the header. tests/fuzz/run.sh makes the corpus and runs it.
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <variant>

#include "base/error.h"
#include "base/thread_pool.h"
#include "generate/session.h"
#include "loader/model_file.h"
#include "model/model.h"

extern "C" std::size_t LLVMFuzzerMutate(std::uint8_t* data, std::size_t size, std::size_t most);

namespace {

using namespace quantloom;

struct Counts {
  std::uint64_t inputs = 0;
  std::uint64_t past_the_header = 0;  // the reader took them
  std::uint64_t bound = 0;            // ... and the model's keys and tensors fit together
  std::uint64_t generated = 0;
};
Counts counts;

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "broken promise: %s\n", what);
  std::abort();
}

// A file in memory that a path leads to.
class File {
 public:
  File() : descriptor_(::memfd_create("model.gguf", MFD_CLOEXEC)) {
    require(descriptor_ >= 0, "a file in memory");
    path_ = "/proc/self/fd/" + std::to_string(descriptor_);
  }
  const std::string& hold(std::span<const std::uint8_t> bytes) {
    require(::ftruncate(descriptor_, static_cast<off_t>(bytes.size())) == 0, "the file's size");
    require(
        ::pwrite(descriptor_, bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(bytes.size()),
        "the file's bytes");
    return path_;
  }

 private:
  int descriptor_;
  std::string path_;
};

bool of_a_file(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::gguf:
    case ErrorKind::model:
    case ErrorKind::device:  // a type that no kernel serves
    case ErrorKind::out_of_memory:
    case ErrorKind::invalid_argument:  // a context shorter than what is asked here
    case ErrorKind::numerics:
    case ErrorKind::io:  // shards that are not there
      return true;
    default:
      return false;
  }
}

void load_and_generate(const std::string& path, std::size_t variant) {
  constexpr ops::CacheType caches[] = {ops::CacheType::f16, ops::CacheType::f32,
                                       ops::CacheType::q8_0};
  const auto file = loader::ModelFile::open(path);
  ++counts.past_the_header;
  const auto model = model::Model::load(
      file,
      {.device = {},
       .gpu_layers = {},
       .precision = variant % 2 == 0 ? ops::Precision::exact : ops::Precision::fast,
       .cache_type = caches[variant % 3],
       .context_length = 8,
       .check_weights = variant % 5 != 0,
       .batch_invariant = variant % 7 == 0},
      {});
  ++counts.bound;
  generate::Session session(model, 3);
  const std::int64_t last = session.vocabulary() - 1;
  const std::int64_t prompt[] = {0, last, last / 2, 0};
  constexpr std::uint64_t generation = 1;
  session.begin(generation, prompt, {.sampler = {}, .max_new_tokens = 2, .stop_tokens = {}});
  int tokens = 0;
  for (;;) {
    const auto step = session.next(generation, {});
    const auto* choice = std::get_if<ops::Choice>(&step);
    if (choice == nullptr) break;
    require(choice->token >= 0 && choice->token <= last, "a token of the vocabulary");
    ++tokens;
  }
  require(tokens == 2, "two tokens");
  ++counts.generated;
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int* /*count*/, char*** /*arguments*/) {
  set_thread_count(1);
  std::atexit([] {
    std::fprintf(stderr, "inputs %llu, past the header %llu, a model %llu, generated %llu\n",
                 static_cast<unsigned long long>(counts.inputs),
                 static_cast<unsigned long long>(counts.past_the_header),
                 static_cast<unsigned long long>(counts.bound),
                 static_cast<unsigned long long>(counts.generated));
  });
  return 0;
}

// Mostly changes a byte or two in place, among the first, where the keys and the table of tensors
// are, or anywhere: libFuzzer's own changes, which move what follows, rarely pass the header.
extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size,
                                               std::size_t most, unsigned int seed) {
  std::minstd_rand random(seed);
  constexpr std::size_t header = 24;
  if (size <= header || random() % 8 == 0) return LLVMFuzzerMutate(data, size, most);
  constexpr std::uint8_t odd[] = {0, 1, 2, 0x7C, 0x7F, 0x80, 0xFF};
  for (unsigned int change = random() % 2 + 1; change > 0; --change) {
    const std::size_t reach = random() % 3 == 0 ? size : std::min<std::size_t>(size, 2048);
    std::uint8_t& byte = data[header + random() % (reach - header)];
    byte = random() % 2 == 0 ? odd[random() % std::size(odd)]
                             : static_cast<std::uint8_t>(byte ^ (1u << (random() % 8)));
  }
  return size;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static File& file = *new File;
  ++counts.inputs;
  std::size_t variant = size;
  if (size != 0) variant += data[size - 1] + data[size / 2];
  try {
    load_and_generate(file.hold({data, size}), variant);
  } catch (const Error& error) {
    require(of_a_file(error.kind()), error.what());
    require(!error.message().empty() && error.message().size() < 1000, "a readable message");
    require(!error.subject().empty(), "a subject");
  }
  return 0;
}
