// ND4J's CPU generator: 32 bits as a function of state and place, and what is drawn with them.
#include <cmath>
#include <limits>
#include <string>

#include "activation.h"

namespace dl4py {

constexpr int64_t kDraws = 1024;        // at a time: they stay in the first cache
constexpr int64_t kDrawGrain = 1 << 15;  // numbers that are worth a thread

// ND4J's state has 64 bits a word, of which the upper halves never reach a number.
struct Native {
  uint32_t root, node;
  bool whole;  // numbers of 32 bits, not 23
};

inline uint32_t bits_at(const Native& state, uint32_t index) {
  const uint32_t i = index + 2, s = state.root | i * (state.node + 24243287u);
  const uint32_t h = (s ^ state.node ^ i * (s + 723829u)) * 0x9E3779BBu;
  return (h << 5 | h >> 27) * 5;
}

template <class T> inline T unit(const Native& state, uint32_t index) {
  const uint32_t h = bits_at(state, index);
  return state.whole ? T(h) * T(0x1p-32) : T(int32_t(h >> 9)) * T(0x1p-23);
}

// Templates cannot carry target_clones. Each product is exact: nothing here rounds differently
// where a processor multiplies and adds at once, unlike in what follows, which has no clones.
#define DL4PY_UNITS(T)                                                            \
  DL4PY_CLONES void units(Native state, uint32_t first, int64_t n, T* u) {        \
    if (state.whole)                                                              \
      for (int64_t j = 0; j < n; ++j) u[j] = unit<T>({state.root, state.node, true}, first + j);  \
    else                                                                          \
      for (int64_t j = 0; j < n; ++j) u[j] = unit<T>({state.root, state.node, false}, first + j); \
  }
DL4PY_UNITS(float)
DL4PY_UNITS(double)

// body(first, n, u) for n numbers of [0, 1) at a time; whoever draws them, they are the same.
template <class T, class Body> void over_units(const Native& state, int64_t n, Body body) {
  auto some = [&](int64_t begin, int64_t end) {
    T u[kDraws];
    for (int64_t i = begin, m; i < end; i += m) {
      m = std::min(kDraws, end - i);
      units(state, uint32_t(i), m, u);
      body(i, m, u);
    }
  };
  if (n <= kDrawGrain) some(0, n);
  else parallel_for(0, n, kDrawGrain, some);
}

template <class T> T between(T u, T low) { return low + u * (T(1) - low); }
template <class T> T radius(T r0) { return std::sqrt(T(-2) * std::log(r0)); }
template <class T> T angle(T r1) { return T(2) * T(3.14159265358979323846) * r1; }

// Box and Muller's pairs, cosines in the first half. `log`, `cos` and `sin` are the C library's, as
// in ND4J.
template <class T> void normals(const Native& state, int64_t n, T mean, T std, T* x) {
  const int64_t middle = n / 2 + n % 2;
  over_units<T>(state, middle, [&](int64_t first, int64_t m, const T* u0) {
    T u1[kDraws];
    units(state, uint32_t(first + middle), m, u1);
    for (int64_t j = 0; j < m; ++j) {
      const int64_t e = first + j;
      const T r = radius(between(u0[j], T(1e-5))), a = angle(between(u1[j], T(1e-5)));
      x[e] = r * std::cos(a) * std + mean;
      if (e + middle < n) x[e + middle] = r * std::sin(a) * std + mean;
    }
  });
}

// What lies outside of two deviations is drawn once more, and is the mean if it does again.
template <class T> void cut(const Native& state, int64_t n, T mean, T std, T* x) {
  const int64_t middle = n / 2 + n % 2;
  const T low = mean - std::abs(std) * 2, high = mean + std::abs(std) * 2;
  const T least = sizeof(T) == sizeof(double) ? std::numeric_limits<T>::min() : T(0);
  auto some = [&](int64_t begin, int64_t end) {
    for (int64_t e = begin; e < end; ++e) {
      if (!(x[e] > high || x[e] < low)) continue;
      const T r0 = between(unit<T>(state, uint32_t(e)), T(1e-5f));
      const T r1 = between(unit<T>(state, uint32_t(e + middle)), T(1e-5f));
      x[e] = radius(r0) * std::cos(angle(r1)) * std + mean;
      if (x[e] > high || x[e] < low) x[e] = mean + least;
    }
  };
  if (n <= kDrawGrain) some(0, n);
  else parallel_for(0, n, kDrawGrain, some);
}

template <class T>
void draw(const Native& state, const std::string& kind, T a, T b, int64_t n, T* x) {
  if (kind == "uniform") {
    over_units<T>(state, n, [=](int64_t first, int64_t m, const T* u) {
      for (int64_t j = 0; j < m; ++j) x[first + j] = a + u[j] * (b - a);
    });
  } else if (kind == "keep") {
    over_units<T>(state, n, [=](int64_t first, int64_t m, const T* u) {
      for (int64_t j = 0; j < m; ++j) x[first + j] = u[j] < a ? T(1) : T(0);
    });
  } else if (kind == "bernoulli") {
    over_units<T>(state, n, [=](int64_t first, int64_t m, const T* u) {
      for (int64_t j = 0; j < m; ++j) x[first + j] = u[j] <= a ? T(1) : T(0);
    });
  } else {
    normals(state, n, a, b, x);
    if (kind == "truncated") cut(state, n, a, b, x);
    if (kind == "log_normal")
      for (int64_t j = 0; j < n; ++j) x[j] = std::exp(x[j]);
  }
}

void native_draw_op(Tensor x, int64_t root, int64_t node, int64_t bits, std::string kind, double a,
                    double b) {
  const ScalarType type = x.scalar_type();
  STD_TORCH_CHECK((type == ScalarType::Float || type == ScalarType::Double) && x.is_contiguous(),
                  "dl4py: draws need a contiguous float32 or float64 tensor");
  STD_TORCH_CHECK(bits == 23 || bits == 32, "dl4py: numbers have 23 or 32 bits");
  const Native state{uint32_t(root), uint32_t(node), bits == 32};
  if (type == ScalarType::Float)
    draw<float>(state, kind, float(a), float(b), x.numel(), static_cast<float*>(x.data_ptr()));
  else
    draw<double>(state, kind, a, b, x.numel(), static_cast<double*>(x.data_ptr()));
}

STABLE_TORCH_LIBRARY_IMPL(dl4py, DL4PY_DEVICE, m) {
  m.impl("native_draw_", TORCH_BOX(&native_draw_op));
}

}  // namespace dl4py
