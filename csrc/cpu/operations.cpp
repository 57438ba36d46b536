#include "cpu/operations.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "base/error.h"
#include "base/thread_pool.h"
#include "cpu/instruction_set.h"
#include "cpu/kernels.h"
#include "cpu/products.h"
#include "cpu/sample.h"
#include "cpu/workspace.h"
#include "device/memory.h"
#include "formats/decode.h"
#include "formats/types.h"

namespace quantloom::cpu {
namespace {

using formats::type_info;

// Queries that share one pass over the keys of their head.
constexpr std::int64_t attention_queries = 64;
// A single token's long history is cut into pieces of this many positions, so that more threads
// than heads can share it; the cut does not depend on the number of threads.
constexpr std::int64_t history_piece = 1024;
constexpr std::int64_t elements_per_item = 1 << 14;

class CpuOperations final : public ops::Operations {
 public:
  CpuOperations(const Kernels& kernels, ops::Precision precision)
      : kernels_(kernels), precision_(precision), products_(kernels, precision) {}

  device::Device device() const override { return {}; }
  ops::Precision precision() const override { return precision_; }

  ops::Buffer allocate(std::size_t bytes, const char* what) override {
    return device::allocate({}, bytes, what);
  }
  ops::Buffer allocate_shared(std::size_t bytes, const char* what) override {
    ops::Buffer buffer = allocate(bytes, what);
    std::memset(buffer.get(), 0, bytes);
    return buffer;
  }
  void write(void* to, const void* host, std::size_t bytes) override {
    if (bytes != 0) std::memcpy(to, host, bytes);
  }
  void read(void* host, const void* from, std::size_t bytes) override {
    if (bytes != 0) std::memcpy(host, from, bytes);
  }
  void copy(void* to, const void* from, std::size_t bytes) override {
    if (bytes != 0) std::memmove(to, from, bytes);
  }
  void synchronize() override {}
  void set_batch_invariant(bool on) override {
    batch_invariant_ = on;
    products_.set_batch_invariant(on);
  }
  std::uint64_t mark() override { return 0; }
  void wait(std::uint64_t /*ticket*/) override {}
  void replay(std::uint64_t /*key*/, const std::function<void()>& calls) override { calls(); }

  void reserve(const ops::Limits& limits) override;
  std::vector<ops::Buffer> place(std::span<ops::Weight* const> weights,
                                 const ops::Progress& progress) override;
  std::uint64_t placed_bytes(const ops::Weight& /*weight*/) const override { return 0; }
  std::uint64_t reserved_bytes(const ops::Limits& /*limits*/) const override { return 0; }
  std::uint64_t available_bytes() const override {
    return std::numeric_limits<std::uint64_t>::max();
  }
  std::string kernel_name(const ops::Weight& weight, bool /*fused*/) const override {
    return weight.multiplied ? to_string(kernels_.set) : "decode rows";
  }

  void embed(const ops::Weight& table, const std::int32_t* tokens, std::int64_t count, float scale,
             float* out) override;
  void norm_project(const float* x, std::int64_t tokens, const ops::Norm& norm,
                    std::span<const ops::Projection> outputs) override;
  void rope_store(const ops::RopeStore& arguments) override;
  void attention(const ops::Attention& arguments) override;
  void project_add(const float* x, std::int64_t tokens, const ops::Weight& weight,
                   const float* bias, float* residual) override {
    const Product product{&weight, bias, residual, true};
    products_.run(x, tokens, nullptr, {&product, 1});
  }
  void norm_gate_up(const float* x, std::int64_t tokens, const ops::Norm& norm,
                    const ops::Weight& gate, const ops::Weight& up, ops::Activation activation,
                    float* out) override {
    products_.run_gated(x, tokens, norm, gate, up, activation, out);
  }
  void norm(const float* x, std::int64_t rows, std::int64_t width, const ops::Norm& norm,
            float* out) override;
  void project(const float* x, std::int64_t tokens, const ops::Projection& output) override {
    const Product product{output.weight, output.bias, output.out, false};
    products_.run(x, tokens, nullptr, {&product, 1});
  }
  void add(const float* a, const float* b, std::int64_t count, float* out) override;
  void activate(const float* gate, const float* up, std::int64_t count, ops::Activation activation,
                float* out) override;
  void soft_cap(float* x, std::int64_t count, float cap) override;
  void sample(const ops::Sample& arguments) override { cpu::sample(arguments); }

 private:
  // Calls part(begin, end) for ranges that cover 0 .. count - 1.
  template <class Function>
  void in_parts(std::int64_t count, std::int64_t step, Function part) {
    parallel_for((count + step - 1) / step, [&](std::int64_t item, int) {
      part(item * step, std::min((item + 1) * step, count));
    });
  }

  void reserve_attention(std::int64_t queries, int head_size);
  void attend_in_pieces(const ops::Attention& arguments, std::int64_t position);

  const Kernels& kernels_;
  const ops::Precision precision_;
  bool batch_invariant_ = false;
  Products products_;
  std::vector<Product> list_;
  std::vector<Scratch> attention_scratch_;
  Scratch angles_{"rotary angles"};
  Scratch partial_{"partial attention"};
};

// Of AttentionBlock::scratch.
std::int64_t attention_floats(std::int64_t queries, int head_size) {
  const std::int64_t padded = (head_size + 15) / 16 * 16;
  return queries * (2 * padded + key_block + 2) + 2 * key_block * padded;
}

void CpuOperations::reserve(const ops::Limits& limits) {
  products_.reserve(limits.tokens, limits.width);
  list_.reserve(8);
  reserve_attention(std::max<std::int64_t>(attention_queries, limits.heads), limits.head_size);
  angles_.get<float>(limits.tokens * limits.head_size);
  const std::int64_t pieces = (limits.context + history_piece - 1) / history_piece + 1;
  partial_.get<float>(pieces * limits.heads * (limits.head_size + 2));
}

std::vector<ops::Buffer> CpuOperations::place(std::span<ops::Weight* const> weights,
                                              const ops::Progress& progress) {
  std::uint64_t total = 0;
  for (const ops::Weight* weight : weights) {
    const formats::TypeInfo* info = type_info(static_cast<std::uint32_t>(weight->format));
    if (info == nullptr || info->state != formats::TypeState::served) {
      throw Error(ErrorKind::device,
                  "tensor " + weight->name + " has the type " +
                      (info == nullptr ? "?" : info->name) + ", which no CPU kernel serves",
                  weight->name);
    }
    total += static_cast<std::uint64_t>(weight->rows) *
             static_cast<std::uint64_t>(weight->columns / info->elements) * info->bytes;
  }
  if (progress) progress(total, total);
  return {};
}

void CpuOperations::embed(const ops::Weight& table, const std::int32_t* tokens, std::int64_t count,
                          float scale, float* out) {
  const formats::TypeInfo& info = *type_info(static_cast<std::uint32_t>(table.format));
  const std::int64_t bytes = table.columns / info.elements * info.bytes;
  in_parts(count, 8, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      const auto* blocks = static_cast<const std::byte*>(table.blocks) + tokens[i] * bytes;
      float* row = out + i * table.columns;
      static_cast<void>(formats::decode_row(table.format, blocks, table.columns, row));
      if (scale != 1.0f) kernels_.scale(row, table.columns, scale);
    }
  });
}

void CpuOperations::norm_project(const float* x, std::int64_t tokens, const ops::Norm& norm,
                                 std::span<const ops::Projection> outputs) {
  list_.clear();
  for (const ops::Projection& output : outputs) {
    list_.push_back({output.weight, output.bias, output.out, false});
  }
  products_.run(x, tokens, &norm, list_);
}

void CpuOperations::norm(const float* x, std::int64_t rows, std::int64_t width,
                         const ops::Norm& norm, float* out) {
  in_parts(rows, 16, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      kernels_.rms_norm(x + row * width, width, norm, out + row * width);
    }
  });
}

void CpuOperations::rope_store(const ops::RopeStore& arguments) {
  const ops::CacheLayer& cache = arguments.cache;
  const std::int64_t tokens = arguments.positions.count;
  const std::int64_t first = *arguments.positions.first;
  const int size = cache.head_size;
  const int half = arguments.rope.dimensions / 2;
  auto* angles = angles_.get<float>(tokens * 2 * half);
  in_parts(tokens, 8, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t t = begin; t < end; ++t) {
      float* cosines = angles + t * 2 * half;
      float* sines = cosines + half;
      const float* table = arguments.rope.table + (first + t) * 2 * half;
      for (int i = 0; i < half; ++i) {
        cosines[i] = table[2 * i];
        sines[i] = table[2 * i + 1];
      }
      const auto turn = [&](float* heads, int count, const ops::Norm& norm) {
        for (int h = 0; h < count; ++h) {
          float* head = heads + (t * count + h) * size;
          if (norm.weight != nullptr) kernels_.rms_norm(head, size, norm, head);
          kernels_.rotate(head, cosines, sines, 2 * half, arguments.rope.interleaved);
        }
      };
      turn(arguments.q, arguments.heads, arguments.q_norm);
      turn(arguments.k, cache.kv_heads, arguments.k_norm);
      const std::int64_t element = cache.type == ops::CacheType::f32   ? 4
                                   : cache.type == ops::CacheType::f16 ? 2
                                                                       : 1;
      for (int h = 0; h < cache.kv_heads; ++h) {
        const std::int64_t row = h * cache.capacity + first + t;
        const std::int64_t source = (t * cache.kv_heads + h) * size;
        const auto store = [&](const float* values, void* rows, void* scales) {
          auto* to = static_cast<std::byte*>(rows) + row * size * element;
          auto* halves = static_cast<std::uint16_t*>(scales);
          kernels_.store_cache_row(values + source, size, cache.type, to,
                                   halves == nullptr ? nullptr : halves + row * (size / 32));
        };
        store(arguments.k, cache.keys, cache.key_scales);
        store(arguments.v, cache.values, cache.value_scales);
      }
    }
  });
}

void CpuOperations::reserve_attention(std::int64_t queries, int head_size) {
  const auto count = static_cast<std::size_t>(thread_count());
  while (attention_scratch_.size() < count) attention_scratch_.emplace_back("attention");
  for (Scratch& scratch : attention_scratch_) {
    scratch.get<float>(attention_floats(queries, head_size));
  }
}

void CpuOperations::attention(const ops::Attention& arguments) {
  const ops::CacheLayer& cache = arguments.cache;
  const std::int64_t tokens = arguments.positions.count;
  const std::int64_t first = *arguments.positions.first;
  const std::int64_t group = arguments.heads / cache.kv_heads;
  const std::int64_t step = std::max<std::int64_t>(1, attention_queries / group);
  reserve_attention(step * group, cache.head_size);
  if (tokens == 1 && first + 1 > history_piece && !batch_invariant_)
    return attend_in_pieces(arguments, first);

  const std::int64_t blocks = (tokens + step - 1) / step;
  parallel_for(
      blocks * cache.kv_heads,
      [&](std::int64_t item, int thread) {
        AttentionBlock block;
        block.arguments = &arguments;
        block.kv_head = static_cast<int>(item % cache.kv_heads);
        // The last tokens see the most: they go first, so that no thread ends alone with one.
        block.first_token = (blocks - 1 - item / cache.kv_heads) * step;
        block.tokens = std::min(step, tokens - block.first_token);
        block.first_position = first + block.first_token;
        block.end = block.first_position + block.tokens;
        if (arguments.window > 0) {
          block.begin = std::max<std::int64_t>(0, block.first_position + 1 - arguments.window);
        }
        block.scratch = attention_scratch_[static_cast<std::size_t>(thread)].get<float>(
            attention_floats(step * group, cache.head_size));
        kernels_.attend(block);
      },
      static_cast<int>(attention_scratch_.size()));
}

void CpuOperations::attend_in_pieces(const ops::Attention& arguments, std::int64_t position) {
  const ops::CacheLayer& cache = arguments.cache;
  const int size = cache.head_size;
  const std::int64_t group = arguments.heads / cache.kv_heads;
  const std::int64_t begin =
      arguments.window > 0 ? std::max<std::int64_t>(0, position + 1 - arguments.window) : 0;
  const std::int64_t first_piece = begin / history_piece;
  const std::int64_t pieces = position / history_piece - first_piece + 1;
  const std::int64_t record = size + 2;
  auto* partial = partial_.get<float>(pieces * arguments.heads * record);
  parallel_for(
      pieces * cache.kv_heads,
      [&](std::int64_t item, int thread) {
        AttentionBlock block;
        block.arguments = &arguments;
        block.kv_head = static_cast<int>(item % cache.kv_heads);
        const std::int64_t piece = item / cache.kv_heads;
        block.tokens = 1;
        block.first_position = position;
        block.begin = std::max(begin, (first_piece + piece) * history_piece);
        block.end = std::min(position + 1, (first_piece + piece + 1) * history_piece);
        block.scratch = attention_scratch_[static_cast<std::size_t>(thread)].get<float>(
            attention_floats(group, size));
        block.partial = partial + (piece * arguments.heads + block.kv_head * group) * record;
        kernels_.attend(block);
      },
      static_cast<int>(attention_scratch_.size()));
  for (int head = 0; head < arguments.heads; ++head) {
    float highest = -std::numeric_limits<float>::infinity();
    for (std::int64_t piece = 0; piece < pieces; ++piece) {
      highest = std::fmax(highest, partial[(piece * arguments.heads + head) * record]);
    }
    float* out = arguments.out + head * size;
    std::fill(out, out + size, 0.0f);
    float total = 0;
    for (std::int64_t piece = 0; piece < pieces; ++piece) {
      const float* part = partial + (piece * arguments.heads + head) * record;
      const float factor = std::exp(part[0] - highest);
      total += factor * part[1];
      for (int d = 0; d < size; ++d) out[d] += factor * part[2 + d];
    }
    for (int d = 0; d < size; ++d) out[d] /= total;
  }
}

void CpuOperations::add(const float* a, const float* b, std::int64_t count, float* out) {
  in_parts(count, elements_per_item, [&](std::int64_t begin, std::int64_t end) {
    kernels_.add(a + begin, b + begin, end - begin, out + begin);
  });
}

void CpuOperations::activate(const float* gate, const float* up, std::int64_t count,
                             ops::Activation activation, float* out) {
  in_parts(count, elements_per_item, [&](std::int64_t begin, std::int64_t end) {
    kernels_.activate(gate + begin, up + begin, end - begin, activation, out + begin);
  });
}

void CpuOperations::soft_cap(float* x, std::int64_t count, float cap) {
  in_parts(count, elements_per_item, [&](std::int64_t begin, std::int64_t end) {
    kernels_.soft_cap(x + begin, end - begin, cap);
  });
}

}  // namespace

std::unique_ptr<ops::Operations> make_operations(ops::Precision precision) {
  return std::make_unique<CpuOperations>(kernels(instruction_set()), precision);
}

}  // namespace quantloom::cpu
