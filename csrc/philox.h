// Philox4x32-10: random numbers as a function of key and counter, the same on every device.
// Reference: Salmon et al., Parallel random numbers: as easy as 1, 2, 3 (2011).
#pragma once
#include "exp.h"

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

}  // namespace dl4py
