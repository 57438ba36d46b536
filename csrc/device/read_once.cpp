#include "device/read_once.h"

#include <algorithm>
#include <atomic>

#include "base/error.h"
#include "base/thread_pool.h"
#if defined(QUANTLOOM_WITH_CUDA)
#include "device/cuda_call.h"
#include "device/read_words.h"
#endif

namespace quantloom::device {

namespace {

constexpr std::size_t step = 16;
constexpr std::int64_t piece_words = 1 << 16;

std::uint32_t xor_of(const std::uint32_t* words, std::int64_t count) {
  std::uint32_t sum = 0;
  for (std::int64_t i = 0; i < count; ++i) sum ^= words[i];
  return sum;
}

}  // namespace

void read_once(const Tensor& tensor, const Tensor& sum) {
  if (!tensor.is_contiguous() || tensor.bytes() % step != 0 ||
      reinterpret_cast<std::uintptr_t>(tensor.data()) % step != 0) {
    throw Error(ErrorKind::invalid_argument, "what is read lies whole on 16 bytes", "tensor");
  }
  if (sum.dtype() != DType::u32 || sum.size() != 1 || !(sum.device() == tensor.device())) {
    throw Error(ErrorKind::invalid_argument, "the sum is one uint32 on the same device", "sum");
  }
  require_usable(tensor.device());
  if (tensor.device().type == DeviceType::cpu) {
    const auto* words = static_cast<const std::uint32_t*>(tensor.data());
    const auto count = static_cast<std::int64_t>(tensor.bytes() / sizeof(std::uint32_t));
    std::atomic<std::uint32_t> all{0};
    parallel_for((count + piece_words - 1) / piece_words, [&](std::int64_t piece, int) {
      const std::int64_t first = piece * piece_words;
      all ^= xor_of(words + first, std::min(piece_words, count - first));
    });
    *static_cast<std::uint32_t*>(sum.data()) ^= all.load();
    return;
  }
#if defined(QUANTLOOM_WITH_CUDA)
  const CurrentDevice current(tensor.device());
  launch_check("read_once", {{"bytes", static_cast<std::int64_t>(tensor.bytes())}}, tensor.stream(),
               kernels::read_words(tensor.data(), tensor.bytes(),
                                   static_cast<std::uint32_t*>(sum.data()), tensor.stream()));
#endif
}

}  // namespace quantloom::device
