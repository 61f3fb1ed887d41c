// Steps of conjugate gradients and L-BFGS on flat vectors: one pass over memory, the sum in float64.
#include <initializer_list>
#include <vector>

#include "activation.h"

namespace dl4py {

// One element: changes the first `changed` vectors and returns what is summed. a: the step.
struct dot {
  static constexpr int vectors = 2, changed = 0;
  template <class T> HD static double at(T, T& x, T& y, T&, T&) { return double(x) * double(y); }
};

struct axpy_dot {  // y ← y + a·x,  Σ y·z
  static constexpr int vectors = 3, changed = 1;
  template <class T> HD static double at(T a, T& y, T& x, T& z, T&) {
    y += a * x;
    return double(y) * double(z);
  }
};

struct axpy_norm {  // y ← y + a·x,  Σ y²
  static constexpr int vectors = 2, changed = 1;
  template <class T> HD static double at(T a, T& y, T& x, T&, T&) {
    y += a * x;
    return double(y) * double(y);
  }
};

struct cg_step {  // x ← x + a·p,  r ← r - a·q,  Σ r²
  static constexpr int vectors = 4, changed = 2;
  template <class T> HD static void first(T a, T& x, T&, T& p, T&) { x += a * p; }
  template <class T> HD static double at(T a, T&, T& r, T&, T& q) {
    r -= a * q;
    return double(r) * double(r);
  }
};
struct over_dot {  // Σ r · (r / m)
  static constexpr int vectors = 2, changed = 0;
  template <class T> HD static double at(T, T& r, T& m, T&, T&) { return double(r) * double(r / m); }
};

struct turn {  // p ← b·p + r
  static constexpr int vectors = 2, changed = 1;
  template <class T> HD static double at(T b, T& p, T& r, T&, T&) {
    p = b * p + r;
    return 0;
  }
};

struct turn_over {  // p ← b·p + r / m
  static constexpr int vectors = 3, changed = 1;
  template <class T> HD static double at(T b, T& p, T& r, T& m, T&) {
    p = b * p + r / m;
    return 0;
  }
};

// What is known of a run of conjugate gradients, in float64 on the device of its vectors.
enum State { kGoesOn, kCount, kSquare, kFirst, kSecond, kModels };

struct length {  // from p·q in kFirst: a, to kFirst; φᵢ
  int64_t i;
  HD void operator()(double* s) const {
    const bool goes_on = s[kGoesOn] != 0 && s[kFirst] > 0;
    const double a = goes_on ? s[kSquare] / s[kFirst] : 0;
    s[kGoesOn] = goes_on;
    s[kCount] += goes_on;
    s[kModels + i] = s[kModels + i - 1] - 0.5 * a * s[kSquare];
    s[kFirst] = a;
  }
};

struct turning {  // from r·y in kSecond: b, to kSecond; whether to go on
  int64_t i, window;
  double tolerance;
  HD void operator()(double* s) const {
    const double square = s[kSecond], phi = s[kModels + i];
    s[kSecond] = s[kGoesOn] != 0 ? square / s[kSquare] : 0;
    s[kSquare] = square;
    if (window && !(phi * (1 - window * tolerance) <= s[kModels + i - window])) s[kGoesOn] = 0;
  }
};

template <class F> concept HasFirst = requires(float x) { F::first(x, x, x, x, x); };

constexpr int kVectors = 4;  // at most; the pointers that a call does not need repeat the first
template <class T> struct Vectors { T* v[kVectors]; };

constexpr int64_t kPart = 16384;  // elements of one partial sum, whatever the number of threads
constexpr int64_t kNear = 512;    // elements that stay in the first cache

#ifndef __CUDACC__

template <class F, class T> HD double sum(const Vectors<T>& all, T a, int64_t first, int64_t n) {
  constexpr int lanes = 16;
  double s[lanes] = {};
  T* __restrict x = all.v[0] + first;
  T* __restrict y = all.v[1] + first;
  T* __restrict p = all.v[2] + first;
  T* __restrict q = all.v[3] + first;
  for (int64_t i = 0; i < n;) {
    const int64_t end = std::min(n, i + kNear);
    if constexpr (HasFirst<F>)  // a loop of its own: four streams at once are 1.4 times slower
      for (int64_t j = i; j < end; ++j) F::first(a, x[j], y[j], p[j], q[j]);
    for (; i + lanes <= end; i += lanes)
      for (int l = 0; l < lanes; ++l) s[l] += F::at(a, x[i + l], y[i + l], p[i + l], q[i + l]);
    for (; i < end; ++i) s[0] += F::at(a, x[i], y[i], p[i], q[i]);
  }
  for (int half = lanes / 2; half > 0; half /= 2)
    for (int l = 0; l < half; ++l) s[l] += s[l + half];
  return s[0];
}

// Templates cannot carry target_clones.
#define DL4PY_SUM(F, T)                                                                   \
  DL4PY_STREAMING double part(F, const Vectors<T>& all, T a, int64_t first, int64_t n) {  \
    return sum<F>(all, a, first, n);                                                      \
  }
#define DL4PY_SUMS(F) DL4PY_SUM(F, float) DL4PY_SUM(F, double)
DL4PY_SUMS(dot)
DL4PY_SUMS(axpy_dot)
DL4PY_SUMS(axpy_norm)
DL4PY_SUMS(cg_step)
DL4PY_SUMS(over_dot)
DL4PY_SUMS(turn)
DL4PY_SUMS(turn_over)

template <class F, class T>
void run(const Vectors<T>& all, const double* a, int64_t n, double* result, const Tensor&) {
  int64_t parts = (n + kPart - 1) / kPart;
  std::vector<double> sums(parts);
  const T step = a ? T(*a) : T(0);
  auto some = [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k)
      sums[k] = part(F{}, all, step, k * kPart, std::min(kPart, n - k * kPart));
  };
  if (parts <= 2) some(0, parts);
  else parallel_for(0, parts, 2, some);
  double total = 0;
  for (double s : sums) total += s;
  *result = total;
}

template <class F> void once(const F& f, double* state, const Tensor&) { f(state); }

#else

constexpr int kSumThreads = 256, kSumBlocks = 1024;

__device__ inline double block_sum(double s) {
  __shared__ double warps[kSumThreads / 32];
  for (int half = 16; half > 0; half /= 2) s += __shfl_down_sync(~0u, s, half);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = s;
  __syncthreads();
  s = threadIdx.x < kSumThreads / 32 ? warps[threadIdx.x] : 0;
  if (threadIdx.x < 32)
    for (int half = 16; half > 0; half /= 2) s += __shfl_down_sync(~0u, s, half);
  return s;
}

template <class F, class T> __device__ double element(T by, T* v) {
  constexpr int n = F::vectors;
  T &x = v[0], &y = v[1], &p = v[n > 2 ? 2 : 0], &q = v[n > 3 ? 3 : 0];
  if constexpr (HasFirst<F>) F::first(by, x, y, p, q);
  return F::at(by, x, y, p, q);
}

// Where blocks leave their sums. The last one to end, by `ended`, adds them up in their order, so that
// the result does not depend on who that is.
struct Sums {
  double* result;
  double* blocks;
  unsigned* ended;  // starts at 0; not looked at by a block that is alone
};

__device__ inline void grid_sum(double s, const Sums& to) {
  s = block_sum(s);
  if (gridDim.x == 1) {
    if (threadIdx.x == 0) *to.result = s;
    return;
  }
  __shared__ bool last;
  if (threadIdx.x == 0) {
    to.blocks[blockIdx.x] = s;
    __threadfence();
    last = atomicAdd(to.ended, 1u) == gridDim.x - 1;
    __threadfence();
  }
  __syncthreads();
  if (!last) return;
  s = 0;
  for (int i = threadIdx.x; i < int(gridDim.x); i += kSumThreads) s += __ldcg(to.blocks + i);
  s = block_sum(s);
  if (threadIdx.x == 0) *to.result = s;
}

// 16 bytes at a time where every pointer allows it; what is left, element by element.
template <class F, class T>
__global__ void vector_kernel(Vectors<T> all, const double* a, int64_t n, Sums to) {
  constexpr int width = sizeof(Pack<T>) / sizeof(T);
  const int64_t first = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  const int64_t step = int64_t(gridDim.x) * blockDim.x;
  const T by = a ? T(*a) : T(0);
  uintptr_t places = 0;
  for (int k = 0; k < F::vectors; ++k) places |= uintptr_t(all.v[k]);
  const int64_t packs = places % 16 == 0 ? n / width : 0;
  double s = 0;
  for (int64_t i = first; i < packs; i += step) {
    Pack<T> v[F::vectors];
#pragma unroll
    for (int k = 0; k < F::vectors; ++k) v[k] = reinterpret_cast<Pack<T>*>(all.v[k])[i];
#pragma unroll
    for (int j = 0; j < width; ++j) {
      T one[F::vectors];
      for (int k = 0; k < F::vectors; ++k) one[k] = v[k].v[j];
      s += element<F>(by, one);
      for (int k = 0; k < F::changed; ++k) v[k].v[j] = one[k];
    }
#pragma unroll
    for (int k = 0; k < F::changed; ++k) reinterpret_cast<Pack<T>*>(all.v[k])[i] = v[k];
  }
  for (int64_t i = packs * width + first; i < n; i += step) {
    T one[F::vectors];
    for (int k = 0; k < F::vectors; ++k) one[k] = all.v[k][i];
    s += element<F>(by, one);
    for (int k = 0; k < F::changed; ++k) all.v[k][i] = one[k];
  }
  grid_sum(s, to);
}

inline void check(cudaError_t error) {
  STD_TORCH_CHECK(error == cudaSuccess, "dl4py: ", cudaGetErrorString(error));
}

template <class F> __global__ void once_kernel(F f, double* state) { f(state); }

template <class F> void once(const F& f, double* state, const Tensor& like) {
  DeviceGuard guard(like.get_device_index());
  once_kernel<<<1, 1, 0, current_stream(like.get_device_index())>>>(f, state);
  check(cudaGetLastError());
}

template <class F, class T>
void run(const Vectors<T>& all, const double* a, int64_t n, double* result,
         const Tensor& like) {
  DeviceGuard guard(like.get_device_index());
  const cudaStream_t stream = current_stream(like.get_device_index());
  const int64_t needed = std::max<int64_t>(1, (n + kSumThreads - 1) / kSumThreads);
  const int blocks = int(std::min<int64_t>(needed, kSumBlocks));
  Tensor kept = new_empty(like, {blocks > 1 ? blocks + 1 : 0}, ScalarType::Double);
  double* sums = static_cast<double*>(kept.data_ptr());
  const Sums to{result, sums, reinterpret_cast<unsigned*>(sums + blocks)};
  cudaError_t error = cudaSuccess;
  if (blocks > 1) error = cudaMemsetAsync(to.ended, 0, sizeof(unsigned), stream);
  if (error == cudaSuccess) {
    vector_kernel<F, T><<<blocks, kSumThreads, 0, stream>>>(all, a, n, to);
    error = cudaGetLastError();
  }
  check(error);
}

#endif

template <class F, class T>
void launch_sum(const Tensor* const (&t)[F::vectors], const double* a, double* result) {
  Vectors<T> all;
  for (int k = 0; k < kVectors; ++k)
    all.v[k] = static_cast<T*>(t[k < F::vectors ? k : 0]->data_ptr());
  run<F, T>(all, a, t[0]->numel(), result, *t[0]);
}

inline void check_vectors(std::initializer_list<const Tensor*> all) {
  const Tensor& x = **all.begin();
  const ScalarType type = x.scalar_type();
  STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::Double,
                  "dl4py: vectors must be float32 or float64");
  for (const Tensor* other : all) {
    check_device(*other, x);
    STD_TORCH_CHECK(other->scalar_type() == type && other->numel() == x.numel() &&
                        other->is_contiguous(),
                    "dl4py: vectors must be contiguous and of one size and dtype");
  }
}

template <class F>
Tensor summed(const Tensor* a, const Tensor* const (&t)[F::vectors]) {
  const Tensor& x = *t[0];
  const ScalarType type = x.scalar_type();
  for (const Tensor* other : t) check_vectors({&x, other});
  if (a) {
    check_device(*a, x);
    STD_TORCH_CHECK(a->scalar_type() == ScalarType::Double && a->numel() == 1,
                    "dl4py: the step must be one float64 number");
  }
  Tensor result = new_empty(x, {}, ScalarType::Double);
  const double* step = a ? static_cast<const double*>(a->data_ptr()) : nullptr;
  double* to = static_cast<double*>(result.data_ptr());
  if (type == ScalarType::Float) launch_sum<F, float>(t, step, to);
  else launch_sum<F, double>(t, step, to);
  return result;
}

Tensor dot_op(const Tensor& x, const Tensor& y) { return summed<dot>(nullptr, {&x, &y}); }

Tensor axpy_dot_op(Tensor y, const Tensor& a, const Tensor& x, const Tensor& z) {
  if (z.data_ptr() == y.data_ptr()) return summed<axpy_norm>(&a, {&y, &x});
  return summed<axpy_dot>(&a, {&y, &x, &z});
}

Tensor cg_step_op(Tensor x, Tensor r, const Tensor& a, const Tensor& p, const Tensor& q) {
  return summed<cg_step>(&a, {&x, &r, &p, &q});
}

template <class T>
void iterate(const Tensor& x, const Tensor& r, const Tensor& p, const Tensor& q, const Tensor* m,
             double* s, const length& first, const turning& second) {
  launch_sum<dot, T>({&p, &q}, nullptr, s + kFirst);
  once(first, s, x);
  launch_sum<cg_step, T>({&x, &r, &p, &q}, s + kFirst, s + kSecond);
  if (m) launch_sum<over_dot, T>({&r, m}, nullptr, s + kSecond);
  once(second, s, x);
  if (m) launch_sum<turn_over, T>({&p, &r, m}, s + kSecond, s + kFirst);
  else launch_sum<turn, T>({&p, &r}, s + kSecond, s + kFirst);
}

void cg_iterate_op(Tensor x, Tensor r, Tensor p, const Tensor& q, Maybe scale, Tensor state,
                   int64_t i, int64_t window, double tolerance) {
  check_vectors({&x, &r, &p, &q, scale ? &*scale : &x});
  check_device(state, x);
  STD_TORCH_CHECK(state.scalar_type() == ScalarType::Double && state.is_contiguous() &&
                      0 < i && 0 <= window && window <= i && kModels + i < state.numel(),
                  "dl4py: the state must be float64 and long enough for the iteration");
  double* s = static_cast<double*>(state.data_ptr());
  const Tensor* m = scale ? &*scale : nullptr;
  const length first{i};
  const turning second{i, window, tolerance};
  if (x.scalar_type() == ScalarType::Float) iterate<float>(x, r, p, q, m, s, first, second);
  else iterate<double>(x, r, p, q, m, s, first, second);
}

STABLE_TORCH_LIBRARY_IMPL(dl4py, DL4PY_DEVICE, m) {
  m.impl("dot", TORCH_BOX(&dot_op));
  m.impl("axpy_dot_", TORCH_BOX(&axpy_dot_op));
  m.impl("cg_step_", TORCH_BOX(&cg_step_op));
  m.impl("cg_iterate_", TORCH_BOX(&cg_iterate_op));
}

}  // namespace dl4py
