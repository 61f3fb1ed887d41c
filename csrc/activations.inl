// The formulas: f, f', f'' side by side. T is double for double and float for all else.
#include "activation.h"

namespace dl4py {

template <class T> struct cube {
  HD T f(T x) const { return x * x * x; }
  HD T df(T x) const { return 3 * x * x; }
  HD T d2f(T x) const { return 6 * x; }
};

template <class T> struct rationaltanh {  // a · sgn(v) · (1 - 1/q), v = 2x/3
  T a, c;
  HD static T v(T x) {  // the bound keeps v⁶ finite
    const T bound = sizeof(T) == 8 ? T(1e50) : T(1e6f);
    return at_least(at_most(x * T(2.0 / 3), bound), -bound);
  }
  HD T r(T m) const { return 1 + m + c * m * m * m; }  // q = 1 + m·r; 1 - 1/q cancels
  HD T f(T x) const {
    T u = v(x), m = std::fabs(u);
    return a * (u * r(m)) / (1 + m * r(m));
  }
  HD T df(T x) const {
    T m = std::fabs(v(x)), w = 1 / (1 + m * r(m));
    return a * T(2.0 / 3) * ((1 + 2 * m + 4 * c * m * m * m) * w) * w;
  }
  HD T d2f(T x) const {
    T u = v(x), m = std::fabs(u), w = 1 / (1 + m * r(m));
    T poly = 6 + m * (6 - 12 * c + m * (4 * c + m * (18 * c + m * m * (20 * c * c))));
    return -a * T(4.0 / 9) * (u * poly) * w * w * w;
  }
};

template <class T> struct rectifiedtanh {
  HD static bool active(T x) { return !(x <= 0); }  // DL4J: the derivative selects
  HD T f(T x) const { return tanh(at_least(x, T(0))); }
  HD T df(T x) const { return tanh_slope(at_least(x, T(0))); }
  HD T d2f(T x) const { return -2 * f(x) * df(x); }
};

template <class T> struct hardsigmoid {
  T slope;
  HD T f(T x) const { return at_most(at_least(slope * x + T(0.5), T(0)), T(1)); }
  HD T df(T x) const { return x >= T(-2.5) && x <= T(2.5) ? slope : T(0); }  // DL4J: ends too
  HD T d2f(T) const { return 0; }
};

template <class T> struct gelu {  // x · σ(ax)
  T a;
  HD T f(T x) const { return x / (1 + exp(-a * x)); }
  HD T df(T x) const {
    auto [s, t] = sigmoid(a * x);
    return s + a * x * (s * t);
  }
  HD T d2f(T x) const {
    auto [s, t] = sigmoid(a * x);
    return a * (s * t) * (2 + a * x * (t - s));
  }
};

template <class T> struct hardtanh {
  HD T f(T x) const { return at_most(at_least(x, T(-1)), T(1)); }
  HD T df(T x) const { return T(x >= -1 && x <= 1); }  // DL4J: ends too
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
  HD T f(T x) const { return x >= 0 ? x : alpha * expm1(at_most(x, T(0))); }
  HD T df(T x) const { return x >= 0 ? T(1) : d2f(x); }
  HD T d2f(T x) const { return x >= 0 ? T(0) : alpha * exp(at_most(x, T(0))); }
};

template <class T> struct softsign {  // x / (1 + |x|)
  HD static T r(T x) { return 1 / (1 + std::fabs(x)); }
  HD T f(T x) const { return x * r(x); }
  HD T df(T x) const { return r(x) * r(x); }
  HD T d2f(T x) const {
    T sign = x > 0 ? T(1) : x < 0 ? T(-1) : x;
    return -2 * sign * r(x) * r(x) * r(x);
  }
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
    return x < max ? y : T(0);
  }
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

DL4PY_ACTIVATION(cube)
DL4PY_ACTIVATION(rationaltanh, double, double)
DL4PY_ACTIVATION(rectifiedtanh)
DL4PY_ACTIVATION(hardsigmoid, double)
DL4PY_ACTIVATION(gelu, double)
DL4PY_ACTIVATION(hardtanh)
DL4PY_ACTIVATION(leakyrelu, double)
DL4PY_ACTIVATION(elu, double)
DL4PY_ACTIVATION(softsign)
DL4PY_ACTIVATION(rectifier, double, double, double)
DL4PY_ACTIVATION(rrelu, Seed, double, double)
