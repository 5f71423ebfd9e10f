// What differs between processors: loops written for AVX2 beside those that every processor has, chosen when they run.
#pragma once

#if (defined(__x86_64__) || defined(__i386__)) && defined(__GNUC__) && !defined(HIRESVIT_PLAIN)
#define HIRESVIT_AVX2 __attribute__((target("avx2")))
#include <immintrin.h>
#endif

// A plain loop compiled twice, without and with AVX2. Sanitizers instrument what chooses, which runs before they do;
// other systems' loaders cannot choose.
#if defined(HIRESVIT_AVX2) && !defined(__clang__) && defined(__gnu_linux__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define HIRESVIT_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define HIRESVIT_CLONES
#endif

namespace hiresvit {

#ifdef HIRESVIT_AVX2
inline bool has_avx2() {
  static const bool found = __builtin_cpu_supports("avx2");
  return found;
}
#endif

}  // namespace hiresvit
