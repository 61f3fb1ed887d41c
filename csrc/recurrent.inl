// All steps of a recurrent layer in one op: at each a matrix product and one pass over its gates.
#include <string>
#include <tuple>

#include "activation.h"
#include "logs.h"
#include "rectifiers.h"
#include "sigmoids.h"

namespace dl4py {

// With a slope of its own below 0, as DL4J's: of α = 1, and of a constant in float32.
template <class T> struct elu_steps : elu<T> {
  T slope;
  HD T df(T x) const { return elu<T>{slope}.df(x); }
};
template <class T> struct leakyrelu_steps : leakyrelu<T> {
  T slope;
  HD T df(T x) const { return leakyrelu<T>{slope}.df(x); }
};

// Activations and how many numbers they have. A new one is added here.
#define DL4PY_EACH_STEP(X)                                                            \
  X(cube, 0) X(elu_steps, 2) X(gelu, 1) X(gelutanh, 0) X(hardsigmoid, 1) X(hardtanh, 0)     \
  X(identity, 0) X(leakyrelu_steps, 2) X(log1exp, 0) X(mish, 0) X(rationaltanh, 2)          \
  X(rectifiedtanh, 0) X(rectifier, 3) X(selu, 0) X(sigmoid, 0) X(softplus, 0)         \
  X(softsign, 0) X(tanh, 0) X(thresholdedrelu, 1)

enum class Act : int {
#define DL4PY_NAME(F, numbers) F,
  DL4PY_EACH_STEP(DL4PY_NAME)
#undef DL4PY_NAME
};

struct Named {
  Act act;
  double a, b, c;
  bool softmax = false;  // over the row, in place of act: in plain layers only
};

inline Named named(const std::string& name, double a, double b, double c) {
#define DL4PY_FIND(F, numbers) \
  if (name == #F) return {Act::F, a, b, c};
  DL4PY_EACH_STEP(DL4PY_FIND)
#undef DL4PY_FIND
  STD_TORCH_CHECK(false, "dl4py: no steps with ", name);
  return {};
}

inline Named named_for_rows(const std::string& name, double a, double b, double c) {
  if (name == "softmax") return {Act::identity, 0, 0, 0, true};
  return named(name, a, b, c);
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
// u: where a layer normalises, h of the step before times the weights, then normalised: s = z +
// gain · u, and scale is what u was multiplied by.
template <class T> struct Step {
  T *s, *c, *h, *u, *scale;
  const T *z, *gain;
  const T *before, *p, *m, *m_before;
  T *dh, *dc, *ds, *du;  // gradients; dc comes in for c behind the mask, goes out for `before`
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

// f(j) for each unit of a row.
template <class F> HD void every(int64_t k, F f) {
#pragma omp simd
  for (int64_t j = 0; j < k; ++j) f(j);
}

template <class F> HD double total(int64_t k, F f) {
  double sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < k; ++j) sum += double(f(j));
  return sum;
}

template <class T> HD T largest(const T* x, int64_t k) {
  T most = -std::numeric_limits<T>::infinity();
#pragma omp simd reduction(max : most)
  for (int64_t j = 0; j < k; ++j) most = x[j] > most ? x[j] : most;
  return most;
}

template <class T> HD void row_slopes(const Named& k, const T* x, T* d, int64_t n) {
  alignas(64) T unused[kUnits];
  for (int64_t j = 0; j < n; j += kUnits) slopes(k, x + j, unused, d + j, std::min(kUnits, n - j));
}

#define DL4PY_ROW HD

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

// Of plain layers each row is a warp's; its lanes keep to their own units between sums.
#define DL4PY_ROW __device__

template <class F> __device__ void every(int64_t k, F f) {
  for (int64_t j = threadIdx.x; j < k; j += 32) f(j);
}

template <class F> __device__ double total(int64_t k, F f) {
  double sum = 0;
  every(k, [&](int64_t j) { sum += double(f(j)); });
  for (int half = 16; half > 0; half /= 2) sum += __shfl_xor_sync(~0u, sum, half);
  return sum;
}

template <class T> __device__ T largest(const T* x, int64_t k) {
  T most = -T(INFINITY);
  every(k, [&](int64_t j) { most = x[j] > most ? x[j] : most; });
  for (int half = 16; half > 0; half /= 2) {
    const T other = __shfl_xor_sync(~0u, most, half);
    most = other > most ? other : most;
  }
  return most;
}

template <class T> __device__ void values(const Named& k, const T* x, T* y, int64_t n) {
  every(n, [&](int64_t j) { y[j] = value(k, x[j]); });
}
template <class T> __device__ void row_slopes(const Named& k, const T* x, T* d, int64_t n) {
  every(n, [&](int64_t j) { d[j] = slope(k, x[j]); });
}

#endif

// u = (u - mean) / std, 0 where that is 0, and s = z + gain · u.
template <class T> DL4PY_ROW void normalise(const Step<T>& a, int64_t row) {
  const int64_t k = a.k, at = row * k;
  T* u = a.u + at;
  T* s = a.s + at;
  const T *z = a.z + at, *gain = a.gain;
  const T mean = T(total(k, [=](int64_t j) { return u[j]; }) / k);
  const double squares = total(k, [=](int64_t j) { return (u[j] - mean) * (u[j] - mean); });
  const T variance = T(squares / k), by = variance == 0 ? T(0) : 1 / std::sqrt(variance);
  a.scale[row] = by;
  every(k, [=](int64_t j) {
    u[j] = (u[j] - mean) * by;
    s[j] = z[j] + gain[j] * u[j];
  });
}

template <class T> DL4PY_ROW void normalise_d(const Step<T>& a, int64_t row) {
  const int64_t k = a.k, at = row * k;
  const T *u = a.u + at, *ds = a.ds + at, *gain = a.gain;
  T* du = a.du + at;
  const T mean = T(total(k, [=](int64_t j) { return ds[j] * gain[j]; }) / k);
  const T along = T(total(k, [=](int64_t j) { return ds[j] * gain[j] * u[j]; }) / k);
  const T by = a.scale[row];
  every(k, [=](int64_t j) { du[j] = by * (ds[j] * gain[j] - mean - u[j] * along); });
}

template <class T> DL4PY_ROW void softmax(const T* x, T* y, int64_t k) {
  const T big = largest(x, k);
  every(k, [=](int64_t j) { y[j] = math::exp_below_1(x[j] - big); });
  const T sum = T(total(k, [=](int64_t j) { return y[j]; }));
  every(k, [=](int64_t j) { y[j] /= sum; });
}

template <class T> DL4PY_ROW void rnn_row(const Step<T>& a, int64_t row) {
  const int64_t k = a.k, at = row * k;
  T* h = a.h + at;
  if (a.gain) normalise(a, row);
  if (a.act.softmax) softmax(a.s + at, h, k);
  else values(a.act, a.s + at, h, k);
  const T m = a.mask(row);
  if (a.m) every(k, [=](int64_t j) { h[j] *= m; });
}

template <class T> DL4PY_ROW void rnn_row_d(const Step<T>& a, int64_t row) {
  const int64_t k = a.k, at = row * k;
  const T* dh = a.dh + at;
  T* ds = a.ds + at;
  const T m = a.mask(row);
  if (a.act.softmax) {
    softmax(a.s + at, ds, k);
    const T dot = T(total(k, [=](int64_t j) { return m * dh[j] * ds[j]; }));
    every(k, [=](int64_t j) { ds[j] *= m * dh[j] - dot; });
  } else {
    row_slopes(a.act, a.s + at, ds, k);
    every(k, [=](int64_t j) { ds[j] *= m * dh[j]; });
  }
  if (a.gain) normalise_d(a, row);
}

#ifndef __CUDACC__

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
#define DL4PY_ROWS DL4PY_STEP

#else

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
#define DL4PY_ROWS(name)                                                                  \
  template <class T> __global__ void name##_kernel(Step<T> a) {                           \
    const int64_t row = int64_t(blockIdx.x) * blockDim.y + threadIdx.y;                   \
    if (row < a.n) name(a, row); /* whole warps */                                        \
  }                                                                                       \
  template <class T> void run_##name(const Step<T>& a) {                                  \
    DeviceGuard guard(a.device);                                                          \
    const dim3 threads(32, kThreads / 32);                                                \
    const int64_t blocks = (a.n + threads.y - 1) / threads.y;                             \
    if (blocks) name##_kernel<<<blocks, threads, 0, current_stream(a.device)>>>(a);       \
    const cudaError_t error = cudaGetLastError();                                         \
    STD_TORCH_CHECK(error == cudaSuccess, "dl4py: ", cudaGetErrorString(error));          \
  }

#endif

DL4PY_STEP(lstm_row)
DL4PY_STEP(lstm_row_d)
DL4PY_ROWS(rnn_row)
DL4PY_ROWS(rnn_row_d)

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

// A plain layer's tensors; u and scale are empty without a gain.
struct Plain {
  Tensor h, s, u, scale, gain_;
  bool normed;

  Plain(const Series& all, const Tensor& z, Maybe gain) : normed(gain.has_value()) {
    if (!normed) return;
    same_kind(*gain, z);
    STD_TORCH_CHECK(gain->dim() == 1 && gain->size(0) == all.k, "dl4py: the gain must be [units]");
    gain_ = contiguous(*gain);
  }
  template <class T> Step<T> step(const Series& all, const Tensor& z, const Named& act) const {
    Step<T> a = all.step<T>(z, act, act);
    if (normed) a.gain = place<T>(gain_);
    return a;
  }
  template <class T> void at(const Series& all, Step<T>& a, int64_t t) const {
    const int64_t size = all.n * all.k;
    a.s = place<T>(s, t * size);
    if (normed) a.u = place<T>(u, t * size), a.scale = place<T>(scale, t * all.n);
    all.masks(a, t);
  }
};

template <class T>
void rnn(const Series& all, const Plain& own, const Tensor& z, const Tensor& h0, const Named& act) {
  const Tensor r = all.recurrent(true);
  Step<T> a = own.step<T>(all, z, act);
  for (int64_t t = 0; t < all.steps; ++t) {
    const Tensor before = t ? all.at(own.h, t - 1, all.k) : h0, now = all.at(z, t, all.k);
    add_product(all.at(own.normed ? own.u : own.s, t, all.k), now, before, r, !own.normed);
    own.at(all, a, t);
    a.z = place<T>(z, t * all.n * all.k), a.h = place<T>(own.h, t * all.n * all.k);
    run_rnn_row(a);
  }
}

template <class T>
void rnn_d(const Series& all, const Plain& own, const Tensor& gh, const Tensor& ds,
           const Tensor& du, const Tensor& dh, const Named& act) {
  const Tensor r = all.recurrent(false), &errors = own.normed ? du : ds;
  Step<T> a = own.step<T>(all, gh, act);
  for (int64_t t = all.steps - 1; t >= 0; --t) {
    if (t + 1 < all.steps) add_product(dh, all.at(gh, t, all.k), all.at(errors, t + 1, all.k), r);
    a.dh = t + 1 < all.steps ? place<T>(dh) : place<T>(gh, t * all.n * all.k);
    own.at(all, a, t);
    a.ds = place<T>(ds, t * all.n * all.k);
    if (own.normed) a.du = place<T>(du, t * all.n * all.k);
    run_rnn_row_d(a);
  }
  add_product(dh, dh, all.at(errors, 0, all.k), r, 0);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> rnn_op(const Tensor& z_in, const Tensor& h0,
                                                  const Tensor& rw, Maybe gain, Maybe mask,
                                                  std::string act, double a, double b, double c) {
  const Tensor z = contiguous(z_in);
  const Series all(z, rw, mask, 1);
  all.fits(h0, z, 1);
  const Named inner = named_for_rows(act, a, b, c);
  Plain own(all, z, gain);
  const int64_t normed = own.normed ? all.steps : 0;
  own.h = like(z, all.steps, all.n, all.k), own.s = like(z, all.steps, all.n, all.k);
  own.u = like(z, normed, all.n, all.k), own.scale = rows_like(z, normed, all.n);
  if (z.numel() && z.scalar_type() == ScalarType::Float) rnn<float>(all, own, z, h0, inner);
  else if (z.numel()) rnn<double>(all, own, z, h0, inner);
  return {own.h, own.s, own.u, own.scale};
}

std::tuple<Tensor, Tensor, Tensor> rnn_d_op(const Tensor& gh_in, const Tensor& s, const Tensor& u,
                                            const Tensor& scale, const Tensor& rw, Maybe gain,
                                            Maybe mask, std::string act, double a, double b,
                                            double c) {
  const Series all(s, rw, mask, 1);
  const Tensor gh = contiguous(gh_in);
  all.fits(gh, s, all.steps);
  const Named inner = named_for_rows(act, a, b, c);
  Plain own(all, s, gain);
  own.s = s, own.u = u, own.scale = scale;
  if (own.normed) {
    all.fits(u, s, all.steps), same_kind(scale, s);
    STD_TORCH_CHECK(scale.numel() == all.steps * all.n && scale.is_contiguous(),
                    "dl4py: wrong scale");
  }
  Tensor ds = like(s, all.steps, all.n, all.k), dh = rows_like(s, all.n, all.k);
  Tensor du = like(s, own.normed ? all.steps : 0, all.n, all.k);
  if (s.numel() == 0) return {ds, du, zero_(dh)};
  if (s.scalar_type() == ScalarType::Float) rnn_d<float>(all, own, gh, ds, du, dh, inner);
  else rnn_d<double>(all, own, gh, ds, du, dh, inner);
  return {ds, du, dh};
}

STABLE_TORCH_LIBRARY_IMPL(dl4py, DL4PY_DEVICE, m) {
  m.impl("lstm_steps", TORCH_BOX(&lstm_op));
  m.impl("lstm_steps_d", TORCH_BOX(&lstm_d_op));
  m.impl("rnn_steps", TORCH_BOX(&rnn_op));
  m.impl("rnn_steps_d", TORCH_BOX(&rnn_d_op));
}

}  // namespace dl4py
