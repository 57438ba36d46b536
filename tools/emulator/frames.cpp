#include "frames.h"

namespace quantloom::emulator {
namespace {

std::unique_ptr<Frame> make_frame(Frame* parent, std::uint32_t call_at,
                                  const FunctionCode& function, const void* parameters) {
  auto frame = std::make_unique<Frame>();
  frame->function = &function;
  frame->parent = parent;
  frame->call_at = call_at;
  if (parent != nullptr) {
    frame->depth = parent->depth + 1;
    frame->local_base =
        parent->local_base + static_cast<std::uint32_t>(parent->function->local_bytes);
  }
  // A cache line more, for the alignment that the vector instructions like.
  const std::size_t words = function.register_bytes / 8 + 8;
  frame->storage = std::make_unique_for_overwrite<std::uint64_t[]>(words);
  std::memset(frame->storage.get(), 0xff, words * 8);
  const auto begin = reinterpret_cast<std::uintptr_t>(frame->storage.get());
  frame->registers = reinterpret_cast<std::byte*>(frame->storage.get()) + (64 - begin % 64) % 64;
  frame->predicates.assign(function.predicates, 0);
  frame->predicates[1] = 0xffffffffu;
  for (const LocalConstant& constant : function.local_constants) {
    std::uint64_t value = frame->local_base + constant.offset;
    if (constant.kernel_parameter) {
      value = reinterpret_cast<std::uintptr_t>(parameters) + constant.offset;
    }
    auto* lanes = reinterpret_cast<std::uint64_t*>(frame->registers + constant.register_offset);
    for (int l = 0; l < 32; ++l) lanes[l] = value;
  }
  return frame;
}

}  // namespace

Frame* enter_frame(Warp& warp, Frame* parent, std::uint32_t call_at, const FunctionCode& function,
                   const void* parameters) {
  if (parent == nullptr) {
    warp.root = make_frame(nullptr, 0, function, parameters);
    return warp.root.get();
  }
  for (const auto& child : parent->children) {
    if (child->call_at == call_at) return child.get();
  }
  parent->children.push_back(make_frame(parent, call_at, function, parameters));
  return parent->children.back().get();
}

}  // namespace quantloom::emulator
