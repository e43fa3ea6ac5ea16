// The Python module mtlfast._C: a table of contents. Meaning and shapes: kernels/, cpu/graph_order.h,
// cpu/graph_pieces.h, cuda/kernels.h. Arguments: bind/. No torch, no maths. One file is compiled, for
// pybind11 takes most of the time.
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
    if (chosen == nullptr) throw py::value_error("mtlfast._C: cannot run instruction set " + name);
    kernels = chosen;
  }
  return kernels->isa;
}

py::list runnable_isas() {
  const char* names[3];
  py::list list;
  for (int i = 0, n = mtlfast::cpu_isas(names); i < n; ++i) list.append(names[i]);
  return list;
}

py::dict build_info() {
  py::dict info;
  info["compiler"] = MTLFAST_COMPILER;
  info["built_isas"] = py::make_tuple(MTLFAST_ISA_NAMES);
#ifdef _OPENMP
  info["openmp"] = int(_OPENMP);
#else
  info["openmp"] = py::none();
#endif
#ifdef MTLFAST_CUDA
  info["cuda"] = true;
  info["cuda_archs"] = py::make_tuple(MTLFAST_CUDA_ARCHS);
#else
  info["cuda"] = false;
  info["cuda_archs"] = py::tuple();
#endif
  return info;
}

void bind_memory(py::module_& m) {
  py::class_<mtlfast::Memory>(m, "Memory", py::buffer_protocol())
      .def(py::init<int64_t>())
      .def_buffer([](mtlfast::Memory& memory) {
        return py::buffer_info(static_cast<unsigned char*>(memory.data()), memory.bytes());
      });
  m.def("release_memory", &mtlfast::release_memory);
}

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Native kernels of mtlfast; call them through mtlfast, which checks the arguments.";
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
  bind_memory(m);
  m.def("use_isa", &use_isa, py::arg("name") = "");
  m.def("runnable_isas", &runnable_isas);
  m.def("build_info", &build_info);
}
