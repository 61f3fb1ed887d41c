// Steps of updaters over lists of tensors: parameters p, gradients g and up to three states are read
// and written once. Half types are computed in float; their states are float.
#pragma once
#include <array>
#include <utility>
#include <vector>

#include "activation.h"

namespace dl4py {

constexpr int kStates = 3;  // at most

template <class P, class T> struct Part {
  P* p;
  const P* g;
  T* s[kStates];
  int64_t n;
};

template <class F, class T> HD void advance(const F& f, T& p, T g, T* const* s, int64_t i) {
  if constexpr (F::states == 0) f(p, g);
  else if constexpr (F::states == 1) f(p, g, s[0][i]);
  else if constexpr (F::states == 2) f(p, g, s[0][i], s[1][i]);
  else f(p, g, s[0][i], s[1][i], s[2][i]);
}

// The functor with its rate times a number that is known on the device only.
template <class F> HD F rated(F f, double by) {
  if constexpr (requires { f.rate; }) f.rate *= decltype(f.rate)(by);
  return f;
}

#ifndef __CUDACC__

template <class F, class T> HD void advance_all(const F& given, const Part<T, T>& a) {
  const F f = given;
  T* __restrict p = a.p;
  const T* __restrict g = a.g;
  T* __restrict s0 = a.s[0];
  T* __restrict s1 = a.s[1];
  T* __restrict s2 = a.s[2];
  for (int64_t i = 0; i < a.n; ++i) {
    if constexpr (F::states == 0) f(p[i], g[i]);
    else if constexpr (F::states == 1) f(p[i], g[i], s0[i]);
    else if constexpr (F::states == 2) f(p[i], g[i], s0[i], s1[i]);
    else f(p[i], g[i], s0[i], s1[i], s2[i]);
  }
}

// Templates cannot carry target_clones.
#define DL4PY_ADVANCE(F, T) \
  DL4PY_STREAMING void advance_part(const F<T>& f, const Part<T, T>& a) { advance_all(f, a); }
#define DL4PY_ADVANCES(F) DL4PY_ADVANCE(F, float) DL4PY_ADVANCE(F, double)

template <class F, class P, class T>
void advance_some(const F& f, Part<P, T> a, int64_t first, int64_t n) {
  a.p += first, a.g += first, a.n = n;
  for (int k = 0; k < F::states; ++k) a.s[k] += first;
  if constexpr (std::is_same_v<P, T>) {
    advance_part(f, a);
  } else {
    alignas(64) T p[kChunk], g[kChunk];
    for (int64_t i = 0; i < n; i += kChunk) {
      Part<T, T> b{p, g, {}, std::min(kChunk, n - i)};
      for (int k = 0; k < F::states; ++k) b.s[k] = a.s[k] + i;
      convert(a.p + i, p, b.n);
      convert(a.g + i, g, b.n);
      advance_part(f, b);
      convert(p, a.p + i, b.n);
    }
  }
}

template <class F, class P, class T>
void run(const F& given, const std::vector<Part<P, T>>& parts, const double* by, const Tensor&) {
  const F f = by ? rated(given, *by) : given;
  struct Task { size_t part; int64_t first, n; };
  int64_t total = 0;
  for (const auto& a : parts) total += a.n;
  if (total <= kGrain) {
    for (const auto& a : parts) advance_some(f, a, 0, a.n);
    return;
  }
  std::vector<Task> tasks;
  for (size_t k = 0; k < parts.size(); ++k)
    for (int64_t i = 0; i < parts[k].n; i += kGrain)
      tasks.push_back({k, i, std::min(kGrain, parts[k].n - i)});
  const int64_t count = int64_t(tasks.size());
  const int64_t grain = std::max<int64_t>(1, count * kGrain / total);
  parallel_for(0, count, grain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
      advance_some(f, parts[tasks[t].part], tasks[t].first, tasks[t].n);
  });
}

#else

#define DL4PY_ADVANCES(F)

// Parts of one launch: they travel as its argument, of 4 KB where few will do, else of the 32 KB that
// CUDA takes from 12.1 on.
constexpr size_t kFew = 64, kMany = CUDART_VERSION >= 12010 ? 600 : kFew;
constexpr int64_t kBlockSize = 4096;  // elements of a block

template <class P, class T, size_t parts_at_most> struct Launch {
  Part<P, T> parts[parts_at_most];
  int32_t first_block[parts_at_most];
  int32_t count;
  const double* by;
};

template <class T, int width> struct alignas(16) Lot { T v[width]; };
template <class T, int width> __device__ Lot<T, width>& lot(T* at) {
  return *reinterpret_cast<Lot<T, width>*>(at);
}

// 16 bytes of parameters at a time where every pointer allows it; what is left, one by one.
template <class F, class P, class T, size_t at_most>
__global__ void advance_kernel(F f, const __grid_constant__ Launch<P, T, at_most> all) {
  int low = 0, high = all.count - 1;  // the part that this block belongs to
  while (low < high) {
    int middle = (low + high + 1) / 2;
    if (all.first_block[middle] <= int(blockIdx.x)) low = middle;
    else high = middle - 1;
  }
  const Part<P, T> a = all.parts[low];
  const int64_t first = (int64_t(blockIdx.x) - all.first_block[low]) * kBlockSize;
  const int64_t last = first + kBlockSize < a.n ? first + kBlockSize : a.n;
  if (all.by) f = rated(f, *all.by);
  constexpr int width = 16 / sizeof(P);
  uintptr_t places = uintptr_t(a.p) | uintptr_t(a.g);
  for (int k = 0; k < F::states; ++k) places |= uintptr_t(a.s[k]);
  const int64_t lots = places % 16 == 0 ? (last - first) / width : 0;
  for (int64_t l = threadIdx.x; l < lots; l += blockDim.x) {
    const int64_t i = first + l * width;
    Lot<P, width> p = lot<P, width>(a.p + i);
    const Lot<P, width> g = lot<P, width>(const_cast<P*>(a.g) + i);
    Lot<T, width> s[kStates];
    for (int k = 0; k < F::states; ++k) s[k] = lot<T, width>(a.s[k] + i);
    T* const states[kStates] = {s[0].v, s[1].v, s[2].v};
#pragma unroll
    for (int j = 0; j < width; ++j) {
      T x = T(p.v[j]);
      advance(f, x, T(g.v[j]), states, j);
      p.v[j] = P(x);
    }
    lot<P, width>(a.p + i) = p;
    for (int k = 0; k < F::states; ++k) lot<T, width>(a.s[k] + i) = s[k];
  }
  for (int64_t i = first + lots * width + threadIdx.x; i < last; i += blockDim.x) {
    T p = T(a.p[i]);
    advance(f, p, T(a.g[i]), a.s, i);
    a.p[i] = P(p);
  }
}

// One launch for as many parts as fit into its argument, from the k-th on.
template <size_t at_most, class F, class P, class T>
void launch(const F& f, const std::vector<Part<P, T>>& parts, size_t& k, const double* by,
            cudaStream_t stream) {
  Launch<P, T, at_most> all;
  all.by = by;
  int64_t blocks = 0;
  for (all.count = 0; all.count < int(at_most) && k < parts.size(); ++k) {
    all.parts[all.count] = parts[k];
    all.first_block[all.count++] = int32_t(blocks);
    blocks += (parts[k].n + kBlockSize - 1) / kBlockSize;
  }
  advance_kernel<<<blocks, kThreads, 0, stream>>>(f, all);
  const cudaError_t error = cudaGetLastError();
  STD_TORCH_CHECK(error == cudaSuccess, "dl4py: ", cudaGetErrorString(error));
}

template <class F, class P, class T>
void run(const F& f, const std::vector<Part<P, T>>& parts, const double* by, const Tensor& like) {
  const int32_t device = like.get_device_index();
  DeviceGuard guard(device);
  const cudaStream_t stream = current_stream(device);
  for (size_t k = 0; k < parts.size();)
    if (parts.size() - k > kFew) launch<kMany>(f, parts, k, by, stream);
    else launch<kFew>(f, parts, k, by, stream);
}

#endif

using Tensors = std::vector<Tensor>;
using Copies = std::vector<std::pair<Tensor, Tensor>>;  // what is copied back in the end

// Memory of t as the kernels take it: `like`'s layout, `type`; where t is not so, a copy.
inline void* memory(const Tensor& t, bool plain, ScalarType type, bool written, Copies& copies) {
  if (plain && t.scalar_type() == type) return t.data_ptr();
  Tensor c = new_empty(t, t.sizes(), type);
  copy_(c, t);
  copies.push_back({written ? t : Tensor(), c});
  return c.data_ptr();
}

template <class F, class P, class T>
void update(const F& f, const Tensors& p, const Tensors& g,
            const std::array<const Tensors*, F::states>& s, const double* by, ScalarType type,
            ScalarType wide) {
  std::vector<Part<P, T>> parts;
  parts.reserve(p.size());
  Copies copies;
  for (size_t i = 0; i < p.size(); ++i) {
    const int64_t n = p[i].numel();
    STD_TORCH_CHECK(p[i].scalar_type() == type, "dl4py: parameters of one step have one dtype");
    bool contiguous = p[i].is_contiguous() && g[i].is_contiguous();
    STD_TORCH_CHECK(g[i].numel() == n, "dl4py: a gradient needs the size of its parameter");
    check_device(p[i], p[0]);
    check_device(g[i], p[0]);
    for (const Tensors* one : s) {
      const Tensor& t = (*one)[i];
      STD_TORCH_CHECK(t.numel() == n, "dl4py: a state needs the size of its parameter");
      check_device(t, p[0]);
      contiguous = contiguous && t.is_contiguous();
    }
    if (n == 0) continue;
    bool plain = contiguous;
    if (!contiguous) {  // one dense layout will do too
      plain = same_strides(empty_like(p[i]), p[i]) && same_strides(p[i], g[i]);
      for (const Tensors* one : s) plain = plain && same_strides(p[i], (*one)[i]);
    }
    Part<P, T> a{};
    a.n = n;
    a.p = static_cast<P*>(memory(p[i], plain, type, true, copies));
    a.g = static_cast<const P*>(memory(g[i], plain, type, false, copies));
    for (int k = 0; k < F::states; ++k)
      a.s[k] = static_cast<T*>(memory((*s[k])[i], plain, wide, true, copies));
    parts.push_back(a);
  }
  if (parts.empty()) return;
  run(f, parts, by, p[0]);
  for (auto& [to, from] : copies)
    if (to.defined()) copy_(to, from);
}

template <template <class> class F, class... D>
void update_any(const Tensors& p, const Tensors& g,
                const std::array<const Tensors*, F<float>::states>& s, Maybe by, D... numbers) {
  if (p.empty()) return;
  const double* rate = nullptr;
  if (by) {
    check_device(*by, p[0]);
    STD_TORCH_CHECK(by->numel() == 1 && by->scalar_type() == ScalarType::Double,
                    "dl4py: a rate on the device is one number in float64");
    rate = static_cast<const double*>(by->data_ptr());
  }
  STD_TORCH_CHECK(g.size() == p.size(), "dl4py: a step needs a gradient for every parameter");
  for (const Tensors* one : s)
    STD_TORCH_CHECK(one->size() == p.size(), "dl4py: a step needs states for every parameter");
  const ScalarType type = p[0].scalar_type(), single = ScalarType::Float;
  switch (type) {
    case ScalarType::Float:
      return update<F<float>, float, float>(F<float>(numbers...), p, g, s, rate, type, type);
    case ScalarType::Double:
      return update<F<double>, double, double>(F<double>(numbers...), p, g, s, rate, type, type);
    case ScalarType::Half:
      return update<F<float>, Half, float>(F<float>(numbers...), p, g, s, rate, type, single);
    case ScalarType::BFloat16:
      return update<F<float>, BFloat16, float>(F<float>(numbers...), p, g, s, rate, type, single);
    default:
      STD_TORCH_CHECK(false, "dl4py: parameters must be floating point tensors");
  }
}

template <template <class> class F, class... D>
void update_0(Tensors p, Tensors g, Maybe by, D... numbers) {
  update_any<F>(p, g, {}, by, numbers...);
}
template <template <class> class F, class... D>
void update_1(Tensors p, Tensors g, Tensors a, Maybe by, D... numbers) {
  update_any<F>(p, g, {&a}, by, numbers...);
}
template <template <class> class F, class... D>
void update_2(Tensors p, Tensors g, Tensors a, Tensors b, Maybe by, D... numbers) {
  update_any<F>(p, g, {&a, &b}, by, numbers...);
}
template <template <class> class F, class... D>
void update_3(Tensors p, Tensors g, Tensors a, Tensors b, Tensors c, Maybe by, D... numbers) {
  update_any<F>(p, g, {&a, &b, &c}, by, numbers...);
}

}  // namespace dl4py

// Registers functor F with its number of states and the types of its numbers, each double.
#define DL4PY_UPDATE(F, states, ...)                                                \
  namespace dl4py {                                                                 \
  DL4PY_ADVANCES(F)                                                                 \
  DL4PY_UPDATE_IMPL(DL4PY_DEVICE, F, states __VA_OPT__(, ) __VA_ARGS__)             \
  }
#define DL4PY_UPDATE_IMPL(device, F, states, ...)                                   \
  STABLE_TORCH_LIBRARY_IMPL(dl4py, device, m) {                                     \
    m.impl(#F, TORCH_BOX((&update_##states<F __VA_OPT__(, ) __VA_ARGS__>)));        \
  }
