// The structs of DLPack 1.x, the array exchange of Python's array libraries, as its specification
// lays them out. Source: dmlc/dlpack, "DLPack C API".
#pragma once

#include <cstdint>

namespace quantloom::device::dlpack {

inline constexpr std::int32_t cpu = 1;
inline constexpr std::int32_t cuda = 2;
inline constexpr std::int32_t cuda_host = 3;
inline constexpr std::int32_t cuda_managed = 13;

inline constexpr std::uint8_t code_integer = 0;
inline constexpr std::uint8_t code_unsigned = 1;
inline constexpr std::uint8_t code_float = 2;
inline constexpr std::uint8_t code_bfloat = 4;
inline constexpr std::uint8_t code_bool = 6;

inline constexpr std::uint32_t major_version = 1;
inline constexpr std::uint32_t minor_version = 0;
inline constexpr std::uint64_t flag_read_only = 1;
inline constexpr std::uint64_t flag_copied = 2;

struct Device {
  std::int32_t type;
  std::int32_t index;
};

struct DataType {
  std::uint8_t code;
  std::uint8_t bits;
  std::uint16_t lanes;
};

struct Array {
  void* data;
  Device device;
  std::int32_t dimensions;
  DataType dtype;
  std::int64_t* shape;
  std::int64_t* strides;  // elements; null: C order
  std::uint64_t byte_offset;
};

// Capsule "dltensor".
struct Managed {
  Array array;
  void* context;
  void (*deleter)(Managed*);
};

// Capsule "dltensor_versioned".
struct ManagedVersioned {
  std::uint32_t major;
  std::uint32_t minor;
  void* context;
  void (*deleter)(ManagedVersioned*);
  std::uint64_t flags;
  Array array;
};

static_assert(sizeof(void*) == 8 && sizeof(Array) == 48);
static_assert(sizeof(Managed) == 64 && sizeof(ManagedVersioned) == 80);

}  // namespace quantloom::device::dlpack
