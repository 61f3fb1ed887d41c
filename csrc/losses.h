// Losses that give one number per row: sums of s(z, y) over the classes, times weights w and the
// row's mask m. Rows with m = 0 count nothing, whatever is in them.
#pragma once
#include <limits>

#include "activation.h"

namespace dl4py {

// One call. y: labels [n, k], or null and `index`: classes [n]. w, m: or null. g: of the scores.
template <class T> struct Rows {
  const T* z;
  const T* y;
  const int64_t* index;
  const T* w;
  const T* m;
  const T* g;
  int64_t g_stride;
  T scale;  // of g
  T* score;
  T* lse;    // ln Σ exp z, kept for the backward pass
  T* total;  // what multiplies the softmax there: Σ w·y
  T* dz;
  int64_t n, k;
  T low, high;  // bounds of ln p in the score
  bool unit;    // total = 1
  int32_t device;

  HD T weight(int64_t j) const { return w ? w[j] : T(1); }
  HD bool counts(int64_t i) const { return !m || m[i] != 0; }
  HD T slope(int64_t i) const {
    const T s = scale * g[i * g_stride];
    return m ? s * m[i] : s;
  }
  HD bool has_class(int64_t i) const { return index[i] >= 0 && index[i] < k; }
  HD T minus_log(T d) const { return -at_most(at_least(d, low), high); }  // of p, d = ln p
};

}  // namespace dl4py
