// Activations of one piece: f, f', f'' side by side. T is double for double, float for all else.
#pragma once
#include "exp.h"

namespace dl4py {

template <class T> struct cube {
  HD T f(T x) const { return x * x * x; }
  HD T df(T x) const { return 3 * x * x; }
  HD T d2f(T x) const { return 6 * x; }
};

template <class T> struct rationaltanh {  // a · sgn(x) · t/(1 + t), t = v + v² + c·v⁴, v = 2|x|/3
  static constexpr T k = T(2.0 / 3);
  T a, c;
  // Keeps t finite. No constant: GCC makes a clamp one instruction where it does not see the bound.
  T most = sizeof(T) == 8 ? T(1e50) : T(1e6f);
  HD T above(T x) const { return at_most(std::fabs(x), most); }
  HD T t(T m) const { return m * (k + m * (k * k + (k * k * k * k * c) * (m * m))); }
  HD T f(T x) const {
    T y = t(above(x));
    return std::copysign(a * y / (1 + y), x);
  }
  HD T df(T x) const {
    T m = above(x), w = 1 / (1 + t(m));
    return a * ((k + m * (2 * k * k + (4 * k * k * k * k * c) * (m * m))) * w) * w;
  }
  HD T d2f(T x) const {
    T m = k * above(x), w = 1 / (1 + t(above(x)));
    T poly = 6 + m * (6 - 12 * c + m * (4 * c + m * (18 * c + m * m * (20 * c * c))));
    return std::copysign(a * k * k * (m * poly) * w * w * w, -x);
  }
};

template <class T> struct tanh {
  HD T f(T x) const { return math::tanh(x); }
  HD T df(T x) const { return math::tanh_slope(x); }
  HD T d2f(T x) const { return -2 * f(x) * df(x); }
};

template <class T> struct sigmoid {
  HD T f(T x) const { return math::sigmoid(x); }
  HD T df(T x) const {
    T e = math::exp_below_1(-std::fabs(x)), r = 1 / (1 + e);
    return e * r * r;
  }
  HD T d2f(T x) const {
    T z = -std::fabs(x), r = 1 / (1 + math::exp_below_1(z));
    return df(x) * std::copysign(math::expm1_below_0(z) * r, -x);  // 1 - 2σ cancels
  }
};

template <class T> struct softplus {  // ln(1 + eˣ)
  HD T f(T x) const { return math::softplus(x); }
  HD T df(T x) const { return math::sigmoid(x); }
  HD T d2f(T x) const { return sigmoid<T>{}.df(x); }
};

template <class T> struct log1exp {  // the same as DL4J has it: 1 + eˣ is rounded
  HD T f(T x) const { return x > 40 ? x : math::log(1 + math::exp(at_most(x, T(40)))); }
  HD T df(T x) const { return math::sigmoid(x); }
  HD T d2f(T x) const { return sigmoid<T>{}.df(x); }
};

// Where a factor is 0 the other one must not be infinite.
template <class T> HD T finite_below(T x) { return at_least(x, -limits<T>::most); }
template <class T> HD T near(T x, T bound) { return at_least(at_most(x, bound), -bound); }

template <class T> struct gelu {  // x · σ(ax)
  T a;
  HD T z(T x) const { return near(a * x, T(1e4)); }
  HD T f(T x) const { return finite_below(x) * math::sigmoid(a * x); }
  HD T df(T x) const {
    auto [s, t] = math::sigmoids(z(x));
    return s + z(x) * (s * t);
  }
  HD T d2f(T x) const {
    auto [s, t] = math::sigmoids(z(x));
    return a * (s * t) * (2 + z(x) * (t - s));
  }
};

template <class T> struct gelutanh {  // x/2 · (1 + tanh(z/2)) = x · σ(z)
  static constexpr double k = 1.5957691216057308, c = 0.044715;  // k = 2·√(2/π)
  HD static T z(T x) { return T(k) * x * (1 + T(c) * x * x); }
  HD static T dz(T x) { return T(k) * (1 + T(3 * c) * x * x); }
  HD static T v(T x) { return near(x, T(40)); }  // σ is 0 or 1 beyond
  HD T f(T x) const { return finite_below(x) * math::sigmoid(z(v(x))); }
  HD T df(T x) const {
    T v = this->v(x);
    auto [s, t] = math::sigmoids(z(v));
    return s + v * dz(v) * (s * t);
  }
  HD T d2f(T x) const {
    T v = this->v(x), d = dz(v);
    auto [s, t] = math::sigmoids(z(v));
    return (s * t) * (2 * d + v * (T(6 * k * c) * v + d * d * (t - s)));
  }
};

template <class T> struct mish {  // x·w, w = tanh(ln(1 + eˣ)) = (e² + 2e) / (e² + 2e + 2), e = eˣ
  struct Parts { T e, r; bool low; };  // in powers of e⁻ˣ where that is the smaller one
  HD static Parts parts(T x) {
    T e = math::exp_below_1(-std::fabs(x));
    bool low = x < 0;
    return {e, 1 / (low ? e * (e + 2) + 2 : 2 * e * (e + 1) + 1), low};
  }
  HD static T w(Parts p) { return (p.low ? p.e * (p.e + 2) : 2 * p.e + 1) * p.r; }
  HD static T dw(Parts p) {
    return 4 * (1 + p.e) * (p.low ? p.e : p.e * p.e) * p.r * p.r;
  }
  HD static T d2w(Parts p) {
    T e = p.e, low = 2 + e * (2 - e * (3 + 2 * e)), high = e * (e * (2 * e + 2) - 3) - 2;
    return 4 * (p.low ? e * low : e * e * high) * p.r * p.r * p.r;
  }
  HD T f(T x) const { return finite_below(x) * w(parts(x)); }
  HD T df(T x) const {
    Parts p = parts(x);
    return w(p) + near(x, T(1e4)) * dw(p);
  }
  HD T d2f(T x) const {
    Parts p = parts(x);
    return 2 * dw(p) + near(x, T(1e4)) * d2w(p);
  }
};

template <class T> struct softsign {  // x / (1 + |x|)
  HD static T r(T x) { return 1 / (1 + std::fabs(x)); }
  HD T f(T x) const {
    T m = at_most(std::fabs(x), limits<T>::most);
    return std::copysign(m / (1 + m), x);
  }
  HD T df(T x) const { return r(x) * r(x); }
  HD T d2f(T x) const {
    T sign = x > 0 ? T(1) : x < 0 ? T(-1) : x;
    return -2 * sign * r(x) * r(x) * r(x);
  }
};

}  // namespace dl4py
