// Softmax with cross entropy; y are labels or classes.
#include "rows.h"

namespace dl4py {

// sum: Σ exp(z - big). ln Σ exp z is never formed: at large z it has lost what z - big still has.
template <class T> HD void finish_row(const Rows<T>& a, int64_t i, T big, T sum, T total, T score) {
  const T by = a.m ? a.scale * a.m[i] : a.scale;
  a.big[i] = big;
  a.part[i] = (a.unit ? T(1) : total) / sum;
  a.score[i] = by * score;
}

template <class T> HD void skip_row(const Rows<T>& a, int64_t i) {
  a.big[i] = a.part[i] = a.score[i] = 0;
}

// The label of row i is one class: what it adds to the score.
template <class T> HD T one_class(const Rows<T>& a, int64_t i, T big, T log_sum, T& total) {
  total = 0;
  if (!a.has_class(i)) return 0;
  total = a.weight(a.index[i]);
  return total * a.minus_log(a.z[i * a.k + a.index[i]] - big - log_sum);
}

#ifndef __CUDACC__

constexpr int kLanes = 16;

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
    score = one_class(a, i, big, log_sum, total);
  }
  finish_row(a, i, big, T(sum), total, score);
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
    if (a.index) score[r] = one_class(a, i, big[r], log_sum[r], total[r]);
    finish_row(a, i, big[r], sum[r], total[r], score[r]);
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

template <class T> HD void softmax_d_rows(const Rows<T> a, int64_t i, int64_t n) {
  alignas(64) T big[kSpread], by[kSpread], slope[kSpread];
  spread_slopes(a, i, n, slope);
  for (int64_t r = 0; r < n; ++r) {
    spread(big + r * a.k, a.big[i + r]);
    spread(by + r * a.k, a.counts(i + r) ? a.slope(i + r) * a.part[i + r] : T(0));
  }
  const T* __restrict z = a.z + i * a.k;
  const T* __restrict y = a.y + (a.y ? i * a.k : 0);
  T* __restrict dz = a.dz + i * a.k;
  const int64_t size = n * a.k;
  if (a.y)
    for (int64_t e = 0; e < size; ++e)
      dz[e] = by[e] * math::exp_below_1(z[e] - big[e]) - slope[e] * y[e];
  else
    for (int64_t e = 0; e < size; ++e) dz[e] = by[e] * math::exp_below_1(z[e] - big[e]);
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
  const T slope = a.slope(i), by = slope * a.part[i], big = a.big[i];
  const int64_t k = a.k;
  if (a.y && w)
    for (int64_t j = 0; j < k; ++j)
      dz[j] = by * math::exp_below_1(z[j] - big) - slope * (w[j] * y[j]);
  else if (a.y)
    for (int64_t j = 0; j < k; ++j) dz[j] = by * math::exp_below_1(z[j] - big) - slope * y[j];
  else
    for (int64_t j = 0; j < k; ++j) dz[j] = by * math::exp_below_1(z[j] - big);
  if (a.index && a.has_class(i)) dz[a.index[i]] -= slope * a.weight(a.index[i]);
}

template <class T> HD void softmax_backward(const Rows<T> a, int64_t first, int64_t last) {
  const int64_t rows = kPiece / a.k;
  if (a.k > kNarrow)
    for (int64_t i = first; i < last; ++i) softmax_d_row(a, i);
  else
    for (int64_t i = first; i < last; i += rows) softmax_d_rows(a, i, std::min(rows, last - i));
}

// Templates cannot carry target_clones.
#define DL4PY_SOFTMAX(T)                                                               \
  DL4PY_CLONES void softmax_kernel(const Rows<T>& a, int64_t first, int64_t last) {    \
    softmax_forward(a, first, last);                                                   \
  }                                                                                    \
  DL4PY_CLONES void softmax_d_kernel(const Rows<T>& a, int64_t first, int64_t last) {  \
    softmax_backward(a, first, last);                                                  \
  }
DL4PY_SOFTMAX(float)
DL4PY_SOFTMAX(double)

template <class T> void run_softmax(const Rows<T>& a) {
  run_rows(a, [&](int64_t first, int64_t last) { softmax_kernel(a, first, last); });
}
template <class T> void run_softmax_d(const Rows<T>& a) {
  run_rows(a, [&](int64_t first, int64_t last) { softmax_d_kernel(a, first, last); });
}

#else

template <class T> __global__ void softmax_kernel(Rows<T> a) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.y + threadIdx.y;
  if (i >= a.n) return;  // whole warps
  if (!a.counts(i)) {
    if (threadIdx.x == 0) skip_row(a, i);
    return;
  }
  const T* z = a.z + i * a.k;
  const T* y = a.y ? a.y + i * a.k : nullptr;
  T big = -T(INFINITY);
  each<T>(z, nullptr, a.k, [&](int64_t, T z, T) { big = z > big ? z : big; });
  big = over_row(big, [](T a, T b) { return a > b ? a : b; });
  T sum = 0, total = 0, score = 0;
  each(z, y, a.k, [&](int64_t j, T z, T y) {
    sum += math::exp_below_1(z - big);
    total += a.weight(j) * y;
  });
  sum = row_sum(sum);
  const T log_sum = math::log(sum);
  if (y) {
    total = row_sum(total);
    each(z, y, a.k, [&](int64_t j, T z, T y) {
      T t = a.weight(j) * y;
      score += t == 0 ? T(0) : t * a.minus_log(z - big - log_sum);
    });
    score = row_sum(score);
  } else {
    score = one_class(a, i, big, log_sum, total);
  }
  if (threadIdx.x == 0) finish_row(a, i, big, sum, total, score);
}

template <class T> __global__ void softmax_d_kernel(Rows<T> a) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.y + threadIdx.y;
  if (i >= a.n) return;
  const bool on = a.counts(i);
  const T slope = on ? a.slope(i) : T(0), by = on ? slope * a.part[i] : T(0), big = a.big[i];
  map(a.z + i * a.k, a.y ? a.y + i * a.k : nullptr, a.dz + i * a.k, a.k, [&](int64_t j, T z, T y) {
    T t = a.weight(j) * (a.index ? T(a.index[i] == j) : y);
    return on ? by * math::exp_below_1(z - big) - slope * t : T(0);
  });
}

template <class T> void run_softmax(const Rows<T>& a) { launch_rows(softmax_kernel<T>, a); }
template <class T> void run_softmax_d(const Rows<T>& a) { launch_rows(softmax_d_kernel<T>, a); }

#endif

template <class T> void forward(const Loss& all, double low, double high, bool unit, double by,
                                const Tensor& score, const Tensor& big, const Tensor& part) {
  Rows<T> a = rows<T>(all);
  a.low = T(low), a.high = T(high), a.unit = unit, a.scale = T(by);
  a.score = static_cast<T*>(score.data_ptr());
  a.big = static_cast<T*>(big.data_ptr());
  a.part = static_cast<T*>(part.data_ptr());
  run_softmax(a);
}

std::tuple<Tensor, Tensor, Tensor> softmax_xent_op(const Tensor& z, const Tensor& y, Maybe w,
                                                   Maybe m, double low, double high, bool unit,
                                                   double by, bool summed) {
  Loss all = checked(z, y, w, m, true);
  Tensor score = per_row(z), big = per_row(z), part = per_row(z);
  if (z.size(1) == 0) {
    zero_(score), zero_(big), zero_(part);
  } else if (z.size(0)) {
    if (z.scalar_type() == ScalarType::Float)
      forward<float>(all, low, high, unit, by, score, big, part);
    else
      forward<double>(all, low, high, unit, by, score, big, part);
  }
  return {summed ? sum_of(score) : score, big, part};
}

template <class T>
void backward(const Loss& all, const Tensor& big, const Tensor& part, const Tensor& g,
              double scale, const Tensor& dz) {
  Rows<T> a = rows_backward<T>(all, g, scale, dz);
  a.big = static_cast<T*>(big.data_ptr());
  a.part = static_cast<T*>(part.data_ptr());
  run_softmax_d(a);
}

Tensor softmax_xent_d_op(const Tensor& z, const Tensor& y, Maybe w, Maybe m, const Tensor& big_in,
                         const Tensor& part_in, const Tensor& g, double scale) {
  Loss all = checked(z, y, w, m, true);
  Tensor big = vector_for(big_in, z, z.size(0)), part = vector_for(part_in, z, z.size(0));
  take_gradient(all, g);
  Tensor dz = empty_as(all.z);
  if (dz.numel() == 0) return dz;
  if (z.scalar_type() == ScalarType::Float) backward<float>(all, big, part, g, scale, dz);
  else backward<double>(all, big, part, g, scale, dz);
  return dz;
}

STABLE_TORCH_LIBRARY_IMPL(dl4py, DL4PY_DEVICE, m) {
  m.impl("softmax_xent", TORCH_BOX(&softmax_xent_op));
  m.impl("softmax_xent_d", TORCH_BOX(&softmax_xent_d_op));
}

}  // namespace dl4py
