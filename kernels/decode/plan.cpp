// How a program's work is given to blocks and what their shared memory holds.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <queue>
#include <vector>

#include "decode/connect.h"
#include "decode/decode.h"
#include "decode/formats.h"
#include "decode/sizes.h"
#include "matmul/geometry.h"

namespace quantloom::kernels {
namespace {

struct Device {
  int blocks = 0, shared_bytes = 0;
};

Device current_device() {
  int device = 0, major = 0, cooperative = 0;
  Device found;
  const auto read = [&](int& value, cudaDeviceAttr attribute) {
    return cudaDeviceGetAttribute(&value, attribute, device) == cudaSuccess;
  };
  if (cudaGetDevice(&device) != cudaSuccess || !read(major, cudaDevAttrComputeCapabilityMajor) ||
      !read(cooperative, cudaDevAttrCooperativeLaunch) || major != 9 || cooperative == 0 ||
      !read(found.blocks, cudaDevAttrMultiProcessorCount) ||
      !read(found.shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin)) {
    return {};
  }
  return found;
}

bool complete(DecodeProduct& product, const DecodeStep* before, int blocks) {
  const DecodeTraits traits = decode_traits(product.format);
  if (traits.elements == 0 || product.columns % traits.elements != 0 || product.columns % 32 != 0) {
    return false;
  }
  product.pieces = (product.columns + piece_columns - 1) / piece_columns;
  product.inverse_columns = 1.0f / static_cast<float>(product.columns);
  product.piece_bytes = strip_rows * traits.block_bytes * (piece_columns / traits.elements);
  product.tail_bytes = strip_rows * traits.block_bytes *
                       ((product.columns - (product.pieces - 1) * piece_columns) / traits.elements);
  // Products with this epilogue share x with no other, so that their units lie evenly.
  const bool one_strip =
      product.epilogue == MatmulEpilogue::add && units_of(product) <= blocks;  // a block
  product.own_columns = product.pieces <= decode_warps &&
                        product.tail_bytes == product.piece_bytes &&
                        ((product.pieces & (product.pieces - 1)) == 0 || one_strip);
  product.sums = traits.sums;
  if (product.epilogue != MatmulEpilogue::gate_up) {
    int strips = 0;
    for (int i = 0; i < product.weight_count; ++i) {
      product.first[i] = strips;
      strips += strips_of(product.weights[i]);
    }
  }
  // What the step before converted serves where it is the same x with the sums wanted.
  if (before != nullptr && before->kind == DecodeStepKind::product) {
    const DecodeProduct& other = before->product;
    product.shares_x = other.x == product.x && other.norm == product.norm &&
                       other.epsilon == product.epsilon && other.columns == product.columns &&
                       other.epilogue == MatmulEpilogue::store &&
                       product.epilogue == MatmulEpilogue::store &&
                       (product.sums == XSums::none || product.sums == other.sums);
  }
  return true;
}

std::int64_t unit_bytes(const DecodeProduct& product) {
  const std::int64_t strip =
      static_cast<std::int64_t>(product.pieces - 1) * product.piece_bytes + product.tail_bytes;
  return product.epilogue == MatmulEpilogue::gate_up ? 2 * strip : strip;
}

// The largest units first, each to the block that has the fewest bytes.
void share_by_bytes(const std::vector<DecodeProduct*>& products, int blocks,
                    std::vector<std::vector<int>>& counts) {
  std::vector<std::size_t> order(products.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    return unit_bytes(*products[a]) > unit_bytes(*products[b]);
  });
  using Load = std::pair<std::int64_t, int>;  // bytes, block
  std::priority_queue<Load, std::vector<Load>, std::greater<>> loads;
  for (int b = 0; b < blocks; ++b) loads.emplace(0, b);
  for (const std::size_t i : order) {
    // Two that stand side by side have the columns of a group.
    const int together = products[i]->out_is_fixed ? 2 : 1;
    for (int left = units_of(*products[i]); left > 0; left -= together) {
      const Load least = loads.top();
      loads.pop();
      counts[i][static_cast<std::size_t>(least.second)] += together;
      loads.emplace(least.first + together * unit_bytes(*products[i]), least.second);
    }
  }
}

// Each product to blocks of its own, with at most `most` units a block.
bool share_apart(const std::vector<DecodeProduct*>& products, int blocks, int most,
                 std::vector<std::vector<int>>& counts) {
  std::vector<int> own;
  int taken = 0;
  for (const DecodeProduct* product : products) {
    own.push_back((units_of(*product) + most - 1) / most);
    taken += own.back();
  }
  if (taken > blocks) return false;
  std::size_t widest = 0;  // the most units
  for (std::size_t i = 1; i < products.size(); ++i) {
    if (units_of(*products[i]) > units_of(*products[widest])) widest = i;
  }
  own[widest] += std::min(blocks - taken, units_of(*products[widest]) - own[widest]);
  int block = 0;
  for (std::size_t i = 0; i < products.size(); ++i) {
    const int units = units_of(*products[i]);
    for (int b = 0; b < own[i]; ++b, ++block) {
      counts[i][static_cast<std::size_t>(block)] = units / own[i] + (b < units % own[i] ? 1 : 0);
    }
  }
  return true;
}

// Products of the same x, shared out together. A block does best with strips of one of them: each
// step costs it a microsecond or two beside its weights. But where one is the other's gate, which
// its sums wait for, each block has its part of both, the gate's first: in an 8B model apart were
// 1.9 us a layer slower.
bool share_out(DecodeStep* steps, int count, int blocks, DecodeShare* shares) {
  std::vector<DecodeProduct*> products;
  std::int64_t total = 0;
  bool gated = false;
  for (int i = 0; i < count; ++i) {
    products.push_back(&steps[i].product);
    gated = gated || products.back()->gated;
    if (units_of(*products.back()) > 65535) return false;
    total += units_of(*products.back());
  }
  const std::vector<std::vector<int>> none(products.size(),
                                           std::vector<int>(static_cast<std::size_t>(blocks)));
  std::vector<std::vector<int>> counts = none;
  const int most = static_cast<int>((total + blocks - 1) / blocks);
  if (count == 1 || gated || !share_apart(products, blocks, most, counts)) {
    counts = none;
    share_by_bytes(products, blocks, counts);
  }
  std::vector<int> next(products.size());  // unit of each product
  for (int b = 0; b < blocks; ++b) {
    const auto block = static_cast<std::size_t>(b);
    int most_units = 0;
    for (const std::vector<int>& count : counts) most_units = std::max(most_units, count[block]);
    for (std::size_t i = 0; i < products.size(); ++i) {
      const int own = counts[i][block];
      shares[products[i]->share + b] = {static_cast<std::uint16_t>(next[i]),
                                        static_cast<std::uint16_t>(own),
                                        static_cast<std::uint16_t>(own > 0 ? most_units : 0), 0, 0};
      next[i] += own;
      if (own > 0) most_units = 0;  // the others find it converted
    }
  }
  return true;
}

// What each block has had before each step.
void count_before(const DecodeStep* steps, int step_count, int blocks, DecodeShare* shares) {
  for (int b = 0; b < blocks; ++b) {
    int stages = 0, batches = 0;
    for (int i = 0; i < step_count; ++i) {
      DecodeShare& share = shares[i * blocks + b];
      share.stages_before = static_cast<std::uint8_t>(stages);
      share.batches_before = static_cast<std::uint8_t>(batches);
      if (steps[i].kind == DecodeStepKind::attention) continue;
      const DecodeProduct& product = steps[i].product;
      const int strips = strips_of(product, share);
      stages += (strips * product.pieces + stage_pieces - 1) / stage_pieces;
      batches += (strips + decode_batch_strips - 1) / decode_batch_strips;
    }
  }
}

}  // namespace

int decode_blocks() { return current_device().blocks; }

namespace {

bool has_head_size(int head_size) {
  switch (head_size) {
#define QL_CASE(size) case size:
    QL_DECODE_HEAD_SIZES(QL_CASE)
#undef QL_CASE
    return true;
    default:
      return false;
  }
}

}  // namespace

bool decode_serves(const DecodeAttention& a) {
  const Cache& cache = a.attention.cache;
  return a.attention.tokens == 1 && cache.type != CacheType::f32 &&
         has_head_size(cache.head_size) && a.rope.dimensions % 2 == 0 &&
         a.rope.heads == a.attention.heads && a.rope.q == a.attention.q &&
         a.rope.first == a.attention.first && a.rope.cache.keys == cache.keys &&
         a.rope.cache.values == cache.values;
}

bool decode_plan(DecodeStep* steps, int step_count, void* exchange, DecodeShare* shares,
                 DecodeProgram& program) {
  const Device device = current_device();
  if (device.blocks == 0 || step_count == 0) return false;
  int columns = decode_warps * piece_columns, most_bytes = 0, table_bytes = 0;
  bool per_16 = false, has_attention = false;
  if (!connect(steps, step_count, device.blocks, exchange)) return false;
  for (int i = 0; i < step_count; ++i) {
    if (steps[i].kind == DecodeStepKind::attention) {
      has_attention = true;
      const Cache& cache = steps[i].attention.attention.cache;
      steps[i].kernel = attention_kernel(cache.head_size, cache.type == CacheType::q8_0);
      continue;
    }
    DecodeProduct& product = steps[i].product;
    product.share = i * device.blocks;
    if (!complete(product, i > 0 ? &steps[i - 1] : nullptr, device.blocks)) return false;
    steps[i].kernel = product_kernel(product.format, product.own_columns);
    columns = std::max(columns, product.pieces * piece_columns);
    per_16 = per_16 || product.sums == XSums::per_16;
    most_bytes = std::max(most_bytes, product.piece_bytes);
    table_bytes = std::max(table_bytes, decode_traits(product.format).table_bytes);
  }
  for (int i = 0; i < step_count;) {
    if (steps[i].kind == DecodeStepKind::attention) {
      ++i;
      continue;
    }
    int count = 1;
    while (i + count < step_count && steps[i + count].kind == DecodeStepKind::product &&
           steps[i + count].product.shares_x) {
      ++count;
    }
    if (!share_out(steps + i, count, device.blocks, shares)) return false;
    i += count;
  }
  count_before(steps, step_count, device.blocks, shares);

  DecodeLayout& layout = program.layout;
  const auto align = [](int at) { return (at + 127) / 128 * 128; };
  layout.table_bytes = table_bytes;
  layout.x_scales = 2 * columns;
  layout.x_sums = layout.x_scales + columns / 8;
  layout.partial = align(layout.x_sums + columns / (per_16 ? 4 : 8));
  layout.ring =
      align(layout.partial + sum_buffers * decode_batch_strips * decode_warps * strip_rows * 4);
  if (has_attention) layout.ring = std::max(layout.ring, align(attention_scratch_bytes));
  layout.ring_bytes =
      (device.shared_bytes - decode_static_bytes - layout.table_bytes - layout.ring) / 128 * 128;
  layout.bytes = layout.table_bytes + layout.ring + layout.ring_bytes;
  program.step_count = step_count;
  program.blocks = device.blocks;
  return layout.ring_bytes >= 2 * stage_pieces * most_bytes;
}

}  // namespace quantloom::kernels
