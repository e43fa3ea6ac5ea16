// Python's calls of kernels/group_lasso.h.
#pragma once

#include "bind/call.h"

namespace {

void column_lengths(int type, Address w, int64_t K, int64_t d, Address length, int threads) {
  call(kernels->column_lengths, dtype(type), required(w), size(K), size(d),
       required<double>(length), threads);
}

void column_scale(int type, Address w, Address factor, int64_t K, int64_t d, int plus, Address out,
                  int threads) {
  call_in_place(is_in_place(w, plus, out), kernels->column_scale, dtype(type), required(w),
                required(factor), size(K), size(d), plus_of(plus), required(out), threads);
}

void bind_group_lasso(Module& m) {
  m.def("column_lengths", &column_lengths);
  m.def("column_scale", &column_scale);
}

}  // namespace
