// Softmax with cross entropy, and losses that are sums of f(z, y) over the outputs.
#include "losses.h"

namespace dl4py {

template <class T> struct sigmoid_xent {  // -y·ln σ(z) - (1 - y)·ln(1 - σ(z))
  HD static T f(T z, T y) {
    T near = math::log1p_to_1(math::exp_below_1(-std::fabs(z)));
    T no = at_least(z, T(0)) + near, yes = at_least(-z, T(0)) + near;
    return (y == 0 ? T(0) : y * yes) + (y == 1 ? T(0) : (1 - y) * no);  // 0·∞
  }
  HD static T df(T z, T y) { return math::sigmoid(z) - y; }
};

#ifndef __CUDACC__

constexpr int kLanes = 16, kTile = 64, kNarrow = 32;
constexpr int64_t kPiece = 1024;  // elements at a time; their float sum then goes into a double

template <class T> HD void finish_row(const Rows<T>& a, int64_t i, T big, T log_sum, T total,
                                      T score) {
  T by = a.m ? a.m[i] : T(1);
  a.lse[i] = big + log_sum;
  a.total[i] = a.unit ? T(1) : total;
  a.score[i] = by * score;
}

template <class T> HD void skip_row(const Rows<T>& a, int64_t i) {
  a.lse[i] = a.total[i] = a.score[i] = 0;
}

// The label of row i is one class: what it adds to the score.
template <class T> HD T one_class(const Rows<T>& a, int64_t i, T log_normaliser, T& total) {
  total = 0;
  if (!a.has_class(i)) return 0;
  total = a.weight(a.index[i]);
  return total * a.minus_log(a.z[i * a.k + a.index[i]] - log_normaliser);
}

template <bool labels, class T> HD void softmax_row(const Rows<T> a, int64_t i) {
  const T* z = a.z + i * a.k;
  T most[kLanes], big = -std::numeric_limits<T>::infinity();
  for (int l = 0; l < kLanes; ++l) most[l] = big;
  int64_t j = 0;
  for (; j + kLanes <= a.k; j += kLanes)
    for (int l = 0; l < kLanes; ++l) most[l] = z[j + l] > most[l] ? z[j + l] : most[l];
  for (; j < a.k; ++j) big = z[j] > big ? z[j] : big;
  for (int l = 0; l < kLanes; ++l) big = most[l] > big ? most[l] : big;
  double sum = 0, labelled = 0, scored = 0;
  for (int64_t j = 0; j < a.k; j += kPiece) {
    const int64_t end = std::min(a.k, j + kPiece);
    T s = 0;
#pragma omp simd reduction(+ : s)
    for (int64_t l = j; l < end; ++l) s += math::exp_below_1(z[l] - big);
    sum += double(s);
  }
  const T log_sum = math::log(T(sum));
  T total = 0, score = 0;
  if (labels) {
    const T* y = a.y + i * a.k;
    const T* w = a.w;
    for (int64_t j = 0; j < a.k; j += kPiece) {
      const int64_t end = std::min(a.k, j + kPiece);
      T s = 0, f = 0;
      if (w) {
#pragma omp simd reduction(+ : s, f)
        for (int64_t l = j; l < end; ++l) {
          T t = w[l] * y[l], minus = a.minus_log(z[l] - big - log_sum);
          s += t;
          f += t == 0 ? T(0) : t * minus;
        }
      } else {
#pragma omp simd reduction(+ : s, f)
        for (int64_t l = j; l < end; ++l) {
          T t = y[l], minus = a.minus_log(z[l] - big - log_sum);
          s += t;
          f += t == 0 ? T(0) : t * minus;
        }
      }
      labelled += double(s);
      scored += double(f);
    }
    total = T(labelled), score = T(scored);
  } else {
    score = one_class(a, i, big + log_sum, total);
  }
  finish_row(a, i, big, log_sum, total, score);
}

// kTile rows of few classes, turned so that lanes are rows.
template <class T> HD void softmax_tile(const Rows<T> a, int64_t first, int rows) {
  alignas(64) T z[kNarrow][kTile], t[kNarrow][kTile];
  alignas(64) T big[kTile], sum[kTile] = {}, total[kTile] = {}, score[kTile] = {}, log_sum[kTile];
  const int k = int(a.k);
  for (int j = 0; rows < kTile && j < k; ++j)
    for (int r = rows; r < kTile; ++r) z[j][r] = t[j][r] = 0;
  for (int r = 0; r < rows; ++r)
    for (int j = 0; j < k; ++j) z[j][r] = a.z[(first + r) * k + j];
  for (int r = 0; a.y && r < rows; ++r)
    for (int j = 0; j < k; ++j) t[j][r] = a.y[(first + r) * k + j];
  for (int j = 0; a.y && a.w && j < k; ++j)
    for (int r = 0; r < kTile; ++r) t[j][r] *= a.w[j];
  for (int r = 0; r < kTile; ++r) big[r] = z[0][r];
  for (int j = 1; j < k; ++j)
    for (int r = 0; r < kTile; ++r) big[r] = z[j][r] > big[r] ? z[j][r] : big[r];
  for (int j = 0; j < k; ++j)
    for (int r = 0; r < kTile; ++r) {
      z[j][r] -= big[r];
      sum[r] += math::exp_below_1(z[j][r]);
    }
  for (int r = 0; r < kTile; ++r) log_sum[r] = math::log(sum[r]);
  for (int j = 0; a.y && j < k; ++j)
    for (int r = 0; r < kTile; ++r) total[r] += t[j][r];
  if (a.y)
    for (int j = 0; j < k; ++j)
      for (int r = 0; r < kTile; ++r)
        score[r] += t[j][r] == 0 ? T(0) : t[j][r] * a.minus_log(z[j][r] - log_sum[r]);
  for (int r = 0; r < rows; ++r) {
    const int64_t i = first + r;
    if (!a.counts(i)) {
      skip_row(a, i);
      continue;
    }
    if (a.index) score[r] = one_class(a, i, big[r] + log_sum[r], total[r]);
    finish_row(a, i, big[r], log_sum[r], total[r], score[r]);
  }
}

template <class T> HD void softmax_forward(const Rows<T> a, int64_t first, int64_t last) {
  if (a.k <= kNarrow) {
    for (int64_t i = first; i < last; i += kTile)
      softmax_tile(a, i, int(std::min<int64_t>(kTile, last - i)));
    return;
  }
  for (int64_t i = first; i < last; ++i) {
    if (!a.counts(i)) skip_row(a, i);
    else if (a.index) softmax_row<false>(a, i);
    else softmax_row<true>(a, i);
  }
}

template <class T> HD void no_gradient(const Rows<T>& a, int64_t i) {
  for (int64_t j = 0; j < a.k; ++j) a.dz[i * a.k + j] = 0;
}

// Rows of at most kNarrow elements as one: what belongs to a row is spread over its elements, in
// stores of a fixed width whose rest the next row overwrites.
constexpr int64_t kSpread = kPiece + kNarrow;

template <class T> HD void spread(T* at, T value) {
  for (int j = 0; j < kNarrow; ++j) at[j] = value;
}

template <class T> HD void spread_slopes(const Rows<T> a, int64_t i, int64_t n, T* slope) {
  alignas(64) T w[kNarrow] = {};
  for (int64_t j = 0; j < a.k; ++j) w[j] = a.weight(j);
  for (int64_t r = 0; r < n; ++r) {
    const T g = a.counts(i + r) ? a.slope(i + r) : T(0);
    for (int j = 0; j < kNarrow; ++j) slope[r * a.k + j] = g * w[j];
  }
}

template <class T> HD void softmax_d_rows(const Rows<T> a, int64_t i, int64_t n) {
  alignas(64) T lse[kSpread], by[kSpread], slope[kSpread];
  spread_slopes(a, i, n, slope);
  for (int64_t r = 0; r < n; ++r) {
    spread(lse + r * a.k, a.lse[i + r]);
    spread(by + r * a.k, a.counts(i + r) ? a.slope(i + r) * a.total[i + r] : T(0));
  }
  const T* __restrict z = a.z + i * a.k;
  const T* __restrict y = a.y + (a.y ? i * a.k : 0);
  T* __restrict dz = a.dz + i * a.k;
  const int64_t size = n * a.k;
  if (a.y)
    for (int64_t e = 0; e < size; ++e) dz[e] = by[e] * math::exp_below_1(z[e] - lse[e]) - slope[e] * y[e];
  else
    for (int64_t e = 0; e < size; ++e) dz[e] = by[e] * math::exp_below_1(z[e] - lse[e]);
  for (int64_t r = i; r < i + n; ++r) {
    if (!a.counts(r)) no_gradient(a, r);
    else if (a.index && a.has_class(r))
      a.dz[r * a.k + a.index[r]] -= a.slope(r) * a.weight(a.index[r]);
  }
}

template <class T> HD void softmax_d_row(const Rows<T> a, int64_t i) {
  if (!a.counts(i)) return no_gradient(a, i);
  const T* __restrict z = a.z + i * a.k;
  const T* __restrict y = a.y + (a.y ? i * a.k : 0);
  const T* __restrict w = a.w;
  T* __restrict dz = a.dz + i * a.k;
  const T slope = a.slope(i), by = slope * a.total[i], lse = a.lse[i];
  const int64_t k = a.k;
  if (a.y && w)
    for (int64_t j = 0; j < k; ++j) dz[j] = by * math::exp_below_1(z[j] - lse) - slope * (w[j] * y[j]);
  else if (a.y)
    for (int64_t j = 0; j < k; ++j) dz[j] = by * math::exp_below_1(z[j] - lse) - slope * y[j];
  else
    for (int64_t j = 0; j < k; ++j) dz[j] = by * math::exp_below_1(z[j] - lse);
  if (a.index && a.has_class(i)) dz[a.index[i]] -= slope * a.weight(a.index[i]);
}

template <class T> HD void softmax_backward(const Rows<T> a, int64_t first, int64_t last) {
  const int64_t rows = kPiece / a.k;
  if (a.k > kNarrow)
    for (int64_t i = first; i < last; ++i) softmax_d_row(a, i);
  else
    for (int64_t i = first; i < last; i += rows) softmax_d_rows(a, i, std::min(rows, last - i));
}

template <template <class> class L, class T> HD void sum_row(const Rows<T> a, int64_t i) {
  const T* __restrict w = a.w;
  const T* __restrict z = a.z + i * a.k;
  const T* __restrict y = a.y + i * a.k;
  double s = 0;
  for (int64_t j = 0; j < a.k; j += kPiece) {
    const int64_t end = std::min(a.k, j + kPiece);
    T part = 0;
    if (w) {
#pragma omp simd reduction(+ : part)
      for (int64_t l = j; l < end; ++l) part += w[l] * L<T>::f(z[l], y[l]);
    } else {
#pragma omp simd reduction(+ : part)
      for (int64_t l = j; l < end; ++l) part += L<T>::f(z[l], y[l]);
    }
    s += double(part);
  }
  a.score[i] = a.m ? a.m[i] * T(s) : T(s);
}

template <template <class> class L, class T>
HD void sum_rows(const Rows<T> a, int64_t i, int64_t n) {
  alignas(64) T f[kPiece];
  const T* __restrict z = a.z + i * a.k;
  const T* __restrict y = a.y + i * a.k;
  const int64_t size = n * a.k;
  for (int64_t e = 0; e < size; ++e) f[e] = L<T>::f(z[e], y[e]);
  for (int64_t r = 0; r < n; ++r) {
    T s = 0;
    if (a.w)
      for (int64_t j = 0; j < a.k; ++j) s += a.w[j] * f[r * a.k + j];
    else
      for (int64_t j = 0; j < a.k; ++j) s += f[r * a.k + j];
    a.score[i + r] = !a.counts(i + r) ? T(0) : a.m ? a.m[i + r] * s : s;
  }
}

template <template <class> class L, class T>
HD void sum_forward(const Rows<T> a, int64_t first, int64_t last) {
  const int64_t rows = kPiece / a.k;
  if (a.k <= kNarrow)
    for (int64_t i = first; i < last; i += rows) sum_rows<L>(a, i, std::min(rows, last - i));
  else
    for (int64_t i = first; i < last; ++i) {
      if (a.counts(i)) sum_row<L>(a, i);
      else a.score[i] = 0;
    }
}

template <template <class> class L, class T> HD void sum_d_row(const Rows<T> a, int64_t i) {
  if (!a.counts(i)) return no_gradient(a, i);
  const T* __restrict z = a.z + i * a.k;
  const T* __restrict y = a.y + i * a.k;
  const T* __restrict w = a.w;
  T* __restrict dz = a.dz + i * a.k;
  const T slope = a.slope(i);
  const int64_t k = a.k;
  if (w)
    for (int64_t j = 0; j < k; ++j) dz[j] = slope * w[j] * L<T>::df(z[j], y[j]);
  else
    for (int64_t j = 0; j < k; ++j) dz[j] = slope * L<T>::df(z[j], y[j]);
}

template <template <class> class L, class T>
HD void sum_d_rows(const Rows<T> a, int64_t i, int64_t n) {
  alignas(64) T slope[kSpread];
  spread_slopes(a, i, n, slope);
  const T* __restrict z = a.z + i * a.k;
  const T* __restrict y = a.y + i * a.k;
  T* __restrict dz = a.dz + i * a.k;
  const int64_t size = n * a.k;
  for (int64_t e = 0; e < size; ++e) dz[e] = slope[e] * L<T>::df(z[e], y[e]);
  for (int64_t r = i; r < i + n; ++r)
    if (!a.counts(r)) no_gradient(a, r);
}

template <template <class> class L, class T>
HD void sum_backward(const Rows<T> a, int64_t first, int64_t last) {
  const int64_t rows = kPiece / a.k;
  if (a.k > kNarrow)
    for (int64_t i = first; i < last; ++i) sum_d_row<L>(a, i);
  else
    for (int64_t i = first; i < last; i += rows) sum_d_rows<L>(a, i, std::min(rows, last - i));
}

// Templates cannot carry target_clones.
#define DL4PY_ROWS(name, T, body)                                                  \
  DL4PY_CLONES void name(const Rows<T>& a, int64_t first, int64_t last) { body; }
#define DL4PY_LOSS_KERNELS(T)                                             \
  DL4PY_ROWS(softmax_kernel, T, softmax_forward(a, first, last))          \
  DL4PY_ROWS(softmax_d_kernel, T, softmax_backward(a, first, last))       \
  DL4PY_ROWS(sigmoid_kernel, T, sum_forward<sigmoid_xent>(a, first, last)) \
  DL4PY_ROWS(sigmoid_d_kernel, T, sum_backward<sigmoid_xent>(a, first, last))
DL4PY_LOSS_KERNELS(float)
DL4PY_LOSS_KERNELS(double)

template <class T> void run_rows(void (*kernel)(const Rows<T>&, int64_t, int64_t),
                                 const Rows<T>& a) {
  const int64_t tiles = (a.n + kTile - 1) / kTile, grain = std::max<int64_t>(1, kGrain / 2 / a.k);
  if (a.k > kNarrow) {
    if (a.n <= grain) return kernel(a, 0, a.n);
    return torch::stable::parallel_for(
        0, a.n, grain, [&](int64_t first, int64_t last) { kernel(a, first, last); });
  }
  auto some = [&](int64_t first, int64_t last) {
    kernel(a, first * kTile, std::min(a.n, last * kTile));
  };
  const int64_t grain_tiles = (grain + kTile - 1) / kTile;
  if (tiles <= grain_tiles) some(0, tiles);
  else torch::stable::parallel_for(0, tiles, grain_tiles, some);
}

template <class T> void run_softmax(const Rows<T>& a) { run_rows<T>(softmax_kernel, a); }
template <class T> void run_softmax_d(const Rows<T>& a) { run_rows<T>(softmax_d_kernel, a); }
template <class T> void run_sigmoid(const Rows<T>& a) { run_rows<T>(sigmoid_kernel, a); }
template <class T> void run_sigmoid_d(const Rows<T>& a) { run_rows<T>(sigmoid_d_kernel, a); }

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

template <class T> __global__ void softmax_kernel(Rows<T> a) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.y + threadIdx.y;
  if (i >= a.n) return;  // whole warps
  if (!a.counts(i)) {
    if (threadIdx.x == 0) a.lse[i] = a.total[i] = a.score[i] = 0;
    return;
  }
  const T* z = a.z + i * a.k;
  const T* y = a.y ? a.y + i * a.k : nullptr;
  const T infinity = T(INFINITY);
  T big = -infinity;
  for (int64_t j = threadIdx.x; j < a.k; j += blockDim.x) big = z[j] > big ? z[j] : big;
  big = over_row(big, [](T a, T b) { return a > b ? a : b; });
  T sum = 0, total = 0, score = 0;
  for (int64_t j = threadIdx.x; j < a.k; j += blockDim.x) {
    sum += math::exp_below_1(z[j] - big);
    if (y) total += a.weight(j) * y[j];
  }
  const T log_sum = math::log(row_sum(sum));
  if (y) {
    total = row_sum(total);
    for (int64_t j = threadIdx.x; j < a.k; j += blockDim.x) {
      T t = a.weight(j) * y[j];
      score += t == 0 ? T(0) : t * a.minus_log(z[j] - big - log_sum);
    }
    score = row_sum(score);
  } else if (a.has_class(i)) {
    total = a.weight(a.index[i]);
    score = total * a.minus_log(z[a.index[i]] - big - log_sum);
  }
  if (threadIdx.x == 0) {
    a.lse[i] = big + log_sum;
    a.total[i] = a.unit ? T(1) : total;
    a.score[i] = a.m ? a.m[i] * score : score;
  }
}

template <class T> __global__ void softmax_d_kernel(Rows<T> a) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.y + threadIdx.y;
  if (i >= a.n) return;
  const bool on = a.counts(i);
  const T slope = on ? a.slope(i) : T(0), by = on ? slope * a.total[i] : T(0), lse = a.lse[i];
  for (int64_t j = threadIdx.x; j < a.k; j += blockDim.x) {
    const int64_t e = i * a.k + j;
    T t = a.y ? a.weight(j) * a.y[e] : a.index[i] == j ? a.weight(j) : T(0);
    a.dz[e] = on ? by * math::exp_below_1(a.z[e] - lse) - slope * t : T(0);
  }
}

template <template <class> class L, class T> __global__ void sum_kernel(Rows<T> a) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.y + threadIdx.y;
  if (i >= a.n) return;
  T s = 0;
  const bool on = a.counts(i);
  for (int64_t j = threadIdx.x; on && j < a.k; j += blockDim.x)
    s += a.weight(j) * L<T>::f(a.z[i * a.k + j], a.y[i * a.k + j]);
  s = row_sum(s);
  if (threadIdx.x == 0) a.score[i] = !on ? T(0) : a.m ? a.m[i] * s : s;
}

template <template <class> class L, class T> __global__ void sum_d_kernel(Rows<T> a) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.y + threadIdx.y;
  if (i >= a.n) return;
  const bool on = a.counts(i);
  const T slope = on ? a.slope(i) : T(0);
  for (int64_t j = threadIdx.x; j < a.k; j += blockDim.x) {
    const int64_t e = i * a.k + j;
    a.dz[e] = on ? slope * a.weight(j) * L<T>::df(a.z[e], a.y[e]) : T(0);
  }
}

template <class T> void run_rows(void (*kernel)(Rows<T>), const Rows<T>& a) {
  torch::stable::accelerator::DeviceGuard guard(a.device);
  void* stream;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(a.device, &stream));
  const dim3 threads = a.k <= 1024 ? dim3(32, kRowThreads / 32) : dim3(kRowThreads, 1);
  const int64_t blocks = (a.n + threads.y - 1) / threads.y;
  kernel<<<blocks, threads, 0, static_cast<cudaStream_t>(stream)>>>(a);
  const cudaError_t error = cudaGetLastError();
  STD_TORCH_CHECK(error == cudaSuccess, "dl4py: ", cudaGetErrorString(error));
}

template <class T> void run_softmax(const Rows<T>& a) { run_rows<T>(softmax_kernel<T>, a); }
template <class T> void run_softmax_d(const Rows<T>& a) { run_rows<T>(softmax_d_kernel<T>, a); }
template <class T> void run_sigmoid(const Rows<T>& a) {
  run_rows<T>(sum_kernel<sigmoid_xent, T>, a);
}
template <class T> void run_sigmoid_d(const Rows<T>& a) {
  run_rows<T>(sum_d_kernel<sigmoid_xent, T>, a);
}

#endif

struct Loss {
  Tensor z, y, w, m, g;
  bool sparse;
};

// Each of torch's functions looks its operator up by name: only where it has something to do.
inline Tensor as_rows(const Tensor& t) {
  return t.is_contiguous() ? t : torch::stable::contiguous(t);
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
          .g = pointer<T>(all.g),
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
  int32_t dtype;
  AtenTensorHandle made;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(z.get(), &dtype));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      1, &n, &step, dtype, device_type(z), z.get_device_index(), &made));
  return Tensor(made);
}

template <class T> void forward(const Loss& all, double low, double high, bool unit,
                                const Tensor& score, const Tensor& lse, const Tensor& total) {
  Rows<T> a = rows<T>(all);
  a.low = T(low), a.high = T(high), a.unit = unit;
  a.score = static_cast<T*>(score.data_ptr());
  a.lse = static_cast<T*>(lse.data_ptr());
  a.total = static_cast<T*>(total.data_ptr());
  run_softmax(a);
}

std::tuple<Tensor, Tensor, Tensor> softmax_xent_op(const Tensor& z, const Tensor& y, Maybe w,
                                                   Maybe m, double low, double high, bool unit) {
  Loss all = checked(z, y, w, m, true);
  Tensor score = per_row(z), lse = per_row(z), total = per_row(z);
  if (z.size(1) == 0) {
    torch::stable::zero_(score), torch::stable::zero_(lse), torch::stable::zero_(total);
  } else if (z.size(0)) {
    if (z.scalar_type() == ScalarType::Float) forward<float>(all, low, high, unit, score, lse, total);
    else forward<double>(all, low, high, unit, score, lse, total);
  }
  return {score, lse, total};
}

template <class T> void backward(const Loss& all, const Tensor* lse, const Tensor* total,
                                 const Tensor& g, double scale, const Tensor& dz) {
  Rows<T> a = rows<T>(all);
  a.g = static_cast<const T*>(g.data_ptr());
  a.g_stride = g.size(0) > 1 ? g.stride(0) : 1;
  a.scale = T(scale);
  a.dz = static_cast<T*>(dz.data_ptr());
  if (lse) {
    a.lse = static_cast<T*>(lse->data_ptr());
    a.total = static_cast<T*>(total->data_ptr());
    run_softmax_d(a);
  } else {
    run_sigmoid_d(a);
  }
}

inline Tensor gradient(const Loss& all, const Tensor* lse, const Tensor* total, const Tensor& g,
                       double scale) {
  check_device(g, all.z);
  STD_TORCH_CHECK(g.dim() == 1 && g.size(0) == all.z.size(0) &&
                      g.scalar_type() == all.z.scalar_type(),
                  "dl4py: the gradient of the scores must be [n] in the dtype of the output");
  Tensor dz = empty_as(all.z);
  if (dz.numel() == 0) return dz;
  if (all.z.scalar_type() == ScalarType::Float) backward<float>(all, lse, total, g, scale, dz);
  else backward<double>(all, lse, total, g, scale, dz);
  return dz;
}

Tensor softmax_xent_d_op(const Tensor& z, const Tensor& y, Maybe w, Maybe m, const Tensor& lse_in,
                         const Tensor& total_in, const Tensor& g, double scale) {
  Loss all = checked(z, y, w, m, true);
  Tensor lse = vector_for(lse_in, z, z.size(0)), total = vector_for(total_in, z, z.size(0));
  return gradient(all, &lse, &total, g, scale);
}

Tensor sigmoid_xent_op(const Tensor& z, const Tensor& y, Maybe w, Maybe m) {
  Loss all = checked(z, y, w, m, false);
  Tensor score = per_row(z);
  if (z.size(1) == 0) return torch::stable::zero_(score);
  if (z.size(0) == 0) return score;
  if (z.scalar_type() == ScalarType::Float) {
    Rows<float> a = rows<float>(all);
    a.score = static_cast<float*>(score.data_ptr());
    run_sigmoid(a);
  } else {
    Rows<double> a = rows<double>(all);
    a.score = static_cast<double*>(score.data_ptr());
    run_sigmoid(a);
  }
  return score;
}

Tensor sigmoid_xent_d_op(const Tensor& z, const Tensor& y, Maybe w, Maybe m, const Tensor& g,
                         double scale) {
  return gradient(checked(z, y, w, m, false), nullptr, nullptr, g, scale);
}

STABLE_TORCH_LIBRARY_IMPL(dl4py, DL4PY_DEVICE, m) {
  m.impl("softmax_xent", TORCH_BOX(&softmax_xent_op));
  m.impl("softmax_xent_d", TORCH_BOX(&softmax_xent_d_op));
  m.impl("sigmoid_xent", TORCH_BOX(&sigmoid_xent_op));
  m.impl("sigmoid_xent_d", TORCH_BOX(&sigmoid_xent_d_op));
}

}  // namespace dl4py
