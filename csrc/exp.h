// math:: exp, log and their kin, without branches and library calls, so that loops over them vectorise.
// Error in units in the last place, with or without FMA, at most, found over all 2³² floats by
// `python -m tests.ulp`: exp 1.25, expm1 1.5, tanh 2.6, its slope 5.2, log 2, log1p 2.5, sigmoid 2.6,
// softplus 2.9; of doubles over a sample (tests/ops/test_exp.py).
// NaN stays NaN, ±∞ and ±0 give the limits. exp() goes into the subnormal numbers; where
// exp_below_1() takes part, results below the normal numbers are 0.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

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
  static constexpr int mantissa = 23, bias = 127;
  static constexpr float most = 0x1.fffffep127f;
  static constexpr float round = 0x1.8p23f + 127;  // x + round: its last bits are x + bias
  static constexpr float ln2_high = 0x1.62e4p-1f;  // 16 bits: times an exponent exact
  static constexpr float ln2_low = 0x1.7f7d1cp-20f;
};
template <> struct limits<double> {
  using integer = int64_t;
  static constexpr int mantissa = 52, bias = 1023;
  static constexpr double most = 0x1.fffffffffffffp1023;
  static constexpr double round = 0x1.8p52 + 1023;
  static constexpr double ln2_high = 0x1.62e42fefa38p-1;  // 42 bits
  static constexpr double ln2_low = 0x1.ef35793c7673p-45;
};

// Bounds that let NaN through.
template <class T> HD T at_most(T x, T high) { return x > high ? high : x; }
template <class T> HD T at_least(T x, T low) { return x < low ? low : x; }

template <class T> HD T polynomial(T, T c) { return c; }
template <class T, class... C> HD T polynomial(T x, T c, C... more) {  // c + x·(...)
  return polynomial(x, T(more)...) * x + c;
}

namespace math {

// The coefficients below are minimax (Remez), good to a fifth of a unit in the last place.

HD float exp_series(float r) {  // (eʳ - 1) / r on |r| <= ln(2)/2
  return polynomial(r, 1.0f, 0.500000008085f, 0.166665051711f, 0.0416662405606f,
                    0.00836915777927f, 0.00139485910229f);
}
HD double exp_series(double r) {
  return polynomial(r, 1.0, 0.5000000000000005623, 0.16666666666666690625,
                    0.041666666666573063317, 0.0083333333333130546191, 0.0013888888932515966213,
                    0.00019841269905315462637, 2.4801504312510069102e-05, 2.7557226383058826735e-06,
                    2.7626371542685090296e-07, 2.5114880693439568526e-08);
}

HD float log_series(float z) {  // (atanh(s)/s - 1) / z, z = s², on |s| <= 1/3
  return polynomial(z, 0.333333377743f, 0.19999441517f, 0.143083788677f, 0.107144527908f,
                    0.121483078842f);
}
HD double log_series(double z) {
  return polynomial(z, 0.33333333333333158092, 0.20000000000076891558, 0.14285714274107443544,
                    0.11111111975198327057, 0.090908722639836492511, 0.07693274168235840053,
                    0.066505563426133174664, 0.060525347113835163589, 0.041721210076503908993,
                    0.085056870396938899112);
}

// eˣ = 2ⁿ · (1 + m), m = eʳ - 1, for x in the range where 2ⁿ is a normal number.
template <class T> struct Reduced {
  typename limits<T>::integer shifted;  // its last bits are n + bias
  T m;
};
template <class T> HD Reduced<T> reduced(T x) {
  using L = limits<T>;
  T shifted = x * T(1.4426950408889634) + L::round;
  T n = shifted - L::round;
  T r = x - n * L::ln2_high - n * L::ln2_low;
  return {bits<typename L::integer>(shifted), r * exp_series(r)};
}
template <class T> HD T two_to(typename limits<T>::integer n_and_bias) {
  return bits<T>(typename limits<T>::integer(n_and_bias << limits<T>::mantissa));
}

template <class T> HD T exp(T x) {  // into infinity and the subnormal numbers: 2ⁿ in two steps
#ifdef __CUDA_ARCH__
  return ::exp(x);
#else
  using L = limits<T>;
  using I = typename L::integer;
  const T ln2 = T(0.6931471805599453);
  auto [shifted, m] = reduced(at_least(at_most(x, (L::bias + 2) * ln2), -(L::bias + L::mantissa + 1) * ln2));
  I n = shifted - bits<I>(L::round), half = n >> 1;
  T a = two_to<T>(half + L::bias), b = two_to<T>(n - half + L::bias);
  return (a * m + a) * b;
#endif
}

template <class T> HD T exp_below_1(T x) {  // x <= 0; results below the normal numbers are 0
#ifdef __CUDA_ARCH__
  return ::exp(x);
#else
  auto [shifted, m] = reduced(at_least(x, -limits<T>::bias * T(0.6931471805599453)));
  T a = two_to<T>(shifted);
  return a * m + a;
#endif
}

template <class T> HD T expm1_below_0(T x) {  // x <= 0
#ifdef __CUDA_ARCH__
  return ::expm1(x);
#else
  auto [shifted, m] = reduced(at_least(x, T(-60)));  // -1 from there on
  T a = two_to<T>(shifted);
  return a * m + (a - 1);
#endif
}

template <class T> HD T tanh_above_0(T x) {  // x >= 0
#ifdef __CUDA_ARCH__
  return ::tanh(x);
#else
  T e = expm1_below_0(-2 * x);
  return (0 - e) / (2 + e);  // +0 at 0
#endif
}
template <class T> HD T tanh(T x) { return std::copysign(tanh_above_0(std::fabs(x)), x); }
template <class T> HD T tanh_slope(T x) {  // 1 - tanh² cancels
  T e = exp_below_1(-2 * std::fabs(x)), r = 1 / (1 + e);
  return 4 * e * r * r;
}

template <class T> struct Sigmoid { T s, t; };  // σ(x) and 1 - σ(x), which would cancel
template <class T> HD Sigmoid<T> sigmoids(T x) {
  T e = exp_below_1(-std::fabs(x)), big = 1 / (1 + e), small = e * big;
  return {x < 0 ? small : big, x < 0 ? big : small};
}
template <class T> HD T sigmoid(T x) {
  T e = exp_below_1(-std::fabs(x));
  return (x < 0 ? e : T(1)) / (1 + e);
}

template <class T> HD T log1p_to_1(T x) {  // ln(1 + x) = 2·atanh(x / (2 + x)) on 0 <= x <= 1
  T s = x / (2 + x), z = s * s;
  return 2 * s + 2 * s * (z * log_series(z));
}
template <class T> HD T softplus(T x) {
  return at_least(x, T(0)) + log1p_to_1(exp_below_1(-std::fabs(x)));
}

template <class T> HD T log(T x) {
#ifdef __CUDA_ARCH__
  return ::log(x);
#else
  using L = limits<T>;
  using I = typename L::integer;
  const T tiny = two_to<T>(1), infinity = two_to<T>(2 * L::bias + 1);
  bool subnormal = x < tiny;
  T v = subnormal ? x * two_to<T>(L::bias + L::mantissa + 1) : x;
  // v = 2ⁿ·w, w in [√½, √2)
  using U = std::make_unsigned_t<I>;
  const I root = bits<I>(T(0.7071067811865476)), b = I(U(bits<I>(v)) - U(root));
  T n = T((b >> L::mantissa) - (subnormal ? L::mantissa + 1 : 0));
  T w = bits<T>(I((b & ((I(1) << L::mantissa) - 1)) + root));
  T s = (w - 1) / (w + 1), z = s * s;
  T y = n * L::ln2_high + (2 * s + (2 * s * (z * log_series(z)) + n * L::ln2_low));
  y = x > 0 ? y : x == 0 ? -infinity : x - x + (x < 0 ? infinity - infinity : 0);
  return x < infinity ? y : x;
#endif
}

template <class T> HD T log1p(T x) {
#ifdef __CUDA_ARCH__
  return ::log1p(x);
#else
  T u = 1 + x, lost = (x - (u - 1)) / u;
  return log(u) + (lost == lost && u > 0 ? lost : T(0));  // at -1 and ∞
#endif
}

}  // namespace math
}  // namespace dl4py
