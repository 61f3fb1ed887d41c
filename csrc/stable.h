// All that the kernels take of torch, in its stable ABI. No other file includes torch or names what
// is private in it or differs between its releases: STD_TORCH_CHECK, TORCH_BOX and
// STABLE_TORCH_LIBRARY_IMPL are the only macros used elsewhere.
#pragma once
#include <cstdint>

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#ifdef __CUDACC__
#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cuda.h>
#else
#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cpu.h>
#endif
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/util/BFloat16.h>
#include <torch/headeronly/util/Half.h>

#ifdef __CUDACC__
#include <cuda_runtime_api.h>
#include <torch/csrc/stable/accelerator.h>
#endif

// torch 2.11 and 2.12 know the old name alone.
#ifdef STABLE_TORCH_ERROR_CODE_CHECK
#define DL4PY_SHIM(call) STABLE_TORCH_ERROR_CODE_CHECK(call)
#else
#define DL4PY_SHIM(call) TORCH_ERROR_CODE_CHECK(call)
#endif

namespace dl4py {

using torch::headeronly::BFloat16;
using torch::headeronly::Half;
using torch::headeronly::ScalarType;
using torch::stable::contiguous;
using torch::stable::copy_;
using torch::stable::empty_like;
using torch::stable::new_empty;
using torch::stable::parallel_for;
using torch::stable::Tensor;
using torch::stable::zero_;

inline int32_t device_type(const Tensor& t) {
  int32_t type;
  DL4PY_SHIM(aoti_torch_get_device_type(t.get(), &type));
  return type;
}

// Memory for a tensor of x's dtype on x's device; torch's own functions look their operators up by
// name (1 us).
inline Tensor empty(const Tensor& x, int64_t dims, const int64_t* sizes, const int64_t* strides) {
  int32_t dtype;
  AtenTensorHandle made;
  DL4PY_SHIM(aoti_torch_get_dtype(x.get(), &dtype));
  DL4PY_SHIM(aoti_torch_empty_strided(dims, sizes, strides, dtype, device_type(x),
                                      x.get_device_index(), &made));
  return Tensor(made);
}

// Rows and columns of a tensor's memory, from an element on.
inline Tensor matrix(const Tensor& x, int64_t first, int64_t rows, int64_t columns,
                     bool turned = false) {
  const int64_t sizes[] = {turned ? columns : rows, turned ? rows : columns};
  const int64_t strides[] = {turned ? 1 : columns, turned ? columns : 1};
  AtenTensorHandle made;
  DL4PY_SHIM(aoti_torch__reinterpret_tensor(x.get(), 2, sizes, strides, first, &made));
  return Tensor(made);
}

// out = b · c + by · a
inline void add_product(const Tensor& out, const Tensor& a, const Tensor& b, const Tensor& c,
                        double by = 1) {
#ifdef __CUDACC__
  DL4PY_SHIM(aoti_torch_cuda_addmm_out(out.get(), a.get(), b.get(), c.get(), by, 1));
#else
  DL4PY_SHIM(aoti_torch_cpu_addmm_out(out.get(), a.get(), b.get(), c.get(), by, 1));
#endif
}

#ifdef __CUDACC__
using torch::stable::accelerator::DeviceGuard;

inline Tensor sum_all(const Tensor& t) { return torch::stable::sum(t); }

inline cudaStream_t current_stream(int32_t device) {
  void* stream;
  DL4PY_SHIM(aoti_torch_get_current_cuda_stream(device, &stream));
  return static_cast<cudaStream_t>(stream);
}
#endif

}  // namespace dl4py
