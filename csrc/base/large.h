// Large arrays on the host whose size a file or a caller gave: no memory is an Error that says what
// was asked for.
#pragma once

#include <cstddef>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/faults.h"

namespace quantloom {

// A vector without elements, with room for `count`. Errors: out_of_memory naming `what` and the
// bytes.
template <typename T>
std::vector<T> with_room(std::size_t count, const char* what) {
  std::vector<T> vector;
  if (!faults::fails(faults::Point::host_allocation)) {
    try {
      vector.reserve(count);
      return vector;
    } catch (const std::bad_alloc&) {
    } catch (const std::length_error&) {
    }
  }
  throw Error(ErrorKind::out_of_memory,
              std::string(what) + " needs " + std::to_string(count * sizeof(T)) +
                  " bytes of host memory, which are not free",
              what);
}

}  // namespace quantloom
