// What the lanes of a warp do together: shuffles, votes, matches, reductions.
#include <algorithm>

#include "forms.h"
#include "values.h"

namespace quantloom::emulator {
namespace {

enum class Shuffle { up, down, butterfly, index };

// d|p, a, b, c, members
template <Shuffle kind>
void shuffle(Context& c, const Instruction& i, u32 mask) {
  u32 source[32], from[32], inside = 0;
  std::memcpy(source, c.at<const u32>(i.op[2]), sizeof source);
  const auto *distances = c.at<const u32>(i.op[3]), *clamps = c.at<const u32>(i.op[4]);
  for (u32 l = 0; l < 32; ++l) {
    const u32 distance = distances[l] & 31u, segment = clamps[l] >> 8 & 31u;
    const u32 last = (l & segment) | (clamps[l] & 31u & ~segment);
    u32 lane = l + distance;
    if constexpr (kind == Shuffle::up) lane = l - distance;
    if constexpr (kind == Shuffle::butterfly) lane = l ^ distance;
    if constexpr (kind == Shuffle::index) lane = (l & segment) | (distance & ~segment);
    // A lane below zero is a large number, but signed.
    const bool valid =
        kind == Shuffle::up ? static_cast<s32>(lane) >= static_cast<s32>(last) : lane <= last;
    from[l] = valid ? lane : l;
    inside |= static_cast<u32>(valid) << l;
  }
  auto* d = c.at<u32>(i.op[0]);
  if (mask == all_lanes) {
    for (u32 l = 0; l < 32; ++l) d[l] = source[from[l] & 31u];
  } else {
    for_lanes(mask, [&](unsigned l) { d[l] = source[from[l] & 31u]; });
  }
  write_predicate(c, i.op[1], mask, inside);
}

template <auto f>
void vote(Context& c, const Instruction& i, u32 mask) {
  write_predicate(c, i.op[0], mask, f(c.predicates[i.op[1]] & mask, mask) ? all_lanes : 0);
}
void ballot(Context& c, const Instruction& i, u32 mask) {
  const u32 bits = c.predicates[i.op[1]] & mask;
  for_lanes(mask, [&](unsigned l) { write<u32>(c, i.op[0], l, bits); });
}

template <typename T>
void match_any(Context& c, const Instruction& i, u32 mask) {
  u32 results[32] = {};
  for_lanes(mask, [&](unsigned l) {
    for_lanes(mask, [&](unsigned k) {
      if (read<T>(c, i.op[1], l) == read<T>(c, i.op[1], k)) results[l] |= 1u << k;
    });
  });
  for_lanes(mask, [&](unsigned l) { write<u32>(c, i.op[0], l, results[l]); });
}
template <typename T>
void match_all(Context& c, const Instruction& i, u32 mask) {
  const T first = read<T>(c, i.op[2], first_lane(mask));
  bool same = true;
  for_lanes(mask, [&](unsigned l) { same = same and read<T>(c, i.op[2], l) == first; });
  for_lanes(mask, [&](unsigned l) { write<u32>(c, i.op[0], l, same ? mask : 0); });
  write_predicate(c, i.op[1], mask, same ? all_lanes : 0);
}

template <typename T, auto f>
void reduce(Context& c, const Instruction& i, u32 mask) {
  T value = read<T>(c, i.op[1], first_lane(mask));
  for_lanes(mask & (mask - 1), [&](unsigned l) { value = f(value, read<T>(c, i.op[1], l)); });
  for_lanes(mask, [&](unsigned l) { write<T>(c, i.op[0], l, value); });
}

void elect(Context& c, const Instruction& i, u32 mask) {
  const unsigned first = first_lane(mask);
  for_lanes(mask, [&](unsigned l) { write<u32>(c, i.op[0], l, first); });
  write_predicate(c, i.op[1], mask, 1u << first);
}

}  // namespace

void add_warp_forms(Forms& forms) {
  const auto meet = [&](const char* name, Handler handler, const char* operands,
                        std::uint8_t members) {
    forms[name] = {handler, operands, Kind::meet, 0, members};
  };
  meet("shfl.sync.up.b32", shuffle<Shuffle::up>, "WQwwww", 5);
  meet("shfl.sync.down.b32", shuffle<Shuffle::down>, "WQwwww", 5);
  meet("shfl.sync.bfly.b32", shuffle<Shuffle::butterfly>, "WQwwww", 5);
  meet("shfl.sync.idx.b32", shuffle<Shuffle::index>, "WQwwww", 5);
  meet("vote.sync.all.pred", vote<[](u32 votes, u32 all) { return votes == all; }>, "Ppw", 2);
  meet("vote.sync.any.pred", vote<[](u32 votes, u32) { return votes != 0; }>, "Ppw", 2);
  meet("vote.sync.uni.pred", vote<[](u32 votes, u32 all) { return votes == 0 or votes == all; }>,
       "Ppw", 2);
  meet("vote.sync.ballot.b32", ballot, "Wpw", 2);
  meet("match.any.sync.b32", match_any<u32>, "Www", 2);
  meet("match.any.sync.b64", match_any<u64>, "Wxw", 2);
  meet("match.all.sync.b32", match_all<u32>, "WQww", 3);
  meet("match.all.sync.b64", match_all<u64>, "WQxw", 3);
  meet("elect.sync", elect, "WQw", 2);
  forms["bar.warp.sync"] = {[](Context&, const Instruction&, u32) {}, "w", Kind::meet,
                            meets_anywhere};
  meet("redux.sync.add.u32", reduce<u32, [](u32 a, u32 b) { return a + b; }>, "Www", 2);
  meet("redux.sync.add.s32", reduce<u32, [](u32 a, u32 b) { return a + b; }>, "Www", 2);
  meet("redux.sync.min.u32", reduce<u32, [](u32 a, u32 b) { return std::min(a, b); }>, "Www", 2);
  meet("redux.sync.max.u32", reduce<u32, [](u32 a, u32 b) { return std::max(a, b); }>, "Www", 2);
  meet("redux.sync.min.s32", reduce<s32, [](s32 a, s32 b) { return std::min(a, b); }>, "Www", 2);
  meet("redux.sync.max.s32", reduce<s32, [](s32 a, s32 b) { return std::max(a, b); }>, "Www", 2);
  meet("redux.sync.and.b32", reduce<u32, [](u32 a, u32 b) { return a & b; }>, "Www", 2);
  meet("redux.sync.or.b32", reduce<u32, [](u32 a, u32 b) { return a | b; }>, "Www", 2);
  meet("redux.sync.xor.b32", reduce<u32, [](u32 a, u32 b) { return a ^ b; }>, "Www", 2);
  forms["activemask.b32"] = {[](Context& c, const Instruction& i, u32 mask) {
                               for_lanes(mask,
                                         [&](unsigned l) { write<u32>(c, i.op[0], l, mask); });
                             },
                             "W"};
}

}  // namespace quantloom::emulator
