// All steps of a recurrent layer in one op: at each a matrix product and one pass over its gates.
#include <string>
#include <tuple>

#include "activation.h"
#include "logs.h"
#include "rectifiers.h"
#include "sigmoids.h"

namespace dl4py {

// Activations and how many numbers they have. A new one is added here.
#define DL4PY_EACH_STEP(X)                                                            \
  X(cube, 0) X(elu, 1) X(gelu, 1) X(gelutanh, 0) X(hardsigmoid, 1) X(hardtanh, 0)     \
  X(identity, 0) X(leakyrelu, 1) X(log1exp, 0) X(mish, 0) X(rationaltanh, 2)          \
  X(rectifiedtanh, 0) X(rectifier, 3) X(selu, 0) X(sigmoid, 0) X(softplus, 0)         \
  X(softsign, 0) X(tanh, 0)

enum class Act : int {
#define DL4PY_NAME(F, numbers) F,
  DL4PY_EACH_STEP(DL4PY_NAME)
#undef DL4PY_NAME
};

struct Named {
  Act act;
  double a, b, c;
};

inline Named named(const std::string& name, double a, double b, double c) {
#define DL4PY_FIND(F, numbers) \
  if (name == #F) return {Act::F, a, b, c};
  DL4PY_EACH_STEP(DL4PY_FIND)
#undef DL4PY_FIND
  STD_TORCH_CHECK(false, "dl4py: no steps with ", name);
  return {};
}

template <class F, class T, int numbers> HD F made(const Named& k) {
  if constexpr (numbers == 0) return F{};
  else if constexpr (numbers == 1) return F{T(k.a)};
  else if constexpr (numbers == 2) return F{T(k.a), T(k.b)};
  else return F{T(k.a), T(k.b), T(k.c)};
}

// use(f) of the activation f.
template <class T, class Use> HD void with(const Named& k, Use use) {
  switch (k.act) {
#define DL4PY_CASE(F, numbers) \
    case Act::F: return use(made<F<T>, T, numbers>(k));
    DL4PY_EACH_STEP(DL4PY_CASE)
#undef DL4PY_CASE
  }
}

template <class F, class T> HD T slope_of(F f, T x) {
  T d = f.df(x);
  if constexpr (requires { f.active(x); }) d = f.active(x) ? d : T(0);
  return d;
}

// One step of n rows of k units. s: sums that go into the gates; those of LSTMs are candidate, f, o
// and i beside each other. c: before the mask. before: c of the step before, and its mask m_before.
// p: peepholes of f, o and i, or null; m: one number per row, or null.
template <class T> struct Step {
  T *s, *c, *h;
  const T *before, *p, *m, *m_before;
  T *dh, *dc, *ds;  // gradients; dc comes in for c behind the mask and goes out for `before`
  int64_t n, k;
  Named act, gate;
  int32_t device;
  // What a mask does to errors. 0: what it does to h and c. 1, as DL4J: nothing, but the slope of
  // act(c) is that behind the mask. 2: the same, and those of the gates are multiplied by it.
  int64_t errors;

  HD T mask_errors(int64_t row) const { return errors ? T(1) : mask(row); }
  HD T mask_gates(int64_t row) const { return errors == 2 ? mask(row) : T(1); }
  HD T mask(int64_t row) const { return m ? m[row] : T(1); }
  HD T mask_before(int64_t row) const { return m_before ? m_before[row] : T(1); }
};

#ifndef __CUDACC__

constexpr int64_t kUnits = 256;  // of a row at a time: stays in the first cache

#define DL4PY_STEP_LOOPS(T)                                                                  \
  DL4PY_CLONES void values(const Named& k, const T* x, T* y, int64_t n) {                    \
    with<T>(k, [&](auto f) __attribute__((always_inline)) {                                  \
      elements(n, [=](T& y, T x) { y = f.f(x); }, y, x);                                     \
    });                                                                                      \
  }                                                                                          \
  DL4PY_CLONES void slopes(const Named& k, const T* x, T* y, T* d, int64_t n) {              \
    with<T>(k, [&](auto f) __attribute__((always_inline)) {                                  \
      elements(n, [=](T& y, T& d, T x) { y = f.f(x), d = slope_of(f, x); }, y, d, x);               \
    });                                                                                      \
  }
DL4PY_STEP_LOOPS(float)
DL4PY_STEP_LOOPS(double)

template <class T> HD void lstm_row(const Step<T>& a, int64_t row) {
  alignas(64) T was[kUnits], x[kUnits], f[kUnits], o[kUnits], i[kUnits];
  const T m = a.mask(row), m_before = a.mask_before(row);
  for (int64_t j = 0; j < a.k; j += kUnits) {
    const int64_t n = std::min(kUnits, a.k - j);
    T* __restrict s = a.s + row * 4 * a.k + j;
    T *s_f = s + a.k, *s_o = s + 2 * a.k, *s_i = s + 3 * a.k;
    const T* __restrict before = a.before + row * a.k + j;
    T* __restrict c = a.c + row * a.k + j;
    T* __restrict h = a.h + row * a.k + j;
    for (int64_t l = 0; l < n; ++l) was[l] = m_before * before[l];
    if (const T* p = a.p ? a.p + j : nullptr)
      for (int64_t l = 0; l < n; ++l) {
        s_f[l] += p[l] * was[l];
        s_i[l] += p[2 * a.k + l] * was[l];
      }
    values(a.act, s, x, n), values(a.gate, s_f, f, n), values(a.gate, s_i, i, n);
    for (int64_t l = 0; l < n; ++l) c[l] = f[l] * was[l] + i[l] * x[l];
    if (const T* p = a.p ? a.p + a.k + j : nullptr)
      for (int64_t l = 0; l < n; ++l) s_o[l] += p[l] * c[l];
    values(a.gate, s_o, o, n), values(a.act, c, x, n);
    for (int64_t l = 0; l < n; ++l) h[l] = m * (o[l] * x[l]);
  }
}

template <class T> HD void lstm_row_d(const Step<T>& a, int64_t row) {
  alignas(64) T x[kUnits], f[kUnits], o[kUnits], i[kUnits], y[kUnits];
  alignas(64) T dx[kUnits], df[kUnits], do_[kUnits], di[kUnits], dy[kUnits];
  const T m = a.mask_errors(row), m_gates = a.mask_gates(row), m_before = a.mask_before(row);
  const T behind = a.errors ? a.mask(row) : T(1);
  for (int64_t j = 0; j < a.k; j += kUnits) {
    const int64_t n = std::min(kUnits, a.k - j);
    const T* s = a.s + row * 4 * a.k + j;
    const T* __restrict before = a.before + row * a.k + j;
    const T* __restrict dh = a.dh + row * a.k + j;
    T* __restrict dc = a.dc + row * a.k + j;
    T* __restrict ds = a.ds + row * 4 * a.k + j;
    slopes(a.act, s, x, dx, n), slopes(a.gate, s + a.k, f, df, n);
    slopes(a.gate, s + 2 * a.k, o, do_, n), slopes(a.gate, s + 3 * a.k, i, di, n);
    const T* __restrict c = a.c + row * a.k + j;
    slopes(a.act, c, y, dy, n);
    if (behind != 1) {
      alignas(64) T seen[kUnits], unused[kUnits];
      for (int64_t l = 0; l < n; ++l) seen[l] = behind * c[l];
      slopes(a.act, seen, unused, dy, n);
    }
    T *ds_f = ds + a.k, *ds_o = ds + 2 * a.k, *ds_i = ds + 3 * a.k;
    for (int64_t l = 0; l < n; ++l) {
      const T error = m * dh[l];
      ds_o[l] = error * y[l] * do_[l];
      dc[l] = m * dc[l] + error * o[l] * dy[l];
    }
    if (const T* p = a.p ? a.p + a.k + j : nullptr)
      for (int64_t l = 0; l < n; ++l) dc[l] += p[l] * ds_o[l];
    for (int64_t l = 0; l < n; ++l) {
      const T error = m_gates * dc[l];
      ds[l] = error * i[l] * dx[l];
      ds_f[l] = error * (m_before * before[l]) * df[l];
      ds_i[l] = error * x[l] * di[l];
      ds_o[l] *= m_gates;
      dc[l] *= f[l];
    }
    if (const T* p = a.p ? a.p + j : nullptr)
      for (int64_t l = 0; l < n; ++l) dc[l] += p[l] * ds_f[l] + p[2 * a.k + l] * ds_i[l];
  }
}

template <class T> HD void rnn_row(const Step<T>& a, int64_t row) {
  T* __restrict h = a.h + row * a.k;
  values(a.act, a.s + row * a.k, h, a.k);
  if (a.m)
    for (int64_t l = 0; l < a.k; ++l) h[l] *= a.m[row];
}

template <class T> HD void rnn_row_d(const Step<T>& a, int64_t row) {
  alignas(64) T x[kUnits], dx[kUnits];
  const T m = a.mask(row);
  for (int64_t j = 0; j < a.k; j += kUnits) {
    const int64_t n = std::min(kUnits, a.k - j), at = row * a.k + j;
    slopes(a.act, a.s + at, x, dx, n);
    for (int64_t l = 0; l < n; ++l) a.ds[at + l] = m * a.dh[at + l] * dx[l];
  }
}

#define DL4PY_STEP_KERNEL(name, T)                                                \
  DL4PY_CLONES void name##_kernel(const Step<T>& a, int64_t first, int64_t last) { \
    for (int64_t row = first; row < last; ++row) name(a, row);                    \
  }
#define DL4PY_STEP(name)                                                                \
  DL4PY_STEP_KERNEL(name, float)                                                        \
  DL4PY_STEP_KERNEL(name, double)                                                       \
  template <class T> void run_##name(const Step<T>& a) {                                \
    const int64_t grain = std::max<int64_t>(1, kGrain / 8 / std::max<int64_t>(1, a.k)); \
    auto rows = [&](int64_t first, int64_t last) { name##_kernel(a, first, last); };    \
    if (a.n <= grain) rows(0, a.n);                                                     \
    else parallel_for(0, a.n, grain, rows);                                             \
  }

#else

template <class T> __device__ T value(const Named& k, T x) {
  T y = 0;
  with<T>(k, [&](auto f) { y = f.f(x); });
  return y;
}
template <class T> __device__ T slope(const Named& k, T x) {
  T d = 0;
  with<T>(k, [&](auto f) { d = slope_of(f, x); });
  return d;
}

template <class T> __device__ void lstm_row(const Step<T>& a, int64_t row, int64_t j) {
  T* s = a.s + row * 4 * a.k + j;
  const int64_t at = row * a.k + j;
  const T was = a.mask_before(row) * a.before[at];
  if (a.p) {
    s[a.k] += a.p[j] * was;
    s[3 * a.k] += a.p[2 * a.k + j] * was;
  }
  const T c = value(a.gate, s[a.k]) * was + value(a.gate, s[3 * a.k]) * value(a.act, s[0]);
  if (a.p) s[2 * a.k] += a.p[a.k + j] * c;
  a.c[at] = c;
  a.h[at] = a.mask(row) * (value(a.gate, s[2 * a.k]) * value(a.act, c));
}

template <class T> __device__ void lstm_row_d(const Step<T>& a, int64_t row, int64_t j) {
  const T* s = a.s + row * 4 * a.k + j;
  T* ds = a.ds + row * 4 * a.k + j;
  const int64_t at = row * a.k + j;
  const T m = a.mask_errors(row), m_gates = a.mask_gates(row);
  const T was = a.mask_before(row) * a.before[at], c = a.c[at];
  const T error = m * a.dh[at], o = s[2 * a.k], seen = a.errors ? a.mask(row) * c : c;
  const T d_o = error * value(a.act, c) * slope(a.gate, o);
  T dc = m * a.dc[at] + error * value(a.gate, o) * slope(a.act, seen);
  if (a.p) dc += a.p[a.k + j] * d_o;
  const T d = m_gates * dc;
  const T df = d * was * slope(a.gate, s[a.k]);
  const T di = d * value(a.act, s[0]) * slope(a.gate, s[3 * a.k]);
  ds[0] = d * value(a.gate, s[3 * a.k]) * slope(a.act, s[0]);
  ds[a.k] = df, ds[2 * a.k] = m_gates * d_o, ds[3 * a.k] = di;
  dc *= value(a.gate, s[a.k]);
  if (a.p) dc += a.p[j] * df + a.p[2 * a.k + j] * di;
  a.dc[at] = dc;
}

template <class T> __device__ void rnn_row(const Step<T>& a, int64_t row, int64_t j) {
  a.h[row * a.k + j] = a.mask(row) * value(a.act, a.s[row * a.k + j]);
}

template <class T> __device__ void rnn_row_d(const Step<T>& a, int64_t row, int64_t j) {
  const int64_t at = row * a.k + j;
  a.ds[at] = a.mask(row) * a.dh[at] * slope(a.act, a.s[at]);
}

#define DL4PY_STEP(name)                                                                  \
  template <class T> __global__ void name##_kernel(Step<T> a) {                           \
    const int64_t at = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;                    \
    if (at < a.n * a.k) name(a, at / a.k, at % a.k);                                      \
  }                                                                                       \
  template <class T> void run_##name(const Step<T>& a) {                                  \
    DeviceGuard guard(a.device);                                                          \
    const int64_t blocks = (a.n * a.k + kThreads - 1) / kThreads;                         \
    if (blocks) name##_kernel<<<blocks, kThreads, 0, current_stream(a.device)>>>(a);      \
    const cudaError_t error = cudaGetLastError();                                         \
    STD_TORCH_CHECK(error == cudaSuccess, "dl4py: ", cudaGetErrorString(error));          \
  }

#endif

DL4PY_STEP(lstm_row)
DL4PY_STEP(lstm_row_d)
DL4PY_STEP(rnn_row)
DL4PY_STEP(rnn_row_d)

inline Tensor like(const Tensor& x, int64_t steps, int64_t n, int64_t k) {
  const int64_t sizes[] = {steps, n, k}, strides[] = {n * k, k, 1};
  return empty(x, 3, sizes, strides);
}

inline Tensor rows_like(const Tensor& x, int64_t n, int64_t k) {
  const int64_t sizes[] = {n, k}, strides[] = {k, 1};
  return empty(x, 2, sizes, strides);
}

inline void same_kind(const Tensor& t, const Tensor& x) {
  check_device(t, x);
  STD_TORCH_CHECK(t.scalar_type() == x.scalar_type(), "dl4py: all tensors must be of one dtype");
}

// What all steps of one call have: [steps, n, gates · k], and a mask [steps, n].
struct Series {
  int64_t steps, n, k, gates;
  Tensor matrix_, mask_;
  bool masked, peepholes;

  Series(const Tensor& z, const Tensor& rw, Maybe mask, int64_t gates)
      : steps(z.size(0)), n(z.size(1)), k(z.size(2) / gates), gates(gates),
        matrix_(contiguous(rw)), masked(mask.has_value()) {
    STD_TORCH_CHECK(z.scalar_type() == ScalarType::Float || z.scalar_type() == ScalarType::Double,
                    "dl4py: z must be float32 or float64");
    same_kind(rw, z);
    peepholes = rw.size(0) == gates * k + 3;
    STD_TORCH_CHECK(z.size(2) == gates * k && rw.size(1) == k &&
                        (rw.size(0) == gates * k || (gates == 4 && peepholes)),
                    "dl4py: the recurrent weight does not fit");
    if (!masked) return;
    same_kind(*mask, z);
    STD_TORCH_CHECK(mask->dim() == 2 && mask->size(0) == steps && mask->size(1) == n,
                    "dl4py: the mask must be [time, n]");
    mask_ = contiguous(*mask);
  }

  void fits(const Tensor& t, const Tensor& z, int64_t columns) const {
    same_kind(t, z);
    STD_TORCH_CHECK(t.numel() == columns * n * k && t.is_contiguous(), "dl4py: wrong state");
  }
  Tensor recurrent(bool turned) const { return matrix(matrix_, 0, gates * k, k, turned); }
  Tensor at(const Tensor& x, int64_t t, int64_t width) const {
    return matrix(x, t * n * width, n, width);
  }
  template <class T> Step<T> step(const Tensor& x, const Named& act, const Named& gate) const {
    Step<T> a{};
    a.n = n, a.k = k, a.act = act, a.gate = gate, a.device = x.get_device_index();
    if (peepholes) a.p = static_cast<const T*>(matrix_.data_ptr()) + gates * k * k;
    return a;
  }
  template <class T> void masks(Step<T>& a, int64_t t) const {
    if (!masked) return;
    const T* m = static_cast<const T*>(mask_.data_ptr());
    a.m = m + t * n;
    a.m_before = t ? m + (t - 1) * n : nullptr;
  }
};

template <class T> T* place(const Tensor& t, int64_t i = 0) {
  return static_cast<T*>(t.data_ptr()) + i;
}

template <class T>
void lstm(const Series& all, const Tensor& z, const Tensor& h0, const Tensor& c0, const Tensor& h,
          const Tensor& c, const Tensor& s, const Named& act, const Named& gate) {
  const int64_t size = all.n * all.k;
  const Tensor r = all.recurrent(true);
  Step<T> a = all.step<T>(z, act, gate);
  for (int64_t t = 0; t < all.steps; ++t) {
    add_product(all.at(s, t, 4 * all.k), all.at(z, t, 4 * all.k),
                t ? all.at(h, t - 1, all.k) : h0, r);
    a.s = place<T>(s, 4 * t * size), a.c = place<T>(c, t * size), a.h = place<T>(h, t * size);
    a.before = t ? place<T>(c, (t - 1) * size) : place<T>(c0);
    all.masks(a, t);
    run_lstm_row(a);
  }
}

template <class T>
void lstm_d(const Series& all, const Tensor& gh, const Tensor& s, const Tensor& c,
            const Tensor& c0, const Tensor& ds, const Tensor& dh, const Tensor& dc,
            const Named& act, const Named& gate, int64_t errors) {
  const int64_t size = all.n * all.k;
  const Tensor r = all.recurrent(false);
  Step<T> a = all.step<T>(s, act, gate);
  a.errors = errors;
  a.dh = place<T>(dh), a.dc = place<T>(dc);
  for (int64_t t = all.steps - 1; t >= 0; --t) {
    const Tensor g = all.at(gh, t, all.k);
    if (t + 1 < all.steps) add_product(dh, g, all.at(ds, t + 1, 4 * all.k), r);
    else a.dh = place<T>(gh, t * size);
    a.s = place<T>(s, 4 * t * size), a.c = place<T>(c, t * size);
    a.ds = place<T>(ds, 4 * t * size);
    a.before = t ? place<T>(c, (t - 1) * size) : place<T>(c0);
    all.masks(a, t);
    run_lstm_row_d(a);
    a.dh = place<T>(dh);
  }
  add_product(dh, dh, all.at(ds, 0, 4 * all.k), r, 0);
}

std::tuple<Tensor, Tensor, Tensor> lstm_op(const Tensor& z_in, const Tensor& h0, const Tensor& c0,
                                           const Tensor& rw, Maybe mask, std::string act, double a,
                                           double b, double c, std::string gate, double d, double e,
                                           double f) {
  const Tensor z = contiguous(z_in);
  const Series all(z, rw, mask, 4);
  all.fits(h0, z, 1), all.fits(c0, z, 1);
  const Named inner = named(act, a, b, c), outer = named(gate, d, e, f);
  Tensor h = like(z, all.steps, all.n, all.k), cell = like(z, all.steps, all.n, all.k);
  Tensor s = like(z, all.steps, all.n, 4 * all.k);
  if (z.numel() == 0) return {h, cell, s};
  if (z.scalar_type() == ScalarType::Float) lstm<float>(all, z, h0, c0, h, cell, s, inner, outer);
  else lstm<double>(all, z, h0, c0, h, cell, s, inner, outer);
  return {h, cell, s};
}

std::tuple<Tensor, Tensor, Tensor> lstm_d_op(const Tensor& gh_in, const Tensor& gc,
                                             const Tensor& s, const Tensor& cell, const Tensor& c0,
                                             const Tensor& rw, Maybe mask, int64_t errors,
                                             std::string act, double a, double b, double c,
                                             std::string gate, double d, double e, double f) {
  const Series all(s, rw, mask, 4);
  const Tensor gh = contiguous(gh_in);
  all.fits(gh, s, all.steps), all.fits(cell, s, all.steps), all.fits(c0, s, 1);
  same_kind(gc, s);
  const Named inner = named(act, a, b, c), outer = named(gate, d, e, f);
  Tensor ds = like(s, all.steps, all.n, 4 * all.k), dh = rows_like(s, all.n, all.k);
  Tensor dc = rows_like(s, all.n, all.k);
  copy_(dc, gc);
  if (s.numel() == 0) return {ds, zero_(dh), dc};
  if (s.scalar_type() == ScalarType::Float)
    lstm_d<float>(all, gh, s, cell, c0, ds, dh, dc, inner, outer, errors);
  else lstm_d<double>(all, gh, s, cell, c0, ds, dh, dc, inner, outer, errors);
  return {ds, dh, dc};
}

template <class T>
void rnn(const Series& all, const Tensor& z, const Tensor& h0, const Tensor& h, const Tensor& s,
         const Named& act) {
  const Tensor r = all.recurrent(true);
  Step<T> a = all.step<T>(z, act, act);
  for (int64_t t = 0; t < all.steps; ++t) {
    add_product(all.at(s, t, all.k), all.at(z, t, all.k), t ? all.at(h, t - 1, all.k) : h0, r);
    a.s = place<T>(s, t * all.n * all.k), a.h = place<T>(h, t * all.n * all.k);
    all.masks(a, t);
    run_rnn_row(a);
  }
}

template <class T>
void rnn_d(const Series& all, const Tensor& gh, const Tensor& s, const Tensor& ds,
           const Tensor& dh, const Named& act) {
  const Tensor r = all.recurrent(false);
  Step<T> a = all.step<T>(s, act, act);
  for (int64_t t = all.steps - 1; t >= 0; --t) {
    if (t + 1 < all.steps)
      add_product(dh, all.at(gh, t, all.k), all.at(ds, t + 1, all.k), r);
    a.dh = t + 1 < all.steps ? place<T>(dh) : place<T>(gh, t * all.n * all.k);
    a.s = place<T>(s, t * all.n * all.k), a.ds = place<T>(ds, t * all.n * all.k);
    all.masks(a, t);
    run_rnn_row_d(a);
  }
  add_product(dh, dh, all.at(ds, 0, all.k), r, 0);
}

std::tuple<Tensor, Tensor> rnn_op(const Tensor& z_in, const Tensor& h0, const Tensor& rw,
                                  Maybe mask, std::string act, double a, double b, double c) {
  const Tensor z = contiguous(z_in);
  const Series all(z, rw, mask, 1);
  all.fits(h0, z, 1);
  const Named inner = named(act, a, b, c);
  Tensor h = like(z, all.steps, all.n, all.k), s = like(z, all.steps, all.n, all.k);
  if (z.numel() == 0) return {h, s};
  if (z.scalar_type() == ScalarType::Float) rnn<float>(all, z, h0, h, s, inner);
  else rnn<double>(all, z, h0, h, s, inner);
  return {h, s};
}

std::tuple<Tensor, Tensor> rnn_d_op(const Tensor& gh_in, const Tensor& s, const Tensor& rw,
                                    Maybe mask, std::string act, double a, double b, double c) {
  const Series all(s, rw, mask, 1);
  const Tensor gh = contiguous(gh_in);
  all.fits(gh, s, all.steps);
  const Named inner = named(act, a, b, c);
  Tensor ds = like(s, all.steps, all.n, all.k), dh = rows_like(s, all.n, all.k);
  if (s.numel() == 0) return {ds, zero_(dh)};
  if (s.scalar_type() == ScalarType::Float) rnn_d<float>(all, gh, s, ds, dh, inner);
  else rnn_d<double>(all, gh, s, ds, dh, inner);
  return {ds, dh};
}

STABLE_TORCH_LIBRARY_IMPL(dl4py, DL4PY_DEVICE, m) {
  m.impl("lstm_steps", TORCH_BOX(&lstm_op));
  m.impl("lstm_steps_d", TORCH_BOX(&lstm_d_op));
  m.impl("rnn_steps", TORCH_BOX(&rnn_op));
  m.impl("rnn_steps_d", TORCH_BOX(&rnn_d_op));
}

}  // namespace dl4py
