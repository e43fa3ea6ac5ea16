// How an argument of Python becomes one of a kernel, and how a kernel is called: addresses and sizes
// are looked at, the GIL is released, signals interrupt (interrupt.h).
#pragma once

#include <stdexcept>
#include <string>

#include "bind/module.h"
#include "interrupt.h"
#include "kernels.h"
#include "types.h"
#ifdef MTLFAST_CUDA
#include "cuda/kernels.h"
#endif

namespace {

using mtlfast::CpuKernels;
using mtlfast::DType;
using Address = std::uintptr_t;

const CpuKernels* kernels = mtlfast::cpu_kernels();  // of the instruction set in use

// An array without elements may lack an address.
template <class T = void>
T* required(Address address, int64_t elements = 1) {
  if (address == 0 && elements > 0)
    throw std::invalid_argument("mtlfast._C: a required address is null");
  return reinterpret_cast<T*>(address);
}

template <class T = void>
T* optional(Address address) {
  return reinterpret_cast<T*>(address);
}

int64_t size(int64_t n) {
  if (n < 0) throw std::invalid_argument("mtlfast._C: size " + std::to_string(n) + " is negative");
  return n;
}

DType dtype(int code) {
  if (code < 0 || code > 3)
    throw std::invalid_argument("mtlfast._C: no dtype " + std::to_string(code));
  return static_cast<DType>(code);
}

mtlfast::Plus plus_of(int code) {
  if (code < 0 || code > 2)
    throw std::invalid_argument("mtlfast._C: no plus " + std::to_string(code));
  return static_cast<mtlfast::Plus>(code);
}

// Whether a kernel that writes plus + f(w) to `out` changes an array of its caller's.
bool is_in_place(Address w, int plus, Address out) {
  return out == w || plus_of(plus) == mtlfast::Plus::out;
}

mtlfast::Graph graph(Address row_ptr, Address col, Address weight, int64_t entries = 1) {
  return {required<const int64_t>(row_ptr), required<const int32_t>(col, entries),
          required(weight, entries), nullptr};
}

// A kernel that changes what its caller has is not interrupted half-way.
template <class Kernel, class... Args>
auto call_in_place(bool in_place, Kernel kernel, Args... args) {
  const mtlfast::Interruptible interruptible(!in_place);
  const GilReleased released;
  return kernel(args...);
}

template <class Kernel, class... Args>
auto call(Kernel kernel, Args... args) {
  return call_in_place(false, kernel, args...);
}

// Writes a result of the arithmetic type of `type`.
void store(DType type, Address address, double value) {
  if (type == DType::float64) {
    *required<double>(address) = value;
  } else {
    *required<float>(address) = float(value);
  }
}

#ifdef MTLFAST_CUDA
// All addresses are on the device; the work is queued on the stream. See cuda/kernels.h.
namespace cuda {

using mtlfast::cuda::Stream;

}  // namespace cuda
#endif

}  // namespace
