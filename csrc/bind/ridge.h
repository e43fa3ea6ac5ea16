// Python's calls of kernels/ridge.h.
#pragma once

#include "bind/call.h"

namespace {

void ridge(int type, Address w, int64_t n, double factor, Address value, Address out, double scale,
           int plus, int threads) {
  double result;
  call_in_place(is_in_place(w, plus, out), kernels->ridge, dtype(type), required(w), size(n), factor,
                value == 0 ? nullptr : &result, optional(out), scale, plus_of(plus), threads);
  if (value != 0) store(dtype(type), value, result);
}

void bind_ridge(Module& m) { m.def("ridge", &ridge); }

}  // namespace
