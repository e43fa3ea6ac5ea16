// The Python module mtlfast._C: a table of contents. It takes addresses, sizes and a thread count,
// rejects null addresses and negative sizes, releases the GIL and calls the kernels of the
// instruction set in use, which signals interrupt (interrupt.h). Meaning and shapes: mtlfast.h. No torch, no maths.
#include <pybind11/pybind11.h>

#include <string>

#include "graph_order.h"
#include "graph_pieces.h"
#include "interrupt.h"
#include "memory.h"
#include "mtlfast.h"
#include "python_signals.h"
#ifdef MTLFAST_CUDA
#include "cuda/kernels.h"
#endif

namespace py = pybind11;

namespace {

using mtlfast::CpuKernels;
using mtlfast::DType;
using Address = std::uintptr_t;

const CpuKernels* kernels = mtlfast::cpu_kernels();

// An array without elements may lack an address.
template <class T = void>
T* required(Address address, int64_t elements = 1) {
  if (address == 0 && elements > 0) throw py::value_error("mtlfast._C: a required address is null");
  return reinterpret_cast<T*>(address);
}

template <class T = void>
T* optional(Address address) {
  return reinterpret_cast<T*>(address);
}

int64_t size(int64_t n) {
  if (n < 0) throw py::value_error("mtlfast._C: size " + std::to_string(n) + " is negative");
  return n;
}

DType dtype(int code) {
  if (code < 0 || code > 3) throw py::value_error("mtlfast._C: no dtype " + std::to_string(code));
  return static_cast<DType>(code);
}

mtlfast::Plus plus_of(int code) {
  if (code < 0 || code > 2) throw py::value_error("mtlfast._C: no plus " + std::to_string(code));
  return static_cast<mtlfast::Plus>(code);
}

// Whether a kernel that writes plus + f(w) to `out` changes an array of its caller's.
bool is_in_place(Address w, int plus, Address out) {
  return out == w || plus_of(plus) == mtlfast::Plus::out;
}

mtlfast::Graph graph(Address row_ptr, Address col, Address weight, int64_t entries = 1) {
  return {required<const int64_t>(row_ptr), required<const int32_t>(col, entries),
          required(weight, entries), nullptr};
}

// A kernel that changes what its caller has is not interrupted half-way.
template <class Kernel, class... Args>
auto call_in_place(bool in_place, Kernel kernel, Args... args) {
  const mtlfast::Interruptible interruptible(!in_place);
  py::gil_scoped_release release;
  return kernel(args...);
}

template <class Kernel, class... Args>
auto call(Kernel kernel, Args... args) {
  return call_in_place(false, kernel, args...);
}

// Writes a result of the arithmetic type of `type`.
void store(DType type, Address address, double value) {
  if (type == DType::float64) {
    *required<double>(address) = value;
  } else {
    *required<float>(address) = float(value);
  }
}

void pairwise_value(int type, Address w, int64_t K, int64_t d, Address value, Address mean,
                    int threads) {
  double result;
  call(kernels->pairwise_value, dtype(type), required(w), size(K), size(d), &result,
       required(mean), threads);
  store(dtype(type), value, result);
}

void pairwise_value_grad(int type, Address w, int64_t K, int64_t d, Address value, Address grad,
                         int threads) {
  double result;
  call(kernels->pairwise_value_grad, dtype(type), required(w), size(K), size(d), &result,
       required(grad), threads);
  store(dtype(type), value, result);
}

void pairwise_affine(int type, Address w, Address mean, int64_t K, int64_t d, double scale,
                     int plus, Address out, int threads) {
  call_in_place(is_in_place(w, plus, out), kernels->pairwise_affine, dtype(type), required(w),
                required(mean), size(K), size(d), scale, plus_of(plus), required(out), threads);
}

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

// A value over the edges, and its gradient; `more` goes to the kernel before the threads.
template <class Kernel, class... More>
void edge_value(Kernel kernel, int type, Address w, Address row_ptr, Address col, Address weight,
                Address order, int64_t K, int64_t d, Address value, Address grad, double scale,
                bool add, int threads, const More&... more) {
  mtlfast::Graph rows = graph(row_ptr, col, weight);
  rows.order = optional<const int32_t>(order);
  double result;
  call_in_place(add, kernel, dtype(type), required(w), rows, size(K), size(d), &result,
                optional(grad), scale, add ? mtlfast::Plus::out : mtlfast::Plus::nothing, more...,
                threads);
  store(dtype(type), value, result);
}

void graph_value(int type, Address w, Address row_ptr, Address col, Address weight, Address order,
                 int64_t K, int64_t d, Address value, Address grad, double scale, bool add,
                 int threads) {
  edge_value(kernels->graph_value, type, w, row_ptr, col, weight, order, K, d, value, grad, scale,
             add, threads, mtlfast::Affine{});
}

void graph_total_variation(int type, Address w, Address row_ptr, Address col, Address weight,
                           Address order, int64_t K, int64_t d, Address value, Address grad,
                           double scale, bool add, int threads) {
  edge_value(kernels->graph_total_variation, type, w, row_ptr, col, weight, order, K, d, value,
             grad, scale, add, threads);
}

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

void ridge(int type, Address w, int64_t n, double factor, Address value, Address out, double scale,
           int plus, int threads) {
  double result;
  call_in_place(is_in_place(w, plus, out), kernels->ridge, dtype(type), required(w), size(n),
                factor, value == 0 ? nullptr : &result, optional(out), scale, plus_of(plus),
                threads);
  if (value != 0) store(dtype(type), value, result);
}

void edge_distance(int type, Address w, Address src, Address dst, int64_t E, int64_t d,
                   Address out, int threads) {
  call(kernels->edge_distance, dtype(type), required(w), required<const int64_t>(src),
       required<const int64_t>(dst), size(E), size(d), required(out), threads);
}

void dense_graph_value(int type, Address w, Address a, int64_t K, int64_t d, Address value,
                       Address grad, double scale, int threads) {
  call(kernels->dense_graph_value, dtype(type), required(w), required(a), size(K), size(d),
       required<double>(value), optional(grad), scale, threads);
}

void dense_distance(int type, Address w, int64_t K, int64_t d, Address out, int threads) {
  call(kernels->dense_distance, dtype(type), required(w), size(K), size(d), required(out), threads);
}

void gram_dense(int type, Address w, Address omega, int64_t K, int64_t d, Address value,
                Address grad, int threads) {
  double result;
  call(kernels->gram_dense, dtype(type), required(w), required(omega), size(K), size(d), &result,
       optional(grad), threads);
  store(dtype(type), value, result);
}

void gram_edges(int type, Address w, Address row, Address col, Address values, int64_t K, int64_t d,
                int64_t E, Address value, Address grad, Address values_grad, int threads) {
  double result;
  call(kernels->gram_edges, dtype(type), required(w), required<const int64_t>(row, E),
       required<const int64_t>(col, E), required(values, E), size(K), size(d), size(E), &result,
       optional(grad), optional(values_grad), threads);
  store(dtype(type), value, result);
}

void column_lengths(int type, Address w, int64_t K, int64_t d, Address length, int threads) {
  call(kernels->column_lengths, dtype(type), required(w), size(K), size(d),
       required<double>(length), threads);
}

void column_scale(int type, Address w, Address factor, int64_t K, int64_t d, int plus, Address out,
                  int threads) {
  call_in_place(is_in_place(w, plus, out), kernels->column_scale, dtype(type), required(w),
                required(factor), size(K), size(d), plus_of(plus), required(out), threads);
}

void group_value(int type, Address w, Address ptr, Address member, int64_t G, int64_t d,
                 Address value, Address grad, double scale, int threads) {
  call(kernels->group_value, dtype(type), required(w), required<const int64_t>(ptr),
       required<const int64_t>(member), size(G), size(d), required<double>(value), optional(grad),
       scale, threads);
}

void group_prox(int type, Address w, Address ptr, Address member, int64_t G, int64_t d,
                double step, Address out, int threads) {
  call(kernels->group_prox, dtype(type), required(w), required<const int64_t>(ptr),
       required<const int64_t>(member), size(G), size(d), step, required(out), threads);
}

void graph_prox(int type, Address w, Address row_ptr, Address col, Address weight, Address member,
                Address first, int64_t count, int64_t d, double step, double tol, int64_t max_iter,
                Address out, Address status, Address residual, int threads) {
  mtlfast::Graph rows = graph(row_ptr, col, weight);
  rows.order = optional<const int32_t>(member);
  call(kernels->graph_prox, dtype(type), required(w), rows, required<const int64_t>(first),
       size(count), size(d), step, tol, size(max_iter), required(out), required<int64_t>(status),
       required<double>(residual), threads);
}

mtlfast::Pairs pairs(Address out_ptr, Address dst, Address in_ptr, Address in_edge, int64_t E) {
  return {required<const int64_t>(out_ptr), required<const int32_t>(dst, E),
          required<const int64_t>(in_ptr), required<const int64_t>(in_edge, E)};
}

void edge_dual_step(Address u, Address former, Address w, Address out_ptr, Address dst,
                    Address in_ptr, Address in_edge, Address radius, Address length, int64_t K,
                    int64_t d, int64_t E, double momentum, double scale, Address out,
                    int threads) {
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

void trace_norm_value(int type, Address w, int64_t B, int64_t m, int64_t n, Address value,
                      Address grad, int threads) {
  call(kernels->trace_norm_value, dtype(type), required(w), size(B), size(m), size(n),
       required<double>(value), optional(grad), threads);
}

void trace_norm_prox(int type, Address w, Address threshold, int64_t B, int64_t m, int64_t n,
                     Address out, int threads) {
  call_in_place(w == out, kernels->trace_norm_prox, dtype(type), required(w),
                required<const double>(threshold), size(B), size(m), size(n), required(out),
                threads);
}

void trace_norm_gram_value(int type, Address w, int64_t B, int64_t m, int64_t n, Address value,
                           Address grad, int threads) {
  call(kernels->trace_norm_gram_value, dtype(type), required(w), size(B), size(m), size(n),
       required<double>(value), optional(grad), threads);
}

void trace_norm_gram_prox(int type, Address w, Address threshold, int64_t B, int64_t m, int64_t n,
                          Address out, Address finite, int threads) {
  call_in_place(w == out, kernels->trace_norm_gram_prox, dtype(type), required(w),
                required<const double>(threshold), size(B), size(m), size(n), required(out),
                required<int64_t>(finite), threads);
}

#ifdef MTLFAST_CUDA
// All addresses are on the device; the work is queued on the stream. See cuda/kernels.h.
namespace cuda {

using mtlfast::cuda::Stream;

int64_t pairwise_workspace(int type, int64_t K, int64_t d) {
  return mtlfast::cuda::pairwise_workspace(dtype(type), size(K), size(d));
}

void pairwise_value(int type, Address w, int64_t K, int64_t d, double scale, Address value,
                    Address mean, Address workspace, int device, Address stream) {
  call(mtlfast::cuda::pairwise_value, dtype(type), required(w), size(K), size(d), scale,
       required(value), required(mean), required(workspace), Stream{device, optional(stream)});
}

void pairwise_affine(int type, Address w, Address mean, int64_t K, int64_t d, double factor,
                     Address upstream, int plus, Address out, int device, Address stream) {
  call(mtlfast::cuda::pairwise_affine, dtype(type), required(w), required(mean), size(K), size(d),
       mtlfast::cuda::Scale{factor, optional(upstream)}, plus_of(plus), required(out),
       Stream{device, optional(stream)});
}

int64_t graph_workspace(int type, int64_t K, int64_t d, int64_t E) {
  return mtlfast::cuda::graph_workspace(dtype(type), size(K), size(d), size(E));
}

void graph_value(int type, Address w, Address row_ptr, Address col, Address weight, Address order,
                 int64_t K, int64_t d, int64_t E, double value_scale, Address value, Address grad,
                 double factor, Address upstream, int plus, Address workspace, int device,
                 Address stream) {
  mtlfast::Graph rows = graph(row_ptr, col, weight);
  rows.order = optional<const int32_t>(order);
  call(mtlfast::cuda::graph_value, dtype(type), required(w), rows, size(K), size(d), size(E),
       value_scale, required(value), optional(grad),
       mtlfast::cuda::Scale{factor, optional(upstream)}, plus_of(plus), required(workspace),
       Stream{device, optional(stream)});
}

void edge_distance(int type, Address w, Address src, Address dst, int64_t E, int64_t d,
                   Address out, int device, Address stream) {
  call(mtlfast::cuda::edge_distance, dtype(type), required(w), required<const int64_t>(src),
       required<const int64_t>(dst), size(E), size(d), required(out),
       Stream{device, optional(stream)});
}

int64_t dense_graph_workspace(int64_t K, int64_t d) {
  return mtlfast::cuda::dense_graph_workspace(size(K), size(d));
}

void dense_graph_value(int type, Address w, Address a, int64_t K, int64_t d, double value_scale,
                       Address value, Address grad, double factor, Address upstream, int plus,
                       Address workspace, int device, Address stream) {
  call(mtlfast::cuda::dense_graph_value, dtype(type), required(w), required(a), size(K), size(d),
       value_scale, required(value), optional(grad),
       mtlfast::cuda::Scale{factor, optional(upstream)}, plus_of(plus), required(workspace),
       Stream{device, optional(stream)});
}

void dense_distance(int type, Address w, int64_t K, int64_t d, Address out, int device,
                    Address stream) {
  call(mtlfast::cuda::dense_distance, dtype(type), required(w), size(K), size(d), required(out),
       Stream{device, optional(stream)});
}

void edge_product(int type, Address w, Address row, Address col, int64_t E, int64_t d, Address out,
                  int device, Address stream) {
  call(mtlfast::cuda::edge_product, dtype(type), required(w), required<const int64_t>(row),
       required<const int64_t>(col), size(E), size(d), required<double>(out),
       Stream{device, optional(stream)});
}

int64_t edge_sum_workspace(int64_t M, int64_t d) {
  return mtlfast::cuda::edge_sum_workspace(size(M), size(d));
}

void edge_sum(int type, Address w, Address task, Address other, Address weight, int64_t M,
              int64_t d, double factor, Address out, Address workspace, int device,
              Address stream) {
  call(mtlfast::cuda::edge_sum, dtype(type), required(w), required<const int64_t>(task),
       required<const int64_t>(other), required(weight), size(M), size(d), factor,
       required<double>(out), required(workspace), Stream{device, optional(stream)});
}

int64_t group_workspace(int type, int64_t G, int64_t M, int64_t d) {
  return mtlfast::cuda::group_workspace(dtype(type), size(G), size(M), size(d));
}

void group_value(int type, Address w, Address ptr, Address member, int64_t G, int64_t M, int64_t d,
                 double value_scale, Address value, Address grad, double factor, Address upstream,
                 Address workspace, int device, Address stream) {
  call(mtlfast::cuda::group_value, dtype(type), required(w), required<const int64_t>(ptr),
       required<const int64_t>(member), size(G), size(M), size(d), value_scale, required(value),
       optional(grad), mtlfast::cuda::Scale{factor, optional(upstream)}, required(workspace),
       Stream{device, optional(stream)});
}

void group_prox(int type, Address w, Address ptr, Address member, int64_t G, int64_t M, int64_t d,
                double step, Address out, Address workspace, int device, Address stream) {
  call(mtlfast::cuda::group_prox, dtype(type), required(w), required<const int64_t>(ptr),
       required<const int64_t>(member), size(G), size(M), size(d), step, required(out),
       required(workspace), Stream{device, optional(stream)});
}

int64_t trace_norm_matrices(int64_t m, int64_t n) {
  return mtlfast::cuda::trace_norm_matrices(size(m), size(n));
}

void trace_norm_value(int type, Address w, int64_t B, int64_t m, int64_t n, Address value,
                      Address grad, int device, Address stream) {
  call(mtlfast::cuda::trace_norm_value, dtype(type), required(w), size(B), size(m), size(n),
       required(value), optional(grad), Stream{device, optional(stream)});
}

void trace_norm_prox(int type, Address w, Address threshold, int64_t B, int64_t m, int64_t n,
                     Address out, int device, Address stream) {
  call(mtlfast::cuda::trace_norm_prox, dtype(type), required(w),
       required<const double>(threshold), size(B), size(m), size(n), required(out),
       Stream{device, optional(stream)});
}

int64_t graph_prox_workspace(int64_t K, int64_t d, int64_t E) {
  return mtlfast::cuda::graph_prox_workspace(size(K), size(d), size(E));
}

void graph_prox_small(int type, Address w, Address row_ptr, Address col, Address weight,
                      Address member, Address first, int64_t count, int64_t d, double step,
                      Address out, Address indefinite, int device, Address stream) {
  mtlfast::Graph rows = graph(row_ptr, col, weight);
  rows.order = optional<const int32_t>(member);
  call(mtlfast::cuda::graph_prox_small, dtype(type), required(w), rows,
       required<const int64_t>(first), size(count), size(d), step, required(out),
       required<int32_t>(indefinite), Stream{device, optional(stream)});
}

mtlfast::cuda::ProxSystem prox_system(Address row_ptr, Address col, Address weight, Address member,
                                      int64_t K, int64_t d, int64_t E, double step,
                                      Address state) {
  mtlfast::Graph rows = graph(row_ptr, col, weight);
  rows.order = optional<const int32_t>(member);
  return {rows, size(K), size(d), size(E), step, required(state)};
}

void graph_prox_load(int type, Address w, int64_t stride, int64_t column, Address row_ptr,
                     Address col, Address weight, Address member, int64_t K, int64_t d, int64_t E,
                     double step, Address state, Address workspace, int device, Address stream) {
  call(mtlfast::cuda::graph_prox_load, dtype(type), required(w), size(stride), size(column),
       prox_system(row_ptr, col, weight, member, K, d, E, step, state), required(workspace),
       Stream{device, optional(stream)});
}

void graph_prox_residual(int type, Address w, int64_t stride, int64_t column, Address row_ptr,
                         Address col, Address weight, Address member, int64_t K, int64_t d,
                         int64_t E, double step, Address state, Address workspace, int device,
                         Address stream) {
  call(mtlfast::cuda::graph_prox_residual, dtype(type), required(w), size(stride), size(column),
       prox_system(row_ptr, col, weight, member, K, d, E, step, state), required(workspace),
       Stream{device, optional(stream)});
}

void graph_prox_iterate(Address row_ptr, Address col, Address weight, Address member, int64_t K,
                        int64_t d, int64_t E, double step, Address state, bool error, double tol,
                        int64_t max_iter, int64_t count, Address workspace, int device,
                        Address stream) {
  call(mtlfast::cuda::graph_prox_iterate,
       prox_system(row_ptr, col, weight, member, K, d, E, step, state), error, tol, size(max_iter),
       size(count), required(workspace), Stream{device, optional(stream)});
}

void graph_prox_correct(Address row_ptr, Address col, Address weight, Address member, int64_t K,
                        int64_t d, int64_t E, double step, Address state, Address workspace,
                        int device, Address stream) {
  call(mtlfast::cuda::graph_prox_correct,
       prox_system(row_ptr, col, weight, member, K, d, E, step, state), required(workspace),
       Stream{device, optional(stream)});
}

void graph_prox_store(int type, Address out, int64_t stride, int64_t column, Address row_ptr,
                      Address col, Address weight, Address member, int64_t K, int64_t d, int64_t E,
                      double step, Address state, Address workspace, int device, Address stream) {
  call(mtlfast::cuda::graph_prox_store, dtype(type), required(out), size(stride), size(column),
       prox_system(row_ptr, col, weight, member, K, d, E, step, state), required(workspace),
       Stream{device, optional(stream)});
}

}  // namespace cuda
#endif

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

}  // namespace

PYBIND11_MODULE(_C, m) {
  m.doc() = "Native kernels of mtlfast; call them through mtlfast, which checks the arguments.";
  mtlfast::hear_python_signals();
  m.def("pairwise_value", &pairwise_value);
  m.def("pairwise_value_grad", &pairwise_value_grad);
  m.def("pairwise_affine", &pairwise_affine);
  m.def("graph_order", &graph_order);
  m.def("graph_reorder", &graph_reorder);
  m.def("graph_pieces", &graph_pieces);
  m.def("ridge", &ridge);
  m.def("graph_value", &graph_value);
  m.def("quadratic", &quadratic);
  m.def("graph_total_variation", &graph_total_variation);
  m.def("edge_distance", &edge_distance);
  m.def("dense_graph_value", &dense_graph_value);
  m.def("dense_distance", &dense_distance);
  m.def("gram_dense", &gram_dense);
  m.def("gram_edges", &gram_edges);
  m.def("column_lengths", &column_lengths);
  m.def("column_scale", &column_scale);
  m.def("group_value", &group_value);
  m.def("group_prox", &group_prox);
  m.def("graph_prox", &graph_prox);
  m.def("edge_dual_step", &edge_dual_step);
  m.def("edge_dual_adjoint", &edge_dual_adjoint);
  m.def("edge_dual_value", &edge_dual_value);
  m.def("trace_norm_value", &trace_norm_value);
  m.def("trace_norm_prox", &trace_norm_prox);
  py::class_<mtlfast::Memory>(m, "Memory", py::buffer_protocol())
      .def(py::init<int64_t>())
      .def_buffer([](mtlfast::Memory& memory) {
        return py::buffer_info(static_cast<unsigned char*>(memory.data()), memory.bytes());
      });
  m.def("release_memory", &mtlfast::release_memory);
  m.def("trace_norm_gram_value", &trace_norm_gram_value);
  m.def("trace_norm_gram_prox", &trace_norm_gram_prox);
#ifdef MTLFAST_CUDA
  m.def("cuda_pairwise_workspace", &cuda::pairwise_workspace);
  m.def("cuda_pairwise_value", &cuda::pairwise_value);
  m.def("cuda_pairwise_affine", &cuda::pairwise_affine);
  m.def("cuda_graph_workspace", &cuda::graph_workspace);
  m.def("cuda_graph_value", &cuda::graph_value);
  m.def("cuda_edge_distance", &cuda::edge_distance);
  m.def("cuda_dense_graph_workspace", &cuda::dense_graph_workspace);
  m.def("cuda_dense_graph_value", &cuda::dense_graph_value);
  m.def("cuda_dense_distance", &cuda::dense_distance);
  m.def("cuda_edge_product", &cuda::edge_product);
  m.def("cuda_edge_sum_workspace", &cuda::edge_sum_workspace);
  m.def("cuda_edge_sum", &cuda::edge_sum);
  m.def("cuda_group_workspace", &cuda::group_workspace);
  m.def("cuda_group_value", &cuda::group_value);
  m.def("cuda_group_prox", &cuda::group_prox);
  m.def("cuda_trace_norm_matrices", &cuda::trace_norm_matrices);
  m.def("cuda_trace_norm_value", &cuda::trace_norm_value);
  m.def("cuda_trace_norm_prox", &cuda::trace_norm_prox);
  m.def("cuda_graph_prox_small", &cuda::graph_prox_small);
  m.def("cuda_graph_prox_workspace", &cuda::graph_prox_workspace);
  m.def("cuda_graph_prox_load", &cuda::graph_prox_load);
  m.def("cuda_graph_prox_residual", &cuda::graph_prox_residual);
  m.def("cuda_graph_prox_iterate", &cuda::graph_prox_iterate);
  m.def("cuda_graph_prox_correct", &cuda::graph_prox_correct);
  m.def("cuda_graph_prox_store", &cuda::graph_prox_store);
#endif
  m.def("use_isa", &use_isa, py::arg("name") = "");
  m.def("runnable_isas", &runnable_isas);
  m.def("build_info", &build_info);
}
