// Python's calls of cpu/graph_order.h and cpu/graph_pieces.h.
#pragma once

#include "bind/call.h"
#include "cpu/graph_order.h"
#include "cpu/graph_pieces.h"

namespace {

double graph_order(Address row_ptr, Address col, int64_t K, Address order) {
  return call(mtlfast::graph_order, required<const int64_t>(row_ptr), required<const int32_t>(col),
              size(K), required<int32_t>(order));
}

void graph_reorder(Address row_ptr, Address col, Address weight, int64_t weight_bytes, int64_t K,
                   Address order, Address new_row_ptr, Address new_col, Address new_weight) {
  call(mtlfast::graph_reorder, required<const int64_t>(row_ptr), required<const int32_t>(col),
       required(weight), weight_bytes, size(K), required<const int32_t>(order),
       required<int64_t>(new_row_ptr), required<int32_t>(new_col), required(new_weight));
}

int64_t graph_pieces(Address row_ptr, Address col, int64_t K, Address first, Address member) {
  return call(mtlfast::graph_pieces, required<const int64_t>(row_ptr),
              required<const int32_t>(col, 0), size(K), required<int64_t>(first),
              required<int32_t>(member, K));
}

void bind_graph_order(Module& m) {
  m.def("graph_order", &graph_order);
  m.def("graph_reorder", &graph_reorder);
  m.def("graph_pieces", &graph_pieces);
}

}  // namespace
