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

template <Space space, typename A>
u64 address_of(Context& c, const Instruction& i, u32 operand, unsigned lane) {
  (void)space;
  return c.at<const A>(operand)[lane] + static_cast<u64>(i.immediate);
}

// Ordered accesses may be those that another thread's are compared with.
template <Space space, typename T, typename A, bool ordered>
void load(Context& c, const Instruction& i, u32 mask) {
  const u32* to = c.frame->function->lists.data() + i.list;
  const unsigned count = i.list_size;
  const auto one = [&](unsigned l) {
    const std::byte* from =
        locate<space>(c, address_of<space, A>(c, i, i.op[1], l), sizeof(T) * count, l);
    for (unsigned n = 0; n < count; ++n) {
      T value;
      if constexpr (ordered) {
        value = std::atomic_ref<T>(
                    *reinterpret_cast<T*>(const_cast<std::byte*>(from) + n * sizeof(T)))
                    .load();
      } else {
        std::memcpy(&value, from + n * sizeof(T), sizeof(T));
      }
      if constexpr (sizeof(T) < 4 and std::is_signed_v<T>) {
        // The whole register: the decoder widens by converting from it.
        c.at<u32>(to[n])[l] = static_cast<u32>(static_cast<s32>(value));
      } else {
        write<T>(c, to[n], l, value);
      }
    }
  };
  if (mask == all_lanes) {
    for (unsigned l = 0; l < 32; ++l) one(l);
  } else {
    for_lanes(mask, one);
  }
  if constexpr (ordered) c.charge(100);
}

template <Space space, typename T, typename A, bool ordered>
void store(Context& c, const Instruction& i, u32 mask) {
  const u32* from = c.frame->function->lists.data() + i.list;
  const unsigned count = i.list_size;
  const auto one = [&](unsigned l) {
    std::byte* to =
        locate<space>(c, address_of<space, A>(c, i, i.op[0], l), sizeof(T) * count, l);
    for (unsigned n = 0; n < count; ++n) {
      const T value = read<T>(c, from[n], l);
      if constexpr (ordered) {
        std::atomic_ref<T>(*reinterpret_cast<T*>(to + n * sizeof(T))).store(value);
      } else {
        std::memcpy(to + n * sizeof(T), &value, sizeof(T));
      }
    }
  };
  if (mask == all_lanes) {
    for (unsigned l = 0; l < 32; ++l) one(l);
  } else {
    for_lanes(mask, one);
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
