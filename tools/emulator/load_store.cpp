#include "access.h"

#include "values.h"

namespace quantloom::emulator {
namespace {

template <Space space>
std::byte* locate(Context& c, u64 address, unsigned bytes, unsigned lane) {
  if constexpr (space == Space::generic) return generic_at(c, address, bytes, lane);
  if constexpr (space == Space::global) return global_at(c, address, bytes, lane);
  if constexpr (space == Space::shared) return shared_at(c, static_cast<u32>(address), bytes, lane);
  if constexpr (space == Space::local) return local_at(c, static_cast<u32>(address), bytes, lane);
  const auto begin = reinterpret_cast<std::uintptr_t>(c.launch->parameters);
  const u64 offset = address - begin;
  if (offset > c.kernel->parameter_bytes or c.kernel->parameter_bytes - offset < bytes) {
    stop(Fault::Kind::illegal_address, lane, "outside of the kernel's parameters");
  }
  return reinterpret_cast<std::byte*>(address);
}

template <typename A>
u64 address_of(const Context& c, const Instruction& i, u32 operand, unsigned lane) {
  return c.at<const A>(operand)[lane] + static_cast<u64>(i.immediate);
}

// Host addresses of all active lanes, where one check is enough for them: all in one allocation,
// and aligned. False where the lanes have to be looked at one by one.
template <Space space, typename A>
bool locate_all(Context& c, const Instruction& i, u32 operand, u32 mask, unsigned bytes,
                std::byte* (&places)[32]) {
  if constexpr (space != Space::global and space != Space::shared) return false;
  if (mask != all_lanes) return false;
  const A* addresses = c.at<const A>(operand);
  if constexpr (space == Space::global) {
    const u64 begin = c.range.begin, size = c.range.end - begin;
    if (size < bytes) return false;
    u64 beyond = 0, bits = 0;
    for (unsigned l = 0; l < 32; ++l) {
      const u64 address = addresses[l] + static_cast<u64>(i.immediate);
      places[l] = reinterpret_cast<std::byte*>(address);
      // The difference's highest bit where the address is below or above.
      beyond |= (address - begin) | (size - bytes - (address - begin));
      bits |= address;
    }
    return (beyond >> 63) == 0 and (bits & (bytes - 1)) == 0;
  } else {
    const u32 size = c.block->shared_end - shared_begin;
    if (size < bytes) return false;
    u32 beyond = 0, bits = 0;
    for (unsigned l = 0; l < 32; ++l) {
      const u32 address = static_cast<u32>(addresses[l]) + static_cast<u32>(i.immediate);
      places[l] = c.block->shared + address;
      beyond |= (address - shared_begin) | (size - bytes - (address - shared_begin));
      bits |= address;
    }
    return (beyond >> 31) == 0 and (bits & (bytes - 1)) == 0;
  }
}

// Ordered accesses may be those that another thread's are compared with.
template <typename T, bool ordered>
T load_one(std::byte* from) {
  if constexpr (ordered) {
    return std::atomic_ref<T>(*reinterpret_cast<T*>(from)).load();
  } else {
    T value;
    std::memcpy(&value, from, sizeof(T));
    return value;
  }
}
template <typename T, bool ordered>
void store_one(std::byte* to, T value) {
  if constexpr (ordered) {
    std::atomic_ref<T>(*reinterpret_cast<T*>(to)).store(value);
  } else {
    std::memcpy(to, &value, sizeof(T));
  }
}

// Signed parts fill the whole register: the decoder widens by converting from it.
template <typename T>
Slot<T> extended(T value) {
  if constexpr (sizeof(T) < 4 and std::is_signed_v<T>) {
    return static_cast<u32>(static_cast<s32>(value));
  } else {
    return to_slot<T>(value);
  }
}

template <Space space, typename T, typename A, bool ordered>
void load(Context& c, const Instruction& i, u32 mask) {
  const u32* to = c.frame->function->lists.data() + i.list;
  const unsigned count = i.list_size;
  std::byte* places[32];
  if (locate_all<space, A>(c, i, i.op[1], mask, sizeof(T) * count, places)) {
    for (unsigned n = 0; n < count; ++n) {
      auto* d = c.at<Slot<T>>(to[n]);
      for (unsigned l = 0; l < 32; ++l) {
        d[l] = extended<T>(load_one<T, ordered>(places[l] + n * sizeof(T)));
      }
    }
  } else {
    for_lanes(mask, [&](unsigned l) {
      std::byte* from = locate<space>(c, address_of<A>(c, i, i.op[1], l), sizeof(T) * count, l);
      for (unsigned n = 0; n < count; ++n) {
        c.at<Slot<T>>(to[n])[l] = extended<T>(load_one<T, ordered>(from + n * sizeof(T)));
      }
    });
  }
  if constexpr (ordered) c.charge(100);
}

template <Space space, typename T, typename A, bool ordered>
void store(Context& c, const Instruction& i, u32 mask) {
  const u32* from = c.frame->function->lists.data() + i.list;
  const unsigned count = i.list_size;
  std::byte* places[32];
  if (locate_all<space, A>(c, i, i.op[0], mask, sizeof(T) * count, places)) {
    for (unsigned n = 0; n < count; ++n) {
      const auto* a = c.at<const Slot<T>>(from[n]);
      for (unsigned l = 0; l < 32; ++l) {
        store_one<T, ordered>(places[l] + n * sizeof(T), from_slot<T>(a[l]));
      }
    }
  } else {
    for_lanes(mask, [&](unsigned l) {
      std::byte* to = locate<space>(c, address_of<A>(c, i, i.op[0], l), sizeof(T) * count, l);
      for (unsigned n = 0; n < count; ++n) {
        store_one<T, ordered>(to + n * sizeof(T), read<T>(c, from[n], l));
      }
    });
  }
  if constexpr (space != Space::local) c.progress = true;
}

template <template <Space, typename, typename, bool> class Pick, Space space, typename A>
Handler pick_type(std::string_view type, bool ordered) {
  const auto of = [&]<typename T>(T) -> Handler {
    if constexpr (space == Space::local or space == Space::kernel_parameter) {
      return Pick<space, T, A, false>::handler;
    } else {
      return ordered ? Pick<space, T, A, true>::handler : Pick<space, T, A, false>::handler;
    }
  };
  if (type == "u8" or type == "b8") return of(u8{});
  if (type == "s8") return of(s8{});
  if (type == "u16" or type == "b16") return of(u16{});
  if (type == "s16") return of(s16{});
  if (type == "u32" or type == "b32" or type == "f32" or type == "s32") return of(u32{});
  if (type == "u64" or type == "b64" or type == "f64" or type == "s64") return of(u64{});
  return nullptr;
}
template <template <Space, typename, typename, bool> class Pick>
Handler pick(Space space, std::string_view type, bool wide, bool ordered) {
  switch (space) {
    case Space::generic:
      return wide ? pick_type<Pick, Space::generic, u64>(type, ordered) : nullptr;
    case Space::global:
      return wide ? pick_type<Pick, Space::global, u64>(type, ordered) : nullptr;
    case Space::kernel_parameter:
      return wide ? pick_type<Pick, Space::kernel_parameter, u64>(type, ordered) : nullptr;
    case Space::shared:
      return wide ? pick_type<Pick, Space::shared, u64>(type, ordered)
                  : pick_type<Pick, Space::shared, u32>(type, ordered);
    case Space::local:
      return wide ? pick_type<Pick, Space::local, u64>(type, ordered)
                  : pick_type<Pick, Space::local, u32>(type, ordered);
  }
  return nullptr;
}

template <Space space, typename T, typename A, bool ordered>
struct Load {
  static constexpr Handler handler = load<space, T, A, ordered>;
};
template <Space space, typename T, typename A, bool ordered>
struct Store {
  static constexpr Handler handler = store<space, T, A, ordered>;
};

}  // namespace

Handler load_handler(Space space, std::string_view type, bool wide_address, bool ordered) {
  return pick<Load>(space, type, wide_address, ordered);
}
Handler store_handler(Space space, std::string_view type, bool wide_address, bool ordered) {
  return pick<Store>(space, type, wide_address, ordered);
}
bool is_wide_type(std::string_view type) { return type.ends_with("64"); }

}  // namespace quantloom::emulator
