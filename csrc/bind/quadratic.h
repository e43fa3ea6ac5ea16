// Python's calls of kernels/quadratic.h.
#pragma once

#include "bind/call.h"

namespace {

void quadratic(int type, Address w, Address row_ptr, Address col, Address weight, Address order,
               int64_t entries, int64_t K, int64_t d, double ridge, double pairs, double edges,
               Address value, Address grad, double scale, bool add, int threads) {
  mtlfast::Graph rows = graph(row_ptr, col, weight, size(entries));
  rows.order = optional<const int32_t>(order);
  double result;
  call_in_place(add, kernels->quadratic, dtype(type), required(w), rows, size(K), size(d), ridge,
                pairs, edges, &result, optional(grad), scale,
                add ? mtlfast::Plus::out : mtlfast::Plus::nothing, threads);
  store(dtype(type), value, result);
}

void bind_quadratic(Module& m) { m.def("quadratic", &quadratic); }

}  // namespace
