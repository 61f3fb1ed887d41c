// Losses that are sums over the outputs, m·Σⱼ wⱼ·s(f(zⱼ), yⱼ), each with its activation f.
#include <cfloat>
#include <string>

#include "logs.h"
#include "rows.h"

namespace dl4py {

template <class T> HD T sign(T x) { return x > 0 ? T(1) : x < 0 ? T(-1) : x; }

template <class T> HD T finite(T x) {
  const T most = sizeof(T) == 8 ? T(DBL_MAX) : T(FLT_MAX);
  return at_most(at_least(x, -most), most);
}
// y/a, finite for every a, as dl4py.losses.base.ratio.
template <class T> HD T ratio(T y, T a) { return y == 0 ? T(0) : finite(y / a); }

// s(a, y), and ∂s/∂a or what DL4J takes for it. p: a number of the loss's own.
template <class T> struct squared {
  double p;
  HD T f(T a, T y) const { return (y - a) * (y - a); }
  HD T df(T a, T y) const { return 2 * (a - y); }
};

template <class T> struct absolute {
  double p;
  HD T f(T a, T y) const { return std::fabs(y - a); }
  HD T df(T a, T y) const { return sign(a - y); }
};

template <class T> struct percentage {
  double p;
  HD T f(T a, T y) const { return std::fabs((y - a) / y); }
  HD T df(T a, T y) const { return -sign((y - a) / y) / y; }
};

// The next ones take l, a logarithm of a, which knows more where a is rounded to 0 (or to -1);
// their slope is by z, from da = ∂a/∂z and dl = ∂l/∂z.
enum class Of { f, one_plus_f };

template <class T> struct logarithmic {
  static constexpr Of log = Of::one_plus_f;
  double p;
  HD T f(T, T l, T y) const { return squared<T>{}.f(l, math::log1p(y)); }
  HD T df(T, T, T l, T dl, T y) const { return squared<T>{}.df(l, math::log1p(y)) * dl; }
};

template <class T> struct poisson {  // p: finite, as DL4J's own numbers
  static constexpr Of log = Of::f;
  double p;
  HD T f(T a, T l, T y) const { return a - (y == 0 ? T(0) : y * l); }
  HD T df(T, T da, T dl, T y) const {
    return da - (y == 0 ? T(0) : p ? finite(y * dl) : y * dl);
  }
};

template <class T> struct divergence {  // p: DL4J's slope
  static constexpr Of log = Of::f;
  double p;
  HD static T least() { return T(1e-5); }
  HD static T clip(T x) { return at_most(at_least(x, least()), T(1)); }
  HD T f(T a, T y) const { return clip(y) * math::log(clip(y) / clip(a)); }
  HD T df(T a, T, T dl, T y) const {
    if (p) return y == 0 ? T(0) : -finite(y * dl);
    return a >= least() && a <= 1 ? -clip(y) * dl : a - a;
  }
};

template <class T> struct hinge {
  double p;
  HD static T gap(T a, T y) { return at_least(1 - y * a, T(0)); }
  HD T f(T a, T y) const { return gap(a, y); }
  HD T df(T a, T y) const { return gap(a, y) == 0 ? T(0) : -y; }
};

template <class T> struct squared_hinge {
  double p;
  HD T f(T a, T y) const { return hinge<T>::gap(a, y) * hinge<T>::gap(a, y); }
  HD T df(T a, T y) const { return -2 * hinge<T>::gap(a, y) * y; }
};

template <class T> struct product {
  double p;
  HD T f(T a, T y) const { return y * a; }
  HD T df(T, T y) const { return y; }
};

template <class T> struct binary {  // p: where DL4J clips, though not in the slope
  double p;
  HD T clip(T a) const {
    const T low = p > 0 ? T(p) : -T(INFINITY), high = p > 0 ? T(1 - p) : T(INFINITY);
    return at_most(at_least(a, low), high);
  }
  HD T f(T a, T y) const {
    T c = clip(a);
    return (y == 0 ? T(0) : -y * math::log(c)) - (y == 1 ? T(0) : (1 - y) * math::log(1 - c));
  }
  HD T df(T a, T y) const {
    T c = clip(a);
    return ratio(c - y, c * (1 - c));
  }
};

template <class T> struct logits {  // -y·ln σ(z) - (1 - y)·ln(1 - σ(z))
  double p;
  HD T f(T z, T y) const {
    T near = math::log1p_to_1(math::exp_below_1(-std::fabs(z)));
    T no = at_least(z, T(0)) + near, yes = at_least(-z, T(0)) + near;
    return (y == 0 ? T(0) : y * yes) + (y == 1 ? T(0) : (1 - y) * no);  // 0·∞
  }
  HD T df(T z, T y) const { return math::sigmoid(z) - y; }
};

// A new loss or activation is added here.
#define DL4PY_EACH_LOSS(X)                                                          \
  X(squared) X(absolute) X(percentage) X(logarithmic) X(poisson) X(divergence)      \
  X(hinge) X(squared_hinge) X(product) X(binary) X(logits)
#define DL4PY_EACH_INNER(X) \
  X(cube) X(hardtanh) X(identity) X(log1exp) X(sigmoid) X(softplus) X(softsign) X(tanh)

template <class L, class T> concept ValueOfLog = requires(L s, T x) { s.f(x, x, x); };
template <class L, class T> concept SlopeOfLog = requires(L s, T x) { s.df(x, x, x, x, x); };
template <class L> concept OfLog = requires { L::log; };

template <class L, class T> HD T value_at(L loss, T a, T l, T y) {
  if constexpr (ValueOfLog<L, T>) return loss.f(a, l, y);
  else return loss.f(a, y);
}
// By z where the loss is of a logarithm, else by a.
template <class L, class T> HD T slope_at(L loss, T a, T da, T l, T dl, T y) {
  if constexpr (SlopeOfLog<L, T>) return loss.df(a, da, l, dl, y);
  else if constexpr (OfLog<L>) return loss.df(a, da, dl, y);
  else return loss.df(a, y);
}

#ifndef __CUDACC__

constexpr int kAbreast = 8;

// Templates cannot carry target_clones. All work on pieces that stay in the first cache, so that
// any loss meets any activation without a kernel of their own. l, da, dl: where they are needed.
#define DL4PY_LOSS(L, T)                                                                      \
  DL4PY_CLONES void value(L<T> loss, const T* a, const T* l, const T* y, T* s, int64_t n) {   \
    for (int64_t e = 0; e < n; ++e) s[e] = value_at(loss, a[e], l[e], y[e]);                  \
  }                                                                                           \
  DL4PY_CLONES void slope(L<T> loss, T by, const T* a, const T* da, const T* l, const T* dl,  \
                          const T* y, T* d, int64_t n) {                                      \
    for (int64_t e = 0; e < n; ++e)                                                           \
      d[e] = by * slope_at(loss, a[e], da[e], l[e], dl[e], y[e]);                             \
  }
#define DL4PY_LOSSES(L) DL4PY_LOSS(L, float) DL4PY_LOSS(L, double)
DL4PY_EACH_LOSS(DL4PY_LOSSES)

#define DL4PY_LOG(LOG, F, T)                                                                  \
  DL4PY_CLONES void LOG##s(F<T> f, const T* z, const T* a, T* l, int64_t n) {                 \
    for (int64_t e = 0; e < n; ++e) l[e] = LOG(f, z[e], a[e]);                                \
  }                                                                                           \
  DL4PY_CLONES void LOG##_slopes(F<T> f, const T* z, const T* a, const T* da, T* dl,          \
                                 int64_t n) {                                                 \
    for (int64_t e = 0; e < n; ++e) dl[e] = LOG##_slope(f, z[e], a[e], da[e]);                \
  }
#define DL4PY_INNER(F, T)                                                                     \
  DL4PY_CLONES void inner(F<T> f, const T* z, T* a, int64_t n) {                              \
    for (int64_t e = 0; e < n; ++e) a[e] = f.f(z[e]);                                         \
  }                                                                                           \
  DL4PY_CLONES void inner(F<T> f, const T* z, T* a, T* d, int64_t n) {                        \
    for (int64_t e = 0; e < n; ++e) a[e] = f.f(z[e]), d[e] = f.df(z[e]);                      \
  }                                                                                           \
  DL4PY_LOG(log_of, F, T)                                                                     \
  DL4PY_LOG(log_above, F, T)
#define DL4PY_INNERS(F) DL4PY_INNER(F, float) DL4PY_INNER(F, double)
DL4PY_EACH_INNER(DL4PY_INNERS)

#define DL4PY_PIECES(T)                                                                      \
  DL4PY_CLONES void multiply(T* __restrict x, const T* __restrict by, int64_t n) {           \
    for (int64_t e = 0; e < n; ++e) x[e] *= by[e];                                           \
  }                                                                                          \
  DL4PY_CLONES T sum(const T* x, int64_t n) {                                                \
    T s = 0;                                                                                 \
    _Pragma("omp simd reduction(+ : s)") for (int64_t e = 0; e < n; ++e) s += x[e];          \
    return s;                                                                                \
  }                                                                                          \
  DL4PY_CLONES void sums(const T* x, int64_t n, int64_t k, T* s) {                           \
    for (int64_t r = 0; r < n; r += kAbreast) { /* one sum would wait for its last addend */ \
      T t[kAbreast] = {};                                                                    \
      for (int64_t j = 0; j < k; ++j)                                                        \
        for (int q = 0; q < kAbreast; ++q) t[q] += x[(r + q) * k + j];                       \
      for (int q = 0; q < kAbreast; ++q) s[r + q] = t[q];                                    \
    }                                                                                        \
  }
DL4PY_PIECES(float)
DL4PY_PIECES(double)

// A loss and an activation by name. inner: null for identity; log: the logarithm that the loss is of.
template <class T> struct Summand {
  double p;
  void (*f)(double p, const T* a, const T* l, const T* y, T* s, int64_t n);
  void (*df)(double p, T by, const T* a, const T* da, const T* l, const T* dl, const T* y, T* d,
             int64_t n);
  void (*inner)(const T* z, T* a, int64_t n);
  void (*inner_d)(const T* z, T* a, T* d, int64_t n);
  void (*log)(const T* z, const T* a, T* l, int64_t n);
  void (*log_d)(const T* z, const T* a, const T* da, T* dl, int64_t n);
  bool value_of_log, slope_of_log;
};

template <class L, class T>
void value_of(double p, const T* a, const T* l, const T* y, T* s, int64_t n) {
  value(L{p}, a, l, y, s, n);
}
template <class L, class T>
void slope_of(double p, T by, const T* a, const T* da, const T* l, const T* dl, const T* y, T* d,
              int64_t n) {
  slope(L{p}, by, a, da, l, dl, y, d, n);
}
template <class F, class T> void inner_of(const T* z, T* a, int64_t n) { inner(F{}, z, a, n); }
template <class F, class T> void inner_d_of(const T* z, T* a, T* d, int64_t n) {
  inner(F{}, z, a, d, n);
}
template <Of of, class F, class T> void logs(const T* z, const T* a, T* l, int64_t n) {
  of == Of::f ? log_ofs(F{}, z, a, l, n) : log_aboves(F{}, z, a, l, n);
}
template <Of of, class F, class T>
void log_slopes(const T* z, const T* a, const T* da, T* dl, int64_t n) {
  of == Of::f ? log_of_slopes(F{}, z, a, da, dl, n) : log_above_slopes(F{}, z, a, da, dl, n);
}

template <class T> Summand<T> summand(const std::string& loss, const std::string& f, double p) {
  Summand<T> s{.p = p};
  std::optional<Of> log;
#define DL4PY_FIND(L)                                                              \
  if (loss == #L) {                                                                \
    s.f = &value_of<L<T>, T>, s.df = &slope_of<L<T>, T>;                           \
    s.value_of_log = ValueOfLog<L<T>, T>, s.slope_of_log = SlopeOfLog<L<T>, T>;    \
    if constexpr (OfLog<L<T>>) log = L<T>::log;                                    \
  }
  DL4PY_EACH_LOSS(DL4PY_FIND)
#undef DL4PY_FIND
#define DL4PY_FIND(F)                                                                         \
  if (f == #F) {                                                                              \
    s.inner = &inner_of<F<T>, T>, s.inner_d = &inner_d_of<F<T>, T>;                           \
    if (log == Of::f) s.log = &logs<Of::f, F<T>, T>, s.log_d = &log_slopes<Of::f, F<T>, T>;   \
    if (log == Of::one_plus_f)                                                                \
      s.log = &logs<Of::one_plus_f, F<T>, T>, s.log_d = &log_slopes<Of::one_plus_f, F<T>, T>; \
  }
  DL4PY_EACH_INNER(DL4PY_FIND)
#undef DL4PY_FIND
  STD_TORCH_CHECK(s.f && s.inner, "dl4py: no loss ", loss, " of ", f);
  if (f == "identity" && !log) s.inner = nullptr;
  return s;
}

// What belongs to the outputs j, spread over a piece of narrow rows.
template <class T> const T* spread_weights(const Rows<T>& a, T* room) {
  for (int64_t e = 0; a.w && e < kPiece / a.k * a.k; ++e) room[e] = a.w[e % a.k];
  return a.w ? room : nullptr;
}

template <class T>
const T* judged(const Rows<T>& a, const Summand<T>& s, int64_t at, const T* w, T* room, int64_t n) {
  alignas(64) T l[kPiece];
  const T* x = a.z + at;
  if (s.inner) s.inner(x, room, n), x = room;
  if (s.value_of_log) s.log(a.z + at, x, l, n);
  s.f(s.p, x, s.value_of_log ? l : x, a.y + at, room, n);
  if (w) multiply(room, w, n);
  return room;
}

template <class T> void sum_forward(const Rows<T>& a, const Summand<T>& s, int64_t i, int64_t last) {
  alignas(64) T room[kPiece + kAbreast * kNarrow], wide[kPiece], of_rows[kPiece + kAbreast];
  auto finish = [&](int64_t i, T sum) {
    a.score[i] = a.counts(i) ? a.scale * (a.m ? a.m[i] * sum : sum) : T(0);
  };
  if (a.k <= kNarrow) {
    const T* w = spread_weights(a, wide);
    for (int64_t n; i < last; i += n) {
      n = std::min(kPiece / a.k, last - i);
      sums(judged(a, s, i * a.k, w, room, n * a.k), n, a.k, of_rows);
      for (int64_t r = 0; r < n; ++r) finish(i + r, of_rows[r]);
    }
    return;
  }
  for (; i < last; ++i) {
    double total = 0;
    for (int64_t j = 0; j < a.k && a.counts(i); j += kPiece) {
      const int64_t n = std::min(kPiece, a.k - j);
      total += double(sum(judged(a, s, i * a.k + j, a.w ? a.w + j : nullptr, room, n), n));
    }
    finish(i, T(total));
  }
}

template <class T>
void slopes(const Rows<T>& a, const Summand<T>& s, int64_t at, T by, const T* w, int64_t n) {
  alignas(64) T active[kPiece], d[kPiece], l[kPiece], dl[kPiece];
  const T* x = a.z + at;
  T* dz = a.dz + at;
  if (s.inner) s.inner_d(x, active, d, n), x = active;
  if (s.slope_of_log) s.log(a.z + at, x, l, n);
  if (s.log) s.log_d(a.z + at, x, d, dl, n);
  s.df(s.p, by, x, s.log ? d : x, s.slope_of_log ? l : x, s.log ? dl : x, a.y + at, dz, n);
  if (s.inner && !s.log) multiply(dz, d, n);
  if (w) multiply(dz, w, n);
}

template <class T> void sum_backward(const Rows<T>& a, const Summand<T>& s, int64_t i, int64_t last) {
  if (!a.m && a.g_stride == 0 && !a.w) {  // all rows as one
    const int64_t end = last * a.k;
    for (int64_t at = i * a.k; at < end; at += kPiece)
      slopes<T>(a, s, at, a.slope(0), nullptr, std::min(kPiece, end - at));
    return;
  }
  if (a.k <= kNarrow) {
    alignas(64) T wide[kPiece], by[kSpread];
    const T* w = spread_weights(a, wide);
    for (int64_t n; i < last; i += n) {
      n = std::min(kPiece / a.k, last - i);
      slopes(a, s, i * a.k, T(1), w, n * a.k);
      for (int64_t r = 0; r < n; ++r)
        spread(by + r * a.k, a.counts(i + r) ? a.slope(i + r) : T(0));
      multiply(a.dz + i * a.k, by, n * a.k);
      for (int64_t r = i; r < i + n; ++r)
        if (!a.counts(r)) no_gradient(a, r);
    }
    return;
  }
  for (; i < last; ++i) {
    if (!a.counts(i)) {
      no_gradient(a, i);
      continue;
    }
    for (int64_t j = 0; j < a.k; j += kPiece)
      slopes(a, s, i * a.k + j, a.slope(i), a.w ? a.w + j : nullptr, std::min(kPiece, a.k - j));
  }
}

template <class T>
void run_sums(const Rows<T>& a, const std::string& loss, const std::string& f, double p) {
  const Summand<T> s = summand<T>(loss, f, p);
  run_rows(a, [&](int64_t i, int64_t last) { sum_forward(a, s, i, last); });
}
template <class T>
void run_sums_d(const Rows<T>& a, const std::string& loss, const std::string& f, double p) {
  const Summand<T> s = summand<T>(loss, f, p);
  run_rows(a, [&](int64_t i, int64_t last) { sum_backward(a, s, i, last); });
}

#else

enum class Inner : int {
#define DL4PY_NAME(F) F,
  DL4PY_EACH_INNER(DL4PY_NAME)
};

// g(F) of the activation f.
template <class T, class G> __device__ T with_inner(Inner f, G g) {
  switch (f) {
#define DL4PY_CASE(F) \
    case Inner::F: return g(F<T>{});
    DL4PY_EACH_INNER(DL4PY_CASE)
  }
  return T(0);
}

template <class L, class T> __device__ T value_of(L loss, Inner f, T z, T y) {
  return with_inner<T>(f, [&](auto f) {
    const T a = f.f(z);
    T l = a;
    if constexpr (ValueOfLog<L, T>) l = L::log == Of::f ? log_of(f, z, a) : log_above(f, z, a);
    return value_at(loss, a, l, y);
  });
}
template <class L, class T> __device__ T slope_of(L loss, Inner f, T z, T y) {
  return with_inner<T>(f, [&](auto f) {
    const T a = f.f(z), da = f.df(z);
    T l = a, dl = da;
    if constexpr (SlopeOfLog<L, T>) l = L::log == Of::f ? log_of(f, z, a) : log_above(f, z, a);
    if constexpr (OfLog<L>) {
      dl = L::log == Of::f ? log_of_slope(f, z, a, da) : log_above_slope(f, z, a, da);
      return slope_at(loss, a, da, l, dl, y);
    } else {
      return slope_at(loss, a, da, l, dl, y) * da;
    }
  });
}

template <class L, class T> __global__ void sum_kernel(Rows<T> a, L l, Inner f) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.y + threadIdx.y;
  if (i >= a.n) return;
  T s = 0;
  const bool on = a.counts(i);
  if (on)
    each(a.z + i * a.k, a.y + i * a.k, a.k,
         [&](int64_t j, T z, T y) { s += a.weight(j) * value_of(l, f, z, y); });
  s = row_sum(s);
  if (threadIdx.x == 0) a.score[i] = !on ? T(0) : a.scale * (a.m ? a.m[i] * s : s);
}

template <class L, class T> __global__ void sum_d_kernel(Rows<T> a, L l, Inner f) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.y + threadIdx.y;
  if (i >= a.n) return;
  const bool on = a.counts(i);
  const T slope = on ? a.slope(i) : T(0);
  map(a.z + i * a.k, a.y + i * a.k, a.dz + i * a.k, a.k, [&](int64_t j, T z, T y) {
    return on ? slope * a.weight(j) * slope_of(l, f, z, y) : T(0);
  });
}

inline Inner inner_named(const std::string& name) {
#define DL4PY_FIND(F) \
  if (name == #F) return Inner::F;
  DL4PY_EACH_INNER(DL4PY_FIND)
#undef DL4PY_FIND
  STD_TORCH_CHECK(false, "dl4py: no loss of ", name);
  return Inner::identity;
}

template <class T>
void run_sums(const Rows<T>& a, const std::string& loss, const std::string& f, double p) {
  const Inner inner = inner_named(f);
#define DL4PY_FIND(L) \
  if (loss == #L) return launch_rows(sum_kernel<L<T>, T>, a, L<T>{p}, inner);
  DL4PY_EACH_LOSS(DL4PY_FIND)
#undef DL4PY_FIND
  STD_TORCH_CHECK(false, "dl4py: no loss ", loss);
}
template <class T>
void run_sums_d(const Rows<T>& a, const std::string& loss, const std::string& f, double p) {
  const Inner inner = inner_named(f);
#define DL4PY_FIND(L) \
  if (loss == #L) return launch_rows(sum_d_kernel<L<T>, T>, a, L<T>{p}, inner);
  DL4PY_EACH_LOSS(DL4PY_FIND)
#undef DL4PY_FIND
  STD_TORCH_CHECK(false, "dl4py: no loss ", loss);
}

#endif

template <class T>
void forward(const Loss& all, const std::string& loss, const std::string& f, double p, double by,
             const Tensor& score) {
  Rows<T> a = rows<T>(all);
  a.scale = T(by);
  a.score = static_cast<T*>(score.data_ptr());
  run_sums(a, loss, f, p);
}

Tensor sum_op(const Tensor& z, const Tensor& y, Maybe w, Maybe m, std::string loss, std::string f,
              double p, double by, bool summed) {
  Loss all = checked(z, y, w, m, false);
  Tensor score = per_row(z);
  if (z.size(1) == 0) {
    zero_(score);
  } else if (z.size(0)) {
    if (z.scalar_type() == ScalarType::Float) forward<float>(all, loss, f, p, by, score);
    else forward<double>(all, loss, f, p, by, score);
  }
  return summed ? sum_of(score) : score;
}

Tensor sum_d_op(const Tensor& z, const Tensor& y, Maybe w, Maybe m, std::string loss,
                std::string f, double p, const Tensor& g, double scale) {
  Loss all = checked(z, y, w, m, false);
  take_gradient(all, g);
  Tensor dz = empty_as(all.z);
  if (dz.numel() == 0) return dz;
  if (z.scalar_type() == ScalarType::Float)
    run_sums_d(rows_backward<float>(all, g, scale, dz), loss, f, p);
  else
    run_sums_d(rows_backward<double>(all, g, scale, dz), loss, f, p);
  return dz;
}

Tensor sigmoid_xent_op(const Tensor& z, const Tensor& y, Maybe w, Maybe m, double by,
                       bool summed) {
  return sum_op(z, y, w, m, "logits", "identity", 0, by, summed);
}
Tensor sigmoid_xent_d_op(const Tensor& z, const Tensor& y, Maybe w, Maybe m, const Tensor& g,
                         double scale) {
  return sum_d_op(z, y, w, m, "logits", "identity", 0, g, scale);
}

STABLE_TORCH_LIBRARY_IMPL(dl4py, DL4PY_DEVICE, m) {
  m.impl("sum_loss", TORCH_BOX(&sum_op));
  m.impl("sum_loss_d", TORCH_BOX(&sum_d_op));
  m.impl("sigmoid_xent", TORCH_BOX(&sigmoid_xent_op));
  m.impl("sigmoid_xent_d", TORCH_BOX(&sigmoid_xent_d_op));
}

}  // namespace dl4py
