#include <cstdlib>
#include "cpu/kernels.h"
namespace mtlfast { namespace MTLFAST_ISA {
void graph_value(DType, const void*, Graph, int64_t, int64_t, double*, void*, int) { std::abort(); }
void edge_distance(DType, const void*, const int64_t*, const int64_t*, int64_t, int64_t, void*, int) { std::abort(); }
void dense_graph_value(DType, const void*, const void*, int64_t, int64_t, double*, void*, void*, int) { std::abort(); }
void group_value(DType, const void*, const int64_t*, const int64_t*, int64_t, int64_t, int64_t, double*, void*, int) { std::abort(); }
void group_prox(DType, const void*, const int64_t*, const int64_t*, int64_t, int64_t, int64_t, double, void*, int) { std::abort(); }
void graph_prox(DType, const void*, Graph, int64_t, int64_t, double, double, int64_t, void*, int64_t*, double*, int) { std::abort(); }
}}
