// A test's one word: what is not so is printed with its line, and the test fails.
#pragma once

#include <cstdio>
#include <cstdlib>

#define CHECK(condition)                                                       \
  do {                                                                         \
    if (!(condition)) {                                                        \
      std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
      std::exit(1);                                                            \
    }                                                                          \
  } while (false)

// The code of the Error that some work throws, 0 for none.
template <class Exception, class Work>
int code_of(const Work& work) {
  try {
    work();
    return 0;
  } catch (const Exception& error) {
    std::fprintf(stderr, "  said: %s\n", error.what());
    return error.code;
  }
}
