// Activations of two and three pieces: f, f', f'' side by side. T is double for double, float for
// all else.
#pragma once
#include "exp.h"

namespace dl4py {

template <class T> struct rectifiedtanh {
  HD static bool active(T x) { return !(x <= 0); }  // DL4J: the derivative selects
  HD T f(T x) const { return math::tanh_above_0(at_least(x, T(0))); }
  HD T df(T x) const { return math::tanh_slope(at_least(x, T(0))); }
  HD T d2f(T x) const { return -2 * f(x) * df(x); }
};

template <class T> struct hardsigmoid {
  T slope;
  HD T f(T x) const { return at_most(at_least(slope * x + T(0.5), T(0)), T(1)); }
  HD T df(T x) const { return x >= T(-2.5) && x <= T(2.5) ? slope : T(0); }  // DL4J: ends too
  HD T d2f(T) const { return 0; }
};

template <class T> struct hardtanh {
  HD T f(T x) const { return at_most(at_least(x, T(-1)), T(1)); }
  HD T df(T x) const { return x >= -1 && x <= 1 ? T(1) : T(0); }  // DL4J: ends too
  HD T d2f(T) const { return 0; }
};

template <class T> struct leakyrelu {
  T alpha;
  HD T f(T x) const { return x < 0 ? alpha * x : x; }
  HD T df(T x) const { return x < 0 ? alpha : T(1); }
  HD T d2f(T) const { return 0; }
};

template <class T> struct elu {
  T alpha;
  HD T f(T x) const { return x >= 0 ? x : alpha * math::expm1_below_0(at_most(x, T(0))); }
  HD T df(T x) const { return x >= 0 ? T(1) : d2f(x); }
  HD T d2f(T x) const { return x >= 0 ? T(0) : alpha * math::exp_below_1(at_most(x, T(0))); }
};

template <class T> struct selu {  // λ·x above 0, λα·(eˣ - 1) below
  static constexpr double scale = 1.0507009873554804934, slope = 1.7580993408473768599;
  HD T f(T x) const {
    T low = T(slope) * math::expm1_below_0(at_most(x, T(0)));
    return x > 0 ? T(scale) * x : low;
  }
  HD T df(T x) const { return x > 0 ? T(scale) : d2f(x); }
  HD T d2f(T x) const { return x > 0 ? T(0) : T(slope) * math::exp_below_1(at_most(x, T(0))); }
};

template <class T> struct rectifier {  // DL4J: ActivationReLU(max, threshold, slope)
  T max, threshold, slope;
  HD T f(T x) const {
    T low = slope == 0 ? T(0) : slope * (x - threshold);  // 0 · ∞
    return at_most(x < threshold ? low : x, max);
  }
  HD T df(T x) const {
    bool plain = threshold == 0 && slope == 0;  // DL4J: relu'(0) = 0
    T y = x < threshold || (plain && x == 0) ? slope : T(1);
    return x < max || max == T(INFINITY) ? y : T(0);
  }
  HD T d2f(T) const { return 0; }
};

template <class T> struct thresholdedrelu {  // in steps of recurrent layers; alone torch has it
  T theta;
  HD T f(T x) const { return x <= theta ? T(0) : x; }
  HD T df(T x) const { return x <= theta ? T(0) : T(1); }
  HD T d2f(T) const { return 0; }
};

template <class T> struct rrelu {  // u: uniform in [0, 1)
  static constexpr bool random = true;
  T lower, upper;
  HD T slope(T u) const { return lower + u * (upper - lower); }
  HD T f(T x, T u) const { return x < 0 ? slope(u) * x : x; }
  HD T df(T x, T u) const { return x < 0 ? slope(u) : T(1); }
  HD T d2f(T) const { return 0; }
};

}  // namespace dl4py
