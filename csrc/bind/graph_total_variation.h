// Python's calls of kernels/graph_total_variation.h.
#pragma once

#include "bind/call.h"
#include "bind/graph.h"

namespace {

void graph_total_variation(int type, Address w, Address row_ptr, Address col, Address weight,
                           Address order, int64_t K, int64_t d, Address value, Address grad,
                           double scale, bool add, int threads) {
  edge_value(kernels->graph_total_variation, type, w, row_ptr, col, weight, order, K, d, value,
             grad, scale, add, threads);
}

void bind_graph_total_variation(Module& m) {
  m.def("graph_total_variation", &graph_total_variation);
}

}  // namespace
