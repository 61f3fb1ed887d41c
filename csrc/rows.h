// Losses that give one number per row: sums of s(z, y) over the classes, times weights w and the
// row's mask m. Rows with m = 0 count nothing, whatever is in them.
#pragma once
#include <limits>

#include "activation.h"

namespace dl4py {

// One call. y: labels [n, k], or null and `index`: classes [n]. w, m: or null. g: of the scores.
template <class T> struct Rows {
  const T* z;
  const T* y;
  const int64_t* index;
  const T* w;
  const T* m;
  const T* g;
  int64_t g_stride;
  T scale;  // of the scores, or of g
  T* score;
  T* big;    // max z, kept for the backward pass
  T* part;   // what multiplies exp(z - big) there: Σ w·y / Σ exp(z - big)
  T* dz;
  int64_t n, k;
  T low, high;  // bounds of ln p in the score
  bool unit;    // Σ w·y = 1
  int32_t device;

  HD T weight(int64_t j) const { return w ? w[j] : T(1); }
  HD bool counts(int64_t i) const { return !m || m[i] != 0; }
  HD T slope(int64_t i) const {
    const T s = scale * g[i * g_stride];
    return m ? s * m[i] : s;
  }
  HD bool has_class(int64_t i) const { return index[i] >= 0 && index[i] < k; }
  HD T minus_log(T d) const { return -at_most(at_least(d, low), high); }  // of p, d = ln p
};

#ifndef __CUDACC__

constexpr int kTile = 64, kNarrow = 32;  // rows of at most kNarrow classes go in tiles
constexpr int64_t kPiece = 1024;  // elements at a time; their float sum then goes into a double

template <class T> HD void no_gradient(const Rows<T>& a, int64_t i) {
  for (int64_t j = 0; j < a.k; ++j) a.dz[i * a.k + j] = 0;
}

// Rows of at most kNarrow elements as one: what belongs to a row is spread over its elements, in
// stores of a fixed width whose rest the next row overwrites.
constexpr int64_t kSpread = kPiece + kNarrow;

// g++ 11 takes two rows at once there and so swaps their stores.
#if !defined(__clang__) && !defined(__CUDACC__) && __GNUC__ < 12
#define DL4PY_ROW_DONE __asm__ volatile("" ::: "memory")
#else
#define DL4PY_ROW_DONE
#endif

template <class T> HD void spread(T* at, T value) {
  for (int j = 0; j < kNarrow; ++j) at[j] = value;
  DL4PY_ROW_DONE;
}

template <class T> HD void spread_slopes(const Rows<T> a, int64_t i, int64_t n, T* slope) {
  alignas(64) T w[kNarrow] = {};
  for (int64_t j = 0; j < a.k; ++j) w[j] = a.weight(j);
  for (int64_t r = 0; r < n; ++r) {
    const T g = a.counts(i + r) ? a.slope(i + r) : T(0);
    for (int j = 0; j < kNarrow; ++j) slope[r * a.k + j] = g * w[j];
    DL4PY_ROW_DONE;
  }
}

// kernel(first row, last row) for all rows, in threads.
template <class T, class F> void run_rows(const Rows<T>& a, F kernel) {
  const int64_t tiles = (a.n + kTile - 1) / kTile, grain = std::max<int64_t>(1, kGrain / 2 / a.k);
  if (a.k > kNarrow) {
    if (a.n <= grain) return kernel(0, a.n);
    return parallel_for(0, a.n, grain, kernel);
  }
  auto some = [&](int64_t first, int64_t last) {
    kernel(first * kTile, std::min(a.n, last * kTile));
  };
  const int64_t grain_tiles = (grain + kTile - 1) / kTile;
  if (tiles <= grain_tiles) some(0, tiles);
  else parallel_for(0, tiles, grain_tiles, some);
}

#else

constexpr int kRowThreads = 256;

// Threads (x, y): x work on one row together, y rows to a block; x is 32 or all threads.
template <class T, class F> __device__ T over_row(T v, F join) {
  for (int half = 16; half > 0; half /= 2) v = join(v, __shfl_xor_sync(~0u, v, half));
  if (blockDim.x == 32) return v;
  __shared__ T warps[kRowThreads / 32];
  __syncthreads();
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = v;
  __syncthreads();
  v = warps[0];
  for (int k = 1; k < kRowThreads / 32; ++k) v = join(v, warps[k]);
  return v;
}
template <class T> __device__ T row_sum(T v) {
  return over_row(v, [](T a, T b) { return a + b; });
}

// f(j, zⱼ, yⱼ) for the thread's share of a row, 16 bytes at a time where the row begins at a
// multiple of them; y: or null.
template <class T, class F> __device__ void each(const T* z, const T* y, int64_t k, F f) {
  constexpr int width = sizeof(Pack<T>) / sizeof(T);
  const int64_t packs = (uintptr_t(z) | uintptr_t(y)) % 16 == 0 ? k / width : 0;
  for (int64_t p = threadIdx.x; p < packs; p += blockDim.x) {
    const Pack<T> u = reinterpret_cast<const Pack<T>*>(z)[p];
    const Pack<T> v = y ? reinterpret_cast<const Pack<T>*>(y)[p] : Pack<T>{};
#pragma unroll
    for (int q = 0; q < width; ++q) f(p * width + q, u.v[q], v.v[q]);
  }
  for (int64_t j = packs * width + threadIdx.x; j < k; j += blockDim.x)
    f(j, z[j], y ? y[j] : T(0));
}

// dzⱼ = f(j, zⱼ, yⱼ), likewise.
template <class T, class F> __device__ void map(const T* z, const T* y, T* dz, int64_t k, F f) {
  constexpr int width = sizeof(Pack<T>) / sizeof(T);
  const auto places = uintptr_t(z) | uintptr_t(y) | uintptr_t(dz);
  const int64_t packs = places % 16 == 0 ? k / width : 0;
  for (int64_t p = threadIdx.x; p < packs; p += blockDim.x) {
    const Pack<T> u = reinterpret_cast<const Pack<T>*>(z)[p];
    const Pack<T> v = y ? reinterpret_cast<const Pack<T>*>(y)[p] : Pack<T>{};
    Pack<T> d;
#pragma unroll
    for (int q = 0; q < width; ++q) d.v[q] = f(p * width + q, u.v[q], v.v[q]);
    reinterpret_cast<Pack<T>*>(dz)[p] = d;
  }
  for (int64_t j = packs * width + threadIdx.x; j < k; j += blockDim.x)
    dz[j] = f(j, z[j], y ? y[j] : T(0));
}

template <class T, class... A, class... B>
void launch_rows(void (*kernel)(Rows<T>, A...), const Rows<T>& a, B... b) {
  DeviceGuard guard(a.device);
  const dim3 threads = a.k <= 1024 ? dim3(32, kRowThreads / 32) : dim3(kRowThreads, 1);
  const int64_t blocks = (a.n + threads.y - 1) / threads.y;
  kernel<<<blocks, threads, 0, current_stream(a.device)>>>(a, b...);
  const cudaError_t error = cudaGetLastError();
  STD_TORCH_CHECK(error == cudaSuccess, "dl4py: ", cudaGetErrorString(error));
}

#endif

struct Loss {
  Tensor z, y, w, m;
  bool sparse;
};

// Each of torch's functions looks its operator up by name: only where it has something to do.
inline Tensor as_rows(const Tensor& t) {
  return t.is_contiguous() ? t : contiguous(t);
}

inline Tensor vector_for(const Tensor& t, const Tensor& z, int64_t n) {
  check_device(t, z);
  STD_TORCH_CHECK(t.dim() == 1 && t.size(0) == n && t.scalar_type() == z.scalar_type(),
                  "dl4py: weights, masks and gradients of a loss must be vectors like the output");
  return as_rows(t);
}

inline Loss checked(const Tensor& z, const Tensor& y, Maybe w, Maybe m, bool may_be_sparse) {
  const ScalarType type = z.scalar_type();
  STD_TORCH_CHECK(z.dim() == 2 && (type == ScalarType::Float || type == ScalarType::Double),
                  "dl4py: the output of a loss must be [n, K] in float32 or float64");
  check_device(y, z);
  Loss all;
  all.sparse = may_be_sparse && y.dim() == 1;
  if (all.sparse) {
    STD_TORCH_CHECK(y.size(0) == z.size(0) && y.scalar_type() == ScalarType::Long,
                    "dl4py: class indices must be [n] in int64");
  } else {
    STD_TORCH_CHECK(y.dim() == 2 && y.size(0) == z.size(0) && y.size(1) == z.size(1) &&
                        y.scalar_type() == type,
                    "dl4py: labels must be [n, K] in the dtype of the output");
  }
  all.z = as_rows(z);
  all.y = as_rows(y);
  if (w) all.w = vector_for(*w, z, z.size(1));
  if (m) all.m = vector_for(*m, z, z.size(0));
  return all;
}

template <class T> const T* pointer(const Tensor& t) {
  return t.defined() ? static_cast<const T*>(t.data_ptr()) : nullptr;
}

template <class T> Rows<T> rows(const Loss& all) {
  return {.z = pointer<T>(all.z),
          .y = all.sparse ? nullptr : pointer<T>(all.y),
          .index = all.sparse ? static_cast<const int64_t*>(all.y.data_ptr()) : nullptr,
          .w = pointer<T>(all.w),
          .m = pointer<T>(all.m),
          .g = nullptr,
          .g_stride = 1,
          .scale = 1,
          .n = all.z.size(0),
          .k = all.z.size(1),
          .low = -std::numeric_limits<T>::infinity(),
          .high = std::numeric_limits<T>::infinity(),
          .device = all.z.get_device_index()};
}

inline Tensor per_row(const Tensor& z) {
  const int64_t n = z.size(0), step = 1;
  return empty(z, 1, &n, &step);
}

// Σ of the scores, in doubles on a CPU.
inline Tensor sum_of(const Tensor& score) {
#ifdef __CUDACC__
  return sum_all(score);
#else
  Tensor total = empty(score, 0, nullptr, nullptr);
  double sum = 0;
  const int64_t n = score.size(0);
  if (score.scalar_type() == ScalarType::Float) {
    const float* s = static_cast<const float*>(score.data_ptr());
    for (int64_t i = 0; i < n; ++i) sum += s[i];
    *static_cast<float*>(total.data_ptr()) = float(sum);
  } else {
    const double* s = static_cast<const double*>(score.data_ptr());
    for (int64_t i = 0; i < n; ++i) sum += s[i];
    *static_cast<double*>(total.data_ptr()) = sum;
  }
  return total;
#endif
}

// The gradient of the scores may be one number for all.
inline void take_gradient(const Loss& all, const Tensor& g) {
  check_device(g, all.z);
  STD_TORCH_CHECK((g.dim() == 0 || (g.dim() == 1 && g.size(0) == all.z.size(0))) &&
                      g.scalar_type() == all.z.scalar_type(),
                  "dl4py: the gradient of the scores must be [n] in the dtype of the output");
}

template <class T>
Rows<T> rows_backward(const Loss& all, const Tensor& g, double scale, const Tensor& dz) {
  Rows<T> a = rows<T>(all);
  a.g = static_cast<const T*>(g.data_ptr());
  a.g_stride = g.dim() ? g.stride(0) : 0;
  a.scale = T(scale);
  a.dz = static_cast<T*>(dz.data_ptr());
  return a;
}

}  // namespace dl4py
