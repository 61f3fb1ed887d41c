// The loop over elements: y = s · f⁽ᵏ⁾(x), compiled for the CPU by the host compiler and for CUDA
// by nvcc. A functor has f, df, d2f; `random` ones get a uniform number beside x.
#pragma once
#include <algorithm>

#include "philox.h"
#include "stable.h"

namespace dl4py {

// What one call computes. s: null, one number, or (each) one per element. n elements per seed.
template <class T> struct Span {
  const T* x;
  const T* s;
  T* y;
  int64_t n, order;
  bool each;
  const int64_t* seeds;
  int64_t n_seeds;
  int32_t device;
};

// Half types are computed in float and rounded once.
template <class T> struct Compute { using type = float; };
template <> struct Compute<double> { using type = double; };

template <class F> concept Random = requires { requires F::random; };

template <int order, class F, class T, class... U> HD T derivative(F f, T x, U... u) {
  if constexpr (order == 0) return f.f(x, u...);
  else if constexpr (order == 1) return f.df(x, u...);
  else return f.d2f(x, u...);
}

template <class F, class T> HD T scaled(F f, T x, T value, T s) {
  T y = s * value;
  if constexpr (requires { f.active(x); }) y = f.active(x) ? y : T(0);  // even if s is NaN
  return y;
}

#ifndef __CUDACC__

constexpr int64_t kGrain = 32768;  // elements that are worth a thread
constexpr int64_t kChunk = 1024;   // half types converted at a time: stays in the first cache

// Kernels that compute gain from 512-bit vectors (tanh 1.3x on a Zen 4); those that only stream
// lose by them there (Nesterovs 1.15x, the slope of cube 1.1x).
#if DL4PY_X86
#define DL4PY_FOR(...) static __attribute__((noinline, target_clones(__VA_ARGS__)))
#define DL4PY_CLONES DL4PY_FOR("default", "arch=x86-64-v3", "arch=x86-64-v4")
#define DL4PY_STREAMING DL4PY_FOR("default", "arch=x86-64-v3")
#else
#define DL4PY_CLONES static __attribute__((noinline))
#define DL4PY_STREAMING DL4PY_CLONES
#endif

// m elements from `place` on; fewer than kBlock in a padded place of their own.
template <class T> struct Block {
  alignas(64) std::remove_const_t<T> own[kBlock];
  T *at, *place;
  size_t size;
  HD Block(T* place, int64_t m) : at(place), place(place), size(m * sizeof(T)) {
    if (m >= kBlock) return;
    memset(own, 0, sizeof(own));
    memcpy(own, place, size);
    at = own;
  }
  HD void done() const {
    if constexpr (!std::is_const_v<T>)
      if (at != place) memcpy(place, own, size);
  }
};

// body(element of each array ...) for n elements, in whole vectors: what a
// compiler makes of the rest of a loop may round differently.
template <class Body, class... T> HD void elements(int64_t n, Body body, T*... places) {
  for (int64_t i = 0, m; i < n; i += m) {
    m = n - i < kBlock ? kBlock : (n - i) & -int64_t(kBlock);
    auto run = [&](const Block<T>&... a) __attribute__((always_inline)) {
#pragma omp simd
      for (int64_t j = 0; j < m; ++j) body(a.at[j]...);
      (a.done(), ...);
    };
    run(Block<T>(places + i, std::min(m, n - i))...);
  }
}

template <int order, bool each, class F, class T>
HD void loop(F f, const Span<T>& a, uint64_t seed, int64_t first) {
  const T one = a.s ? a.s[0] : T(1);
  if constexpr (Random<F> && order < 2) {
    for (int64_t i = 0; i < a.n; i += kBlock) {
      alignas(64) float u[kBlock];
      uniforms(seed, uint64_t(first + i) / kWords, u);  // `first` is a multiple of kBlock
      auto body = [=](T& y, T x, float u, T s) { y = scaled(f, x, derivative<order>(f, x, T(u)), s); };
      const int64_t m = std::min<int64_t>(kBlock, a.n - i);
      if constexpr (each) elements(m, body, a.y + i, a.x + i, u, a.s + i);
      else elements(m, [=](T& y, T x, float u) { body(y, x, u, one); }, a.y + i, a.x + i, u);
    }
  } else {
    auto body = [=](T& y, T x, T s) { y = scaled(f, x, derivative<order>(f, x), s); };
    if constexpr (each) elements(a.n, body, a.y, a.x, a.s);
    else elements(a.n, [=](T& y, T x) { body(y, x, one); }, a.y, a.x);
  }
}

template <int order, class F, class T>
HD void loops(F f, const Span<T>& a, uint64_t seed, int64_t first) {
  a.each ? loop<order, true>(f, a, seed, first) : loop<order, false>(f, a, seed, first);
}

// Templates cannot carry target_clones: the loop is inlined into these named kernels.
#define DL4PY_KERNEL(CLONES, F, T)                                                   \
  CLONES void kernel(F<T> f, const Span<T>& a, uint64_t seed, int64_t first) {       \
    a.order == 0   ? loops<0>(f, a, seed, first)                                     \
    : a.order == 1 ? loops<1>(f, a, seed, first)                                     \
                   : loops<2>(f, a, seed, first);                                    \
  }
#define DL4PY_KERNELS(CLONES, F) DL4PY_KERNEL(CLONES, F, float) DL4PY_KERNEL(CLONES, F, double)

#define DL4PY_CONVERT(From, To)                                                          \
  DL4PY_CLONES void convert(const From* __restrict from, To* __restrict to, int64_t n) { \
    for (int64_t i = 0; i < n; ++i) to[i] = To(from[i]);                                 \
  }
DL4PY_CONVERT(Half, float)
DL4PY_CONVERT(float, Half)
DL4PY_CONVERT(BFloat16, float)
DL4PY_CONVERT(float, BFloat16)

template <class F, class T> void part(F f, const Span<T>& a, uint64_t seed, int64_t first) {
  if constexpr (std::is_same_v<typename Compute<T>::type, T>) {
    kernel(f, a, seed, first);
  } else {
    alignas(64) float x[kChunk], s[kChunk], y[kChunk];
    if (a.s && !a.each) s[0] = float(a.s[0]);
    for (int64_t i = 0; i < a.n; i += kChunk) {
      int64_t n = std::min(kChunk, a.n - i);
      convert(a.x + i, x, n);
      if (a.each) convert(a.s + i, s, n);
      kernel(f, {x, a.s ? s : nullptr, y, n, a.order, a.each, nullptr, 0, 0}, seed, first + i);
      convert(y, a.y + i, n);
    }
  }
}

template <class F, class T> void run(F f, const Span<T>& all) {
  for (int64_t k = 0; k < all.n_seeds; ++k) {
    auto blocks = [&](int64_t begin, int64_t end) {
      int64_t i = begin * kBlock, skip = k * all.n + i;
      Span<T> a = all;
      a.x += skip, a.y += skip, a.s += all.each ? skip : 0;
      a.n = std::min(all.n, end * kBlock) - i;
      part(f, a, all.seeds ? uint64_t(all.seeds[k]) : 0, i);
    };
    int64_t n = (all.n + kBlock - 1) / kBlock;
    if (all.n <= kGrain) blocks(0, n);
    else parallel_for(0, n, kGrain / kBlock, blocks);
  }
}

#else

#define DL4PY_KERNELS(CLONES, F)

constexpr int kThreads = 256;
constexpr int64_t kMaxBlocks = 1 << 20;

template <class T> struct alignas(16) Pack { T v[16 / sizeof(T)]; };

template <class F, class T> __device__ T element(F f, const Span<T>& a, T x_in, T s_in, int64_t i) {
  using C = typename Compute<T>::type;
  C x = C(x_in), v;
  if constexpr (Random<F>) {
    C u = a.order < 2 ? C(uniform_at(uint64_t(a.seeds[i / a.n]), i % a.n)) : C(0);
    v = a.order == 0 ? f.f(x, u) : a.order == 1 ? f.df(x, u) : f.d2f(x);
  } else {
    v = a.order == 0 ? f.f(x) : a.order == 1 ? f.df(x) : f.d2f(x);
  }
  return T(scaled(f, x, v, C(s_in)));
}

// The first m elements of a pack, 16 bytes at once where they are all and the pointer allows it.
template <class T> __device__ void move(Pack<T>& to, const T* from, int m, bool at_once) {
  if (at_once) to = *reinterpret_cast<const Pack<T>*>(from);
#pragma unroll
  for (int j = 0; j < int(sizeof(Pack<T>) / sizeof(T)); ++j)
    if (!at_once && j < m) to.v[j] = from[j];
}
template <class T> __device__ void move(T* to, const Pack<T>& from, int m, bool at_once) {
  if (at_once) *reinterpret_cast<Pack<T>*>(to) = from;
#pragma unroll
  for (int j = 0; j < int(sizeof(Pack<T>) / sizeof(T)); ++j)
    if (!at_once && j < m) to[j] = from.v[j];
}

// All elements go through the same instructions, as on the CPU.
template <class F, class T> __global__ void kernel(F f, Span<T> a, bool aligned) {
  constexpr int width = sizeof(Pack<T>) / sizeof(T);
  const int64_t n = a.n * a.n_seeds, step = int64_t(gridDim.x) * blockDim.x * width;
  const T one = a.s ? a.s[0] : T(1.0f);
  for (int64_t i = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) * width; i < n; i += step) {
    const int m = n - i < width ? int(n - i) : width;
    const bool at_once = aligned && m == width;
    Pack<T> x{}, s{}, y;
    move(x, a.x + i, m, at_once);
    if (a.each) move(s, a.s + i, m, at_once);
#pragma unroll
    for (int j = 0; j < width; ++j)
      y.v[j] = element(f, a, x.v[j], a.each ? s.v[j] : one, i + (j < m ? j : 0));
    move(a.y + i, y, m, at_once);
  }
}

template <class F, class T> void run(F f, const Span<T>& a) {
  DeviceGuard guard(a.device);
  auto places = uintptr_t(a.x) | uintptr_t(a.y) | (a.each ? uintptr_t(a.s) : 0);
  const int64_t per_block = kThreads * (16 / int64_t(sizeof(T)));
  const int64_t blocks = (a.n * a.n_seeds + per_block - 1) / per_block;
  kernel<<<std::min(blocks, kMaxBlocks), kThreads, 0, current_stream(a.device)>>>(
      f, a, places % 16 == 0);
  const cudaError_t error = cudaGetLastError();
  STD_TORCH_CHECK(error == cudaSuccess, "dl4py: ", cudaGetErrorString(error));
}

#endif

}  // namespace dl4py
