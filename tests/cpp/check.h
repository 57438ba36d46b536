// What the C++ test programs share: checks that count failures and go on, and a list of tests.
#pragma once

#include <cstdio>
#include <exception>
#include <string>
#include <type_traits>
#include <vector>

#include "base/error.h"

namespace quantloom::check {

struct Test {
  const char* name;
  void (*run)();
};

inline std::vector<Test>& tests() {
  static std::vector<Test> list;
  return list;
}

inline int& failures() {
  static int count = 0;
  return count;
}

inline void report(const char* file, int line, const std::string& what) {
  ++failures();
  std::fprintf(stderr, "%s:%d: %s\n", file, line, what.c_str());
}

struct Registration {
  Registration(const char* name, void (*run)()) { tests().push_back({name, run}); }
};

// Runs `function`, which must throw an Error of `kind` whose message contains `fragment`.
template <typename Function>
void throws(const char* file, int line, ErrorKind kind, const std::string& fragment,
            Function&& function) {
  try {
    function();
  } catch (const Error& error) {
    if (error.kind() != kind) report(file, line, "another kind of error: " + error.message());
    if (error.message().find(fragment) == std::string::npos) {
      report(file, line, "'" + fragment + "' is not in: " + error.message());
    }
    return;
  }
  report(file, line, "no error, expected one with: " + fragment);
}

// The main function of a test program: 0 when every check held.
inline int run_all() {
  for (const Test& test : tests()) {
    const int before = failures();
    try {
      test.run();
    } catch (const std::exception& error) {
      report(test.name, 0, std::string("ended by an exception: ") + error.what());
    }
    std::printf("%s %s\n", failures() == before ? "ok  " : "FAIL", test.name);
  }
  std::printf("%zu tests, %d failures\n", tests().size(), failures());
  return failures() == 0 && not tests().empty() ? 0 : 1;
}

}  // namespace quantloom::check

#define TEST(name)                                                                \
  static void name();                                                             \
  static const ::quantloom::check::Registration registration_##name(#name, name); \
  static void name()

#define CHECK(condition)                                                            \
  do {                                                                              \
    if (not(condition)) ::quantloom::check::report(__FILE__, __LINE__, #condition); \
  } while (false)

#define CHECK_THROWS(kind, fragment, expression)                                         \
  ::quantloom::check::throws(__FILE__, __LINE__, ::quantloom::ErrorKind::kind, fragment, \
                             [&] { (void)(expression); })
