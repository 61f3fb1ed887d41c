// The steps: p ← p - u and the new state of one element. Numbers come as doubles and are rounded
// once: 1 - β of a β in float would have half of its digits.
#include "updates.h"

namespace dl4py {

template <class T> struct sgd_ {  // u = η·g
  static constexpr int states = 0;
  T rate;
  explicit sgd_(double rate) : rate(T(rate)) {}
  HD void operator()(T& p, T g) const { p -= rate * g; }
};

template <class T> struct noop_ {  // u = g
  static constexpr int states = 0;
  HD void operator()(T& p, T g) const { p -= g; }
};

template <class T> struct nesterovs_ {  // v' = μ·v - η·g,  u = η·g - μ·v'
  static constexpr int states = 1;
  T rate, mu;
  nesterovs_(double rate, double mu) : rate(T(rate)), mu(T(mu)) {}
  HD void operator()(T& p, T g, T& v) const {
    T by = rate * g;
    v = mu * v - by;
    p = (p - by) + mu * v;
  }
};

template <class T> struct adagrad_ {  // h ← h + g²,  u = η·g / (√h + ε)
  static constexpr int states = 1;
  T rate, eps;
  adagrad_(double rate, double eps) : rate(T(rate)), eps(T(eps)) {}
  HD void operator()(T& p, T g, T& h) const {
    h += g * g;
    p -= rate * g / (std::sqrt(h) + eps);
  }
};

template <class T> struct rmsprop_ {  // s ← ρ·s + (1 - ρ)·g²,  u = η·g / (√s + ε)
  static constexpr int states = 1;
  T rate, rho, rest, eps;
  rmsprop_(double rate, double rho, double eps)
      : rate(T(rate)), rho(T(rho)), rest(T(1 - rho)), eps(T(eps)) {}
  HD void operator()(T& p, T g, T& s) const {
    s = rho * s + rest * (g * g);
    p -= rate * g / (std::sqrt(s) + eps);
  }
};

template <class T> struct adadelta_ {  // u = g·√(x + ε) / √(s + ε),  x ← ρ·x + (1 - ρ)·u²
  static constexpr int states = 2;
  T rho, rest, eps;
  adadelta_(double rho, double eps) : rho(T(rho)), rest(T(1 - rho)), eps(T(eps)) {}
  HD void operator()(T& p, T g, T& s, T& x) const {
    s = rho * s + rest * (g * g);
    T u = g * std::sqrt((x + eps) / (s + eps));
    p -= u;
    x = rho * x + rest * (u * u);
  }
};

template <class T> struct Moments {  // m ← β₁·m + (1 - β₁)·g, and the numbers of Adam's family
  static constexpr int states = 2;
  T rate, beta1, rest1, beta2, rest2, eps;
  Moments(double rate, double beta1, double beta2, double eps)
      : rate(T(rate)), beta1(T(beta1)), rest1(T(1 - beta1)), beta2(T(beta2)),
        rest2(T(1 - beta2)), eps(T(eps)) {}
  HD T mean(T m, T g) const { return beta1 * m + rest1 * g; }
  HD T square(T v, T g) const { return beta2 * v + rest2 * (g * g); }
};

template <class T> struct adam_ : Moments<T> {  // u = η_t·m / (√v + ε)
  using Moments<T>::Moments;
  HD void operator()(T& p, T g, T& m, T& v) const {
    m = this->mean(m, g);
    v = this->square(v, g);
    p -= this->rate * m / (std::sqrt(v) + this->eps);
  }
};

template <class T> struct amsgrad_ : Moments<T> {  // u = η_t·m / (√v̂ + ε),  v̂ ← max(v̂, v)
  static constexpr int states = 3;
  using Moments<T>::Moments;
  HD void operator()(T& p, T g, T& m, T& v, T& v_hat) const {
    m = this->mean(m, g);
    v = this->square(v, g);
    v_hat = v_hat < v || v != v ? v : v_hat;
    p -= this->rate * m / (std::sqrt(v_hat) + this->eps);
  }
};

template <class T> struct adamax_ : Moments<T> {  // q ← max(β₂·q, |g|) + 1e-32,  u = η_t·m / q
  adamax_(double rate, double beta1, double beta2) : Moments<T>(rate, beta1, beta2, 0) {}
  HD void operator()(T& p, T g, T& m, T& q) const {
    m = this->mean(m, g);
    T old = this->beta2 * q, size = std::fabs(g);
    q = (old < size || size != size ? size : old) + T(1e-32);
    p -= this->rate * m / q;
  }
};

template <class T> struct nadam_ : Moments<T> {  // u = η_t·(β₁·m + (1 - β₁)·g) / (√v + ε)
  using Moments<T>::Moments;
  HD void operator()(T& p, T g, T& m, T& v) const {
    m = this->mean(m, g);
    v = this->square(v, g);
    p -= this->rate * this->mean(m, g) / (std::sqrt(v) + this->eps);
  }
};

template <class T> struct adabelief_ : Moments<T> {  // s ← β₂·s + (1 - β₂)·(g - m)² + ε
  using Moments<T>::Moments;
  HD void operator()(T& p, T g, T& m, T& s) const {
    m = this->mean(m, g);
    s = this->square(s, g - m) + this->eps;
    p -= this->rate * m / (std::sqrt(s) + this->eps);
  }
};

}  // namespace dl4py

DL4PY_UPDATE(sgd_, 0, double)
DL4PY_UPDATE(noop_, 0)
DL4PY_UPDATE(nesterovs_, 1, double, double)
DL4PY_UPDATE(adagrad_, 1, double, double)
DL4PY_UPDATE(rmsprop_, 1, double, double, double)
DL4PY_UPDATE(adadelta_, 2, double, double)
DL4PY_UPDATE(adam_, 2, double, double, double, double)
DL4PY_UPDATE(amsgrad_, 3, double, double, double, double)
DL4PY_UPDATE(adamax_, 2, double, double, double)
DL4PY_UPDATE(nadam_, 2, double, double, double, double)
DL4PY_UPDATE(adabelief_, 2, double, double, double, double)
