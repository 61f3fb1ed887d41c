// ln f and ln(1 + f) of activations with their slopes, also where f rounds to 0 or to -1. From z,
// a = f(z) and da = f'(z).
#pragma once
#include "rectifiers.h"
#include "sigmoids.h"

namespace dl4py {

template <class T> struct identity {
  HD T f(T x) const { return x; }
  HD T df(T) const { return 1; }
};

template <class F, class T> HD T log_of(F, T, T a) { return math::log(a); }
template <class F, class T> HD T log_of_slope(F, T, T a, T da) { return da / a; }

template <class T> HD T log_of(cube<T>, T z, T) { return 3 * math::log(z); }
template <class T> HD T log_of_slope(cube<T>, T z, T, T) { return z == 0 ? T(0) : 3 / z; }

template <class T> HD T log_of(sigmoid<T>, T z, T) {
  return at_most(z, T(0)) - math::log1p_to_1(math::exp_below_1(-std::fabs(z)));
}
template <class T> HD T log_of_slope(sigmoid<T>, T z, T a, T da) { return z < 0 ? 1 - a : da / a; }

template <class T> HD T log_of(softplus<T>, T z, T a) { return z < -40 ? z : math::log(a); }
template <class T> HD T log_of_slope(softplus<T>, T z, T a, T da) {
  return z < -40 ? T(1) : da / a;
}

template <class T> HD T log_of(log1exp<T>, T z, T a) { return a == 0 ? z : math::log(a); }
template <class T> HD T log_of_slope(log1exp<T>, T, T a, T da) { return a == 0 ? T(1) : da / a; }

template <class F, class T> HD T log_above(F, T, T a) { return math::log1p(a); }
template <class F, class T> HD T log_above_slope(F, T, T a, T da) { return da / (1 + a); }

template <class T> HD T log_above(tanh<T>, T z, T a) {  // 1 + tanh z = e²ᶻ·(1 - tanh z)
  return at_most(2 * z, T(0)) + math::log1p(std::fabs(a));
}
template <class T> HD T log_above_slope(tanh<T>, T z, T a, T da) {
  return z < 0 ? 1 - a : da / (1 + a);
}

template <class T> HD T log_above(softsign<T>, T z, T a) {  // 1 + z/(1 - z) = 1/(1 - z) below 0
  const T l = math::log1p(z < 0 ? -z : a);
  return z < 0 ? -l : l;
}
template <class T> HD T log_above_slope(softsign<T>, T z, T a, T da) {
  return z < 0 ? 1 / (1 - z) : da / (1 + a);
}

}  // namespace dl4py
