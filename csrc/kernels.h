// All kernels, and a table of them for each instruction set: filled by cpu/table.cpp, picked by
// cpu/dispatch.cpp. What names all of them expands MTLFAST_KERNELS.
#pragma once

#include "kernels/dense_graph.h"
#include "kernels/edge_dual.h"
#include "kernels/gram.h"
#include "kernels/graph.h"
#include "kernels/graph_prox.h"
#include "kernels/graph_total_variation.h"
#include "kernels/group.h"
#include "kernels/group_lasso.h"
#include "kernels/pairwise.h"
#include "kernels/quadratic.h"
#include "kernels/ridge.h"
#include "kernels/trace_norm.h"

#define MTLFAST_KERNELS(X)         \
  MTLFAST_PAIRWISE(X)              \
  MTLFAST_RIDGE(X)                 \
  MTLFAST_GRAPH(X)                 \
  MTLFAST_DENSE_GRAPH(X)           \
  MTLFAST_QUADRATIC(X)             \
  MTLFAST_GRAPH_TOTAL_VARIATION(X) \
  MTLFAST_EDGE_DUAL(X)             \
  MTLFAST_GRAM(X)                  \
  MTLFAST_GROUP_LASSO(X)           \
  MTLFAST_GROUP(X)                 \
  MTLFAST_GRAPH_PROX(X)            \
  MTLFAST_TRACE_NORM(X)

namespace mtlfast {

struct CpuKernels {
  const char* isa;
#define MTLFAST_MEMBER(name) signature::name* name;
  MTLFAST_KERNELS(MTLFAST_MEMBER)
#undef MTLFAST_MEMBER
};

// The widest table this machine can run, or the one named by `isa`; null for an unknown name or an
// instruction set that this machine lacks.
const CpuKernels* cpu_kernels(const char* isa = nullptr);

// Names of the tables in this binary that this machine can run, widest last; returns how many.
int cpu_isas(const char* names[3]);

}  // namespace mtlfast
