// Moves: of special registers, of parts of a register, and those that the decoder adds.
#include "decoder.h"
#include "values.h"

namespace quantloom::emulator {
namespace {

enum class Special : std::uint8_t {
  tid_x,
  tid_y,
  tid_z,
  ntid_x,
  ntid_y,
  ntid_z,
  ctaid_x,
  ctaid_y,
  ctaid_z,
  nctaid_x,
  nctaid_y,
  nctaid_z,
  laneid,
  warpid,
  nwarpid,
  smid,
  nsmid,
  gridid,
  clock,
  clock_hi,
  clock64,
  globaltimer,
  globaltimer_lo,
  globaltimer_hi,
  lanemask_eq,
  lanemask_le,
  lanemask_lt,
  lanemask_ge,
  lanemask_gt,
  dynamic_smem_size,
  total_smem_size,
  clusterid_x,
  clusterid_y,
  clusterid_z,
  nclusterid_x,
  nclusterid_y,
  nclusterid_z,
  cluster_ctaid_x,
  cluster_ctaid_y,
  cluster_ctaid_z,
  cluster_nctaid_x,
  cluster_nctaid_y,
  cluster_nctaid_z,
  cluster_ctarank,
  cluster_nctarank,
  is_explicit_cluster,
};

constexpr std::pair<const char*, Special> names[] = {
    {"%tid.x", Special::tid_x},
    {"%tid.y", Special::tid_y},
    {"%tid.z", Special::tid_z},
    {"%ntid.x", Special::ntid_x},
    {"%ntid.y", Special::ntid_y},
    {"%ntid.z", Special::ntid_z},
    {"%ctaid.x", Special::ctaid_x},
    {"%ctaid.y", Special::ctaid_y},
    {"%ctaid.z", Special::ctaid_z},
    {"%nctaid.x", Special::nctaid_x},
    {"%nctaid.y", Special::nctaid_y},
    {"%nctaid.z", Special::nctaid_z},
    {"%laneid", Special::laneid},
    {"%warpid", Special::warpid},
    {"%nwarpid", Special::nwarpid},
    {"%smid", Special::smid},
    {"%nsmid", Special::nsmid},
    {"%gridid", Special::gridid},
    {"%clock", Special::clock},
    {"%clock_hi", Special::clock_hi},
    {"%clock64", Special::clock64},
    {"%globaltimer", Special::globaltimer},
    {"%globaltimer_lo", Special::globaltimer_lo},
    {"%globaltimer_hi", Special::globaltimer_hi},
    {"%lanemask_eq", Special::lanemask_eq},
    {"%lanemask_le", Special::lanemask_le},
    {"%lanemask_lt", Special::lanemask_lt},
    {"%lanemask_ge", Special::lanemask_ge},
    {"%lanemask_gt", Special::lanemask_gt},
    {"%dynamic_smem_size", Special::dynamic_smem_size},
    {"%total_smem_size", Special::total_smem_size},
    {"%clusterid.x", Special::clusterid_x},
    {"%clusterid.y", Special::clusterid_y},
    {"%clusterid.z", Special::clusterid_z},
    {"%nclusterid.x", Special::nclusterid_x},
    {"%nclusterid.y", Special::nclusterid_y},
    {"%nclusterid.z", Special::nclusterid_z},
    {"%cluster_ctaid.x", Special::cluster_ctaid_x},
    {"%cluster_ctaid.y", Special::cluster_ctaid_y},
    {"%cluster_ctaid.z", Special::cluster_ctaid_z},
    {"%cluster_nctaid.x", Special::cluster_nctaid_x},
    {"%cluster_nctaid.y", Special::cluster_nctaid_y},
    {"%cluster_nctaid.z", Special::cluster_nctaid_z},
    {"%cluster_ctarank", Special::cluster_ctarank},
    {"%cluster_nctarank", Special::cluster_nctarank},
    {"%is_explicit_cluster", Special::is_explicit_cluster},
};

std::uint64_t nanoseconds() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(now).count());
}

// The device's seconds pass slower than the host's: a kernel's time limits are those of a GPU.
constexpr std::uint64_t slowness = 256;

u64 value_of(const Context& c, Special which, unsigned lane) {
  const Launch& launch = *c.launch;
  const Block& block = *c.block;
  switch (which) {
    case Special::tid_x:
      return c.warp->tid_x[lane];
    case Special::tid_y:
      return c.warp->tid_y[lane];
    case Special::tid_z:
      return c.warp->tid_z[lane];
    case Special::ntid_x:
      return launch.block.x;
    case Special::ntid_y:
      return launch.block.y;
    case Special::ntid_z:
      return launch.block.z;
    case Special::ctaid_x:
      return block.at.x;
    case Special::ctaid_y:
      return block.at.y;
    case Special::ctaid_z:
      return block.at.z;
    case Special::nctaid_x:
      return launch.grid.x;
    case Special::nctaid_y:
      return launch.grid.y;
    case Special::nctaid_z:
      return launch.grid.z;
    case Special::laneid:
      return lane;
    case Special::warpid:
      return c.warp->index;
    case Special::nwarpid:
      return block.warps.size();
    case Special::smid:
      return block.number % 132;
    case Special::nsmid:
      return 132;
    case Special::gridid:
      return 1;
    case Special::clock:
      return nanoseconds() & 0xffffffffu;
    case Special::clock_hi:
      return nanoseconds() >> 32;
    case Special::clock64:
      return nanoseconds();
    case Special::globaltimer:
      return nanoseconds() / slowness;
    case Special::globaltimer_lo:
      return (nanoseconds() / slowness) & 0xffffffffu;
    case Special::globaltimer_hi:
      return (nanoseconds() / slowness) >> 32;
    case Special::lanemask_eq:
      return 1u << lane;
    case Special::lanemask_le:
      return all_lanes >> (31 - lane);
    case Special::lanemask_lt:
      return (1u << lane) - 1;
    case Special::lanemask_ge:
      return all_lanes << lane;
    case Special::lanemask_gt:
      return all_lanes << lane << 1;
    case Special::dynamic_smem_size:
      return launch.dynamic_shared_bytes;
    case Special::total_smem_size:
      return block.shared_end - shared_begin;
    case Special::clusterid_x:
      return block.at.x / launch.cluster.x;
    case Special::clusterid_y:
      return block.at.y / launch.cluster.y;
    case Special::clusterid_z:
      return block.at.z / launch.cluster.z;
    case Special::nclusterid_x:
      return launch.grid.x / launch.cluster.x;
    case Special::nclusterid_y:
      return launch.grid.y / launch.cluster.y;
    case Special::nclusterid_z:
      return launch.grid.z / launch.cluster.z;
    case Special::cluster_ctaid_x:
      return block.at_in_cluster.x;
    case Special::cluster_ctaid_y:
      return block.at_in_cluster.y;
    case Special::cluster_ctaid_z:
      return block.at_in_cluster.z;
    case Special::cluster_nctaid_x:
      return launch.cluster.x;
    case Special::cluster_nctaid_y:
      return launch.cluster.y;
    case Special::cluster_nctaid_z:
      return launch.cluster.z;
    case Special::cluster_ctarank:
      return block.rank;
    case Special::cluster_nctarank:
      return launch.cluster.x * launch.cluster.y * launch.cluster.z;
    case Special::is_explicit_cluster:
      return c.cluster->blocks.size() > 1;
  }
  return 0;
}

template <typename T>
void read_special(Context& c, const Instruction& i, u32 mask) {
  const auto which = static_cast<Special>(i.mode);
  for_lanes(mask,
            [&](unsigned l) { write<T>(c, i.op[0], l, static_cast<T>(value_of(c, which, l))); });
  // Who looks at a clock may be waiting.
  if (which == Special::globaltimer or which == Special::clock64) c.charge(50);
}

// {a, b} to one register: the first is the lowest part.
template <unsigned parts, unsigned bits>
void pack(Context& c, const Instruction& i, u32 mask) {
  using D = std::conditional_t<parts * bits == 64, u64, u32>;
  const u32* from = c.frame->function->lists.data() + i.list;
  for_lanes(mask, [&](unsigned l) {
    u64 value = 0;
    for (unsigned n = 0; n < parts; ++n) {
      value |= (u64{c.at<const u32>(from[n])[l]} & ((u64{1} << bits) - 1)) << bits * n;
    }
    write<D>(c, i.op[0], l, static_cast<D>(value));
  });
}
template <unsigned parts, unsigned bits>
void unpack(Context& c, const Instruction& i, u32 mask) {
  using A = std::conditional_t<parts * bits == 64, u64, u32>;
  const u32* to = c.frame->function->lists.data() + i.list;
  for_lanes(mask, [&](unsigned l) {
    const u64 value = read<A>(c, i.op[1], l);
    for (unsigned n = 0; n < parts; ++n) {
      if (to[n] == no_operand) continue;
      c.at<u32>(to[n])[l] = static_cast<u32>((value >> bits * n) & ((u64{1} << bits) - 1));
    }
  });
}

}  // namespace

std::optional<std::uint8_t> special_register(std::string_view name, bool& wide) {
  for (const auto& [text, which] : names) {
    if (name != text) continue;
    wide = which == Special::clock64 or which == Special::globaltimer or which == Special::gridid;
    return static_cast<std::uint8_t>(which);
  }
  return std::nullopt;
}
Handler special_handler(bool wide) { return wide ? read_special<u64> : read_special<u32>; }

Handler widen_handler(bool is_signed) {
  if (is_signed) return unary<s64, s32, [](s32 a) { return static_cast<s64>(a); }>;
  return unary<u64, u32, [](u32 a) { return static_cast<u64>(a); }>;
}
Handler narrow_handler() {
  return unary<u32, u64, [](u64 a) { return static_cast<u32>(a); }>;
}
Handler add_handler(bool wide) {
  if (wide) return binary<u64, u64, u64, [](u64 a, u64 b) { return a + b; }>;
  return binary<u32, u32, u32, [](u32 a, u32 b) { return a + b; }>;
}
Handler negate_predicate_handler() {
  return [](Context& c, const Instruction& i, u32 mask) {
    write_predicate(c, i.op[0], mask, ~c.predicates[i.op[1]]);
  };
}
Handler pack_handler(unsigned parts, unsigned bits) {
  if (parts == 2 and bits == 32) return pack<2, 32>;
  if (parts == 2 and bits == 16) return pack<2, 16>;
  if (parts == 4 and bits == 16) return pack<4, 16>;
  if (parts == 4 and bits == 8) return pack<4, 8>;
  return nullptr;
}
Handler unpack_handler(unsigned parts, unsigned bits) {
  if (parts == 2 and bits == 32) return unpack<2, 32>;
  if (parts == 2 and bits == 16) return unpack<2, 16>;
  if (parts == 4 and bits == 16) return unpack<4, 16>;
  if (parts == 4 and bits == 8) return unpack<4, 8>;
  return nullptr;
}

}  // namespace quantloom::emulator
