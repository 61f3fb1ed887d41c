// ln f and ln(1 + f) of activations with their slopes, also where f rounds to 0 or to -1.
#pragma once
#include "rectifiers.h"
#include "sigmoids.h"

namespace dl4py {

template <class T> struct Log { T l, d; };  // of z, and by dz

template <class T> struct identity {
  HD T f(T x) const { return x; }
  HD T df(T) const { return 1; }
};

template <template <class> class F, class T> HD Log<T> log_of(F<T> f, T z) {
  const T a = f.f(z);
  return {math::log(a), f.df(z) / a};
}
template <class T> HD Log<T> log_of(cube<T>, T z) {
  return {3 * math::log(z), z == 0 ? T(0) : 3 / z};
}
template <class T> HD Log<T> log_of(sigmoid<T>, T z) {
  const T e = math::exp_below_1(-std::fabs(z));
  return {at_most(z, T(0)) - math::log1p_to_1(e), (z < 0 ? T(1) : e) / (1 + e)};
}
template <class T> HD Log<T> log_of(softplus<T>, T z) {
  const T e = math::exp_below_1(-std::fabs(z)), s = e / (2 + e);
  const T by_e = 2 * (1 + s * s * math::log_series(s * s)) / (2 + e);  // ln(1 + e) / e
  const T a = z < 0 ? by_e : z + e * by_e;  // softplus(z), divided by e where z < 0
  return {at_most(z, T(0)) + math::log(a), 1 / ((1 + e) * a)};
}

template <template <class> class F, class T> HD Log<T> log_above(F<T> f, T z) {
  const T a = f.f(z);
  return {math::log1p(a), f.df(z) / (1 + a)};
}
template <class T> HD Log<T> log_above(tanh<T>, T z) {
  const T low = T(0.6931471805599453) + 2 * z - math::log1p_to_1(math::exp_below_1(2 * at_most(z, T(0))));
  return {z < -1 ? low : math::log1p(math::tanh(z)), 2 * math::sigmoid(-2 * z)};
}
template <class T> HD Log<T> log_above(softsign<T>, T z) {
  const T m = std::fabs(z), l = math::log1p(z < 0 ? m : z / (1 + m));
  return {z < 0 ? -l : l, z < 0 ? 1 / (1 + m) : 1 / ((1 + m) * (1 + 2 * m))};
}

}  // namespace dl4py
