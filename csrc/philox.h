// Philox4x32-10: random numbers as a function of key and counter, the same on every device.
// Reference: Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (2011).
#pragma once
#include "exp.h"

// Whether functions are compiled for several generations of x86 processors, of which the program
// takes the best. g++ 11 does not know them by name, clang++ (19) forgets to emit what only such
// functions call: they compile for the oldest alone.
#if defined(__x86_64__) && defined(__linux__) && !defined(__CUDACC__) && !defined(__clang__) && \
    __GNUC__ >= 12
#define DL4PY_X86 1
#include <immintrin.h>
#else
#define DL4PY_X86 0
#endif

namespace dl4py {

// Element 64·b + 16·w + c has word w of counter 16·b + c: so vectors of 16 counters fill whole
// rows of 16 elements.
constexpr int kRow = 16, kWords = 4, kBlock = kRow * kWords;

struct Words { uint32_t w[kWords]; };

HD Words philox(uint64_t key, uint64_t counter) {
  uint32_t c0 = uint32_t(counter), c1 = uint32_t(counter >> 32), c2 = 0, c3 = 0;
  uint32_t k0 = uint32_t(key), k1 = uint32_t(key >> 32);
  for (int round = 0; round < 10; ++round) {
    uint64_t a = uint64_t(c0) * 0xD2511F53u, b = uint64_t(c2) * 0xCD9E8D57u;
    uint32_t n0 = uint32_t(b >> 32) ^ c1 ^ k0, n2 = uint32_t(a >> 32) ^ c3 ^ k1;
    c0 = n0, c1 = uint32_t(b), c2 = n2, c3 = uint32_t(a);
    k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

HD float uniform(uint32_t word) { return float(int32_t(word >> 8)) * 0x1p-24f; }  // [0, 1)

HD float uniform_at(uint64_t key, int64_t element) {
  Words words = philox(key, element / kBlock * kRow + element % kRow);
  int w = int(element % kBlock / kRow);
  return uniform(w == 0 ? words.w[0] : w == 1 ? words.w[1] : w == 2 ? words.w[2] : words.w[3]);
}

#ifndef __CUDACC__

// A block's numbers from a counter that is a multiple of kRow. Compilers do not find the one
// instruction that multiplies the lower halves of 64-bit lanes, so it is named here: the upper
// halves hold what is left of earlier rounds and are never read.
#if DL4PY_X86
#define DL4PY_DEFAULT __attribute__((target("default")))
#define DL4PY_UNIFORMS(isa, lanes, integers, multiply)                                             \
  __attribute__((target(isa))) static void uniforms(uint64_t key, uint64_t counter, float* u) {    \
    typedef uint64_t V __attribute__((vector_size(8 * lanes)));                                    \
    typedef uint32_t Half __attribute__((vector_size(4 * lanes)));                                 \
    typedef int32_t Int __attribute__((vector_size(4 * lanes)));                                   \
    typedef float Float __attribute__((vector_size(4 * lanes), aligned(4)));                       \
    V lane{};                                                                                      \
    for (int k = 0; k < lanes; ++k) lane[k] = k;                                                   \
    for (int part = 0; part < kRow; part += lanes) {                                               \
      V c2{}, c3{}, first = lane + (counter + part);                                               \
      V c0 = first, c1 = first >> 32, m0 = V{} + 0xD2511F53u, m1 = V{} + 0xCD9E8D57u;              \
      V k0 = V{} + uint32_t(key), k1 = V{} + uint32_t(key >> 32);                                  \
      for (int round = 0; round < 10; ++round) {                                                   \
        V a = V(multiply((integers)c0, (integers)m0)), b = V(multiply((integers)c2, (integers)m1)); \
        c0 = (b >> 32) ^ c1 ^ k0, c1 = b, c2 = (a >> 32) ^ c3 ^ k1, c3 = a;                        \
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;                                                      \
        __asm__("" : "+v"(k0), "+v"(k1)); /* in vectors, not broadcast anew */                     \
      }                                                                                            \
      V words[kWords] = {c0, c1, c2, c3};                                                          \
      for (int w = 0; w < kWords; ++w) {                                                           \
        Half upper = __builtin_convertvector(words[w], Half) >> 8;                                 \
        *(Float*)(u + w * kRow + part) = __builtin_convertvector((Int)upper, Float) * 0x1p-24f;    \
      }                                                                                            \
    }                                                                                              \
  }
DL4PY_UNIFORMS("arch=x86-64-v4", 8, __m512i, _mm512_mul_epu32)
DL4PY_UNIFORMS("arch=x86-64-v3", 4, __m256i, _mm256_mul_epu32)
#else
#define DL4PY_DEFAULT
#endif

DL4PY_DEFAULT static void uniforms(uint64_t key, uint64_t counter, float* u) {
  for (int c = 0; c < kRow; ++c) {
    Words words = philox(key, counter + c);
    for (int w = 0; w < kWords; ++w) u[w * kRow + c] = uniform(words.w[w]);
  }
}

#endif

}  // namespace dl4py
