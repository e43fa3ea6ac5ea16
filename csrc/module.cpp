// The Python module mtlfast._C: a table of contents. Meaning and shapes: kernels/, cpu/graph_order.h,
// cpu/graph_pieces.h, cuda/kernels.h. Arguments: bind/. No torch, no maths. One file is compiled, for
// pybind11 takes most of the time.
#include <iterator>
#include <string>

#include "bind/edge_dual.h"
#include "bind/gram.h"
#include "bind/graph.h"
#include "bind/graph_order.h"
#include "bind/graph_prox.h"
#include "bind/graph_total_variation.h"
#include "bind/group.h"
#include "bind/group_lasso.h"
#include "bind/pairwise.h"
#include "bind/quadratic.h"
#include "bind/ridge.h"
#include "bind/trace_norm.h"
#include "memory.h"
#include "python_signals.h"

namespace {

// The instruction set in use; with a name, switches to it first.
std::string use_isa(const std::string& name) {
  if (!name.empty()) {
    const CpuKernels* chosen = mtlfast::cpu_kernels(name.c_str());
    if (chosen == nullptr) {
      throw std::invalid_argument("mtlfast._C: cannot run instruction set " + name);
    }
    kernels = chosen;
  }
  return kernels->isa;
}

// Words as a list of JSON.
std::string list(const char* const* words, int count) {
  std::string text;
  for (int i = 0; i < count; ++i) text += std::string(i ? ", \"" : "\"") + words[i] + '"';
  return "[" + text + "]";
}

// In JSON, as build_info.
std::string runnable_isas() {
  const char* names[3];
  const int count = mtlfast::cpu_isas(names);
  return list(names, count);
}

std::string build_info() {
  const char* isas[] = {MTLFAST_ISA_NAMES};
#ifdef _OPENMP
  const std::string openmp = std::to_string(_OPENMP);
#else
  const std::string openmp = "null";
#endif
#ifdef MTLFAST_CUDA
  const char* archs[] = {MTLFAST_CUDA_ARCHS};
  const std::string cuda = "true, \"cuda_archs\": " + list(archs, int(std::size(archs)));
#else
  const std::string cuda = "false, \"cuda_archs\": []";
#endif
  return "{\"compiler\": \"" MTLFAST_COMPILER "\", \"built_isas\": " +
         list(isas, int(std::size(isas))) + ", \"openmp\": " + openmp + ", \"cuda\": " + cuda + "}";
}

void fill(Module& m) {
  mtlfast::hear_python_signals();
  bind_pairwise(m);
  bind_ridge(m);
  bind_graph(m);
  bind_graph_order(m);
  bind_quadratic(m);
  bind_graph_total_variation(m);
  bind_edge_dual(m);
  bind_gram(m);
  bind_group_lasso(m);
  bind_group(m);
  bind_graph_prox(m);
  bind_trace_norm(m);
  m.def_memory();
  m.def("release_memory", &mtlfast::release_memory);
  m.def("use_isa", &use_isa);
  m.def("runnable_isas", &runnable_isas);
  m.def("build_info", &build_info);
}

}  // namespace

MTLFAST_MODULE("Native kernels of mtlfast; call them through mtlfast, which checks the arguments.",
               fill)
