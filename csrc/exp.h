// exp and its kin without branches and library calls, so that loops over them vectorise.
// Relative error: a few units in the last place. NaN stays NaN.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define HD __host__ __device__ __forceinline__
#else
#define HD __attribute__((always_inline)) inline
#endif

namespace dl4py {

template <class To, class From> HD To bits(From value) {
  To to;
  static_assert(sizeof(to) == sizeof(value));
  memcpy(&to, &value, sizeof(to));
  return to;
}

template <class T> struct limits;
template <> struct limits<float> {
  using integer = int32_t;
  static constexpr int mantissa = 23, bias = 127, terms = 7;  // eʳ on |r| <= ln(2)/2
  static constexpr float round = 0x1.8p23f;        // x + round - round: x to the nearest integer
  static constexpr float ln2_high = 0x1.62e4p-1f;  // 16 bits: times an exponent exact
  static constexpr float ln2_low = 0x1.7f7d1cp-20f;
};
template <> struct limits<double> {
  using integer = int64_t;
  static constexpr int mantissa = 52, bias = 1023, terms = 13;
  static constexpr double round = 0x1.8p52;
  static constexpr double ln2_high = 0x1.62e42fefa38p-1;  // 42 bits
  static constexpr double ln2_low = 0x1.ef35793c7673p-45;
};

// Bounds that let NaN through.
template <class T> HD T at_most(T x, T high) { return x > high ? high : x; }
template <class T> HD T at_least(T x, T low) { return x < low ? low : x; }

template <class T> HD T one_over_factorial(int k) {
  constexpr double table[] = {1.,          1.,           1. / 2,        1. / 6,         1. / 24,
                              1. / 120,    1. / 720,     1. / 5040,     1. / 40320,     1. / 362880,
                              1. / 3628800, 1. / 39916800, 1. / 479001600, 1. / 6227020800};
  return T(table[k]);
}

// eˣ = 2ⁿ · (1 + m), m = eʳ - 1. The ends of the exponent's range serve as 0 and infinity: results
// below the normal numbers are 0.
template <class T> struct Power { T power, m; };
template <class T> HD Power<T> power(T x) {
  using L = limits<T>;
  using I = typename L::integer;
  constexpr T ln2 = T(0.6931471805599453);
  x = at_least(at_most(x, (L::bias + 1) * ln2), -L::bias * ln2);
  T shifted = x * T(1.4426950408889634) + L::round;
  T n = shifted - L::round;
  T r = x - n * L::ln2_high - n * L::ln2_low;
  T p = one_over_factorial<T>(L::terms);
  for (int k = L::terms - 1; k > 0; --k) p = p * r + one_over_factorial<T>(k);
  I exponent = bits<I>(shifted) - bits<I>(L::round) + L::bias;
  return {bits<T>(I(exponent << L::mantissa)), p * r};
}

template <class T> HD T exp(T x) {
#ifdef __CUDA_ARCH__
  return ::exp(x);
#else
  Power<T> e = power(x);
  return e.power * (1 + e.m);  // 1 + m > 0, so never ∞ - ∞
#endif
}

template <class T> HD T expm1(T x) {
#ifdef __CUDA_ARCH__
  return ::expm1(x);
#else
  Power<T> e = power(x);
  return e.power * e.m + (e.power - 1);
#endif
}

template <class T> HD T tanh(T x) {
  T e = expm1(-2 * std::fabs(x));
  return std::copysign(-e / (2 + e), x);
}
template <class T> HD T tanh_slope(T x) {  // 1 - tanh² cancels
  T e = exp(-2 * std::fabs(x));
  return 4 * e / ((1 + e) * (1 + e));
}

template <class T> struct Sigmoid { T s, t; };  // σ(x) and 1 - σ(x), which would cancel
template <class T> HD Sigmoid<T> sigmoid(T x) {
  T e = exp(-std::fabs(x)), big = 1 / (1 + e), small = e * big;
  return {x < 0 ? small : big, x < 0 ? big : small};
}

}  // namespace dl4py
