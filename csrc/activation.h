// The op: scale · f⁽ᵏ⁾(x), k = 0, 1, 2, and its two raw twins, for the schemas defined in Python.
#pragma once
#include <optional>

#include "elementwise.h"

namespace dl4py {

using Maybe = const std::optional<Tensor>&;

#ifdef __CUDACC__
#define DL4PY_DEVICE CUDA
#else
#define DL4PY_DEVICE CPU
#endif

inline bool same_strides(const Tensor& a, const Tensor& b) {
  if (a.dim() != b.dim()) return false;
  for (int64_t d = 0; d < a.dim(); ++d)
    if (a.size(d) != b.size(d) || (a.size(d) > 1 && a.stride(d) != b.stride(d))) return false;
  return true;
}

inline void check_device(const Tensor& t, const Tensor& x) {
  STD_TORCH_CHECK(device_type(t) == device_type(x) && t.get_device_index() == x.get_device_index(),
                  "dl4py: all tensors must be on the device of x");
}

inline Tensor empty_as(const Tensor& x) {
  if (!x.is_contiguous()) return empty_like(x);  // keeps the strides of every dense x
  return empty(x, x.dim(), x.sizes().data(), x.strides().data());
}

inline Tensor laid_out_as(const Tensor& y, const Tensor& t) {  // broadcasts and converts
  Tensor r = empty_like(y);
  return copy_(r, t);
}

inline bool aligned(const Tensor& t) {  // torch.frombuffer takes any offset
  return reinterpret_cast<uintptr_t>(t.data_ptr()) % t.element_size() == 0;
}

inline bool is_one_number(const Tensor& t) {  // 0-d, or the stride-0 gradient of y.sum()
  for (int64_t d = 0; d < t.dim(); ++d)
    if (t.size(d) != 1 && t.stride(d) != 0) return false;
  return true;
}

template <template <class> class F, class T, class... P>
void launch(const Tensor& x, const Tensor* s, const Tensor* seed, Tensor& y, int64_t order,
            bool each, P... p) {
  using C = typename Compute<T>::type;
  int64_t n_seeds = seed ? seed->numel() : 1;
  Span<T> all{.x = static_cast<const T*>(x.data_ptr()),
              .s = s ? static_cast<const T*>(s->data_ptr()) : nullptr,
              .y = static_cast<T*>(y.data_ptr()),
              .n = x.numel() / n_seeds,
              .order = order,
              .each = each,
              .seeds = seed ? static_cast<const int64_t*>(seed->data_ptr()) : nullptr,
              .n_seeds = n_seeds,
              .device = x.get_device_index()};
  run(F<C>{C(p)...}, all);
}

template <template <class> class F, class... P>
Tensor apply(const Tensor& x_in, const Tensor* scale, const Tensor* seed, int64_t order, P... p) {
  STD_TORCH_CHECK(order >= 0 && order <= 2, "dl4py: order must be 0, 1 or 2");
  const ScalarType type = x_in.scalar_type();
  STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::Double ||
                      type == ScalarType::Half || type == ScalarType::BFloat16,
                  "dl4py: x must be a floating point tensor");
  Tensor y = empty_as(x_in);
  if (x_in.numel() == 0) return y;
  // Random numbers belong to elements in row-major order, other ops take any dense layout.
  Tensor out = seed && !y.is_contiguous() ? contiguous(y) : y;
  Tensor x = same_strides(x_in, out) && aligned(x_in) ? x_in : laid_out_as(out, x_in);
  Tensor s, k;
  bool each = false;
  if (scale) {
    check_device(*scale, x);
    bool as_is = scale->scalar_type() == type && aligned(*scale);
    each = !(as_is && is_one_number(*scale));
    s = as_is && (!each || same_strides(*scale, out)) ? *scale : laid_out_as(out, *scale);
    scale = &s;
  }
  if (seed) {
    check_device(*seed, x);
    STD_TORCH_CHECK(seed->scalar_type() == ScalarType::Long && seed->dim() <= x.dim(),
                    "dl4py: seed must be int64, without dimensions or with leading ones of x");
    for (int64_t d = 0; d < seed->dim(); ++d)
      STD_TORCH_CHECK(seed->size(d) == x.size(d), "dl4py: seed needs the leading sizes of x");
    k = contiguous(*seed);
    seed = &k;
  }
  switch (type) {
    case ScalarType::Float: launch<F, float>(x, scale, seed, out, order, each, p...); break;
    case ScalarType::Double: launch<F, double>(x, scale, seed, out, order, each, p...); break;
    case ScalarType::Half: launch<F, Half>(x, scale, seed, out, order, each, p...); break;
    default: launch<F, BFloat16>(x, scale, seed, out, order, each, p...);
  }
  return same_strides(out, y) ? out : copy_(y, out);
}

template <template <class> class F, class... P>
Tensor apply(const Tensor& x, const Tensor* scale, int64_t order, P... p) {
  return apply<F>(x, scale, static_cast<const Tensor*>(nullptr), order, p...);
}
template <template <class> class F, class... P>
Tensor apply(const Tensor& x, const Tensor* scale, int64_t order, const Tensor& seed, P... p) {
  return apply<F>(x, scale, &seed, order, p...);
}

// const& keeps TORCH_BOX from copying the handles.
template <template <class> class F, class... A>
Tensor op(const Tensor& x, Maybe scale, int64_t order, A... a) {
  return apply<F>(x, scale ? &*scale : nullptr, order, a...);
}
template <template <class> class F, class... A> Tensor raw(const Tensor& x, A... a) {
  return apply<F>(x, nullptr, int64_t(0), a...);
}
template <template <class> class F, class... A>
Tensor raw_d(const Tensor& x, const Tensor& g, A... a) {
  return apply<F>(x, &g, int64_t(1), a...);
}

using Seed = const Tensor&;

}  // namespace dl4py

// Registers functor F with its parameters' types, each double or Seed; the second, one that costs
// less than moving its numbers.
#define DL4PY_ACTIVATION(F, ...) DL4PY_REGISTER(DL4PY_CLONES, F __VA_OPT__(, ) __VA_ARGS__)
#define DL4PY_CHEAP(F, ...) DL4PY_REGISTER(DL4PY_STREAMING, F __VA_OPT__(, ) __VA_ARGS__)
#define DL4PY_REGISTER(CLONES, F, ...)                   \
  namespace dl4py {                                      \
  DL4PY_KERNELS(CLONES, F)                               \
  DL4PY_IMPL(DL4PY_DEVICE, F __VA_OPT__(, ) __VA_ARGS__) \
  }
#define DL4PY_IMPL(device, F, ...)                                          \
  STABLE_TORCH_LIBRARY_IMPL(dl4py, device, m) {                             \
    m.impl(#F, TORCH_BOX((&op<F __VA_OPT__(, ) __VA_ARGS__>)));             \
    m.impl("_" #F, TORCH_BOX((&raw<F __VA_OPT__(, ) __VA_ARGS__>)));        \
    m.impl("_" #F "_d", TORCH_BOX((&raw_d<F __VA_OPT__(, ) __VA_ARGS__>))); \
  }
