// Python's calls of kernels/edge_dual.h.
#pragma once

#include "bind/call.h"

namespace {

mtlfast::Pairs pairs(Address out_ptr, Address dst, Address in_ptr, Address in_edge, int64_t E) {
  return {required<const int64_t>(out_ptr), required<const int32_t>(dst, E),
          required<const int64_t>(in_ptr), required<const int64_t>(in_edge, E)};
}

void edge_dual_step(Address u, Address former, Address w, Address out_ptr, Address dst,
                    Address in_ptr, Address in_edge, Address radius, Address length, int64_t K,
                    int64_t d, int64_t E, double momentum, double scale, Address out, int threads) {
  call(kernels->edge_dual_step, required<const double>(u, E), required<double>(former, E),
       required<const double>(w), pairs(out_ptr, dst, in_ptr, in_edge, size(E)),
       required<const double>(radius, E), optional<const double>(length), size(K), size(d),
       momentum, scale, required<double>(out), threads);
}

void edge_dual_adjoint(Address u, Address out_ptr, Address dst, Address in_ptr, Address in_edge,
                       int64_t K, int64_t d, int64_t E, Address out, int threads) {
  call(kernels->edge_dual_adjoint, required<const double>(u, E),
       pairs(out_ptr, dst, in_ptr, in_edge, size(E)), size(K), size(d), required<double>(out),
       threads);
}

double edge_dual_value(Address w, Address out_ptr, Address dst, Address in_ptr, Address in_edge,
                       Address radius, int64_t K, int64_t d, int64_t E, int threads) {
  double value;
  call(kernels->edge_dual_value, required<const double>(w),
       pairs(out_ptr, dst, in_ptr, in_edge, size(E)), required<const double>(radius, E), size(K),
       size(d), &value, threads);
  return value;
}

void bind_edge_dual(Module& m) {
  m.def("edge_dual_step", &edge_dual_step);
  m.def("edge_dual_adjoint", &edge_dual_adjoint);
  m.def("edge_dual_value", &edge_dual_value);
}

}  // namespace
