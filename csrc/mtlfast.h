// The C++ signature of every native kernel, with the shape of every array.
//
// Kernels know arrays and no checks: sizes are right, pointers are valid and arrays are dense and
// row-major by the time they get here. `threads` is an upper bound; the bits of every result are
// the same for any value of it. K tasks, d parameters a task, T the element type named by DType.
#pragma once

#include <cstdint>

namespace mtlfast {

enum class DType : int { float32 = 0, float64 = 1, bfloat16 = 2, float16 = 3 };

// What a result is added to.
enum class Plus : int { nothing = 0, mean = 1, out = 2 };

// Symmetric sparse task graph: row p in [row_ptr[p], row_ptr[p+1]), columns sorted within a row. Row p
// is that of task order[p], or of task p.
// `weight` is s_ij = A_ij + A_ji in W's arithmetic type (double for float64, else float).
struct Graph {
  const int64_t* row_ptr;  // [K + 1]
  const int32_t* col;      // [row_ptr[K]]
  const void* weight;      // [row_ptr[K]]
  const int32_t* order = nullptr;  // [K], a permutation, or null
};

// What else a gradient has in row i: pull·(w_i − w̄) + shrink·w_i; without the former where mean is
// null.
struct Affine {
  const void* mean = nullptr;  // [2, d] of W's arithmetic type, w̄ = hi + lo
  double pull = 0, shrink = 0;
};

// Pairs (i, j), i < j, of linked tasks, sorted by i, then j: those of task i begin at out_ptr[i], and
// in_edge names those that end at it from in_ptr[i] on, in their order.
struct Pairs {
  const int64_t* out_ptr;  // [K + 1]
  const int32_t* dst;      // [E]
  const int64_t* in_ptr;   // [K + 1]
  const int64_t* in_edge;  // [E]
};

// One table per instruction set; filled by cpu/table.cpp, picked by cpu/dispatch.cpp.
struct CpuKernels {
  const char* isa;

  // value = 2K Σ_i ‖w_i − w̄‖²;  mean = (hi, lo) with w̄ = hi + lo in W's arithmetic type.
  void (*pairwise_value)(DType, const void* w /*[K, d]*/, int64_t K, int64_t d,
                         double* value /*[1]*/, void* mean /*[2, d]*/, int threads);

  // The same value, and grad = 4K (w − w̄).
  void (*pairwise_value_grad)(DType, const void* w /*[K, d]*/, int64_t K, int64_t d,
                              double* value /*[1]*/, void* grad /*[K, d]*/, int threads);

  // out = scale·(w − w̄), plus nothing, w̄ or out.  out may be w.
  void (*pairwise_affine)(DType, const void* w /*[K, d]*/, const void* mean /*[2, d]*/, int64_t K,
                          int64_t d, double scale, Plus, void* out /*[K, d]*/, int threads);

  // value = factor·Σ w²;  out = scale·w, plus nothing or out.  Either is left out when it is null;
  // out may be w.
  void (*ridge)(DType, const void* w /*[n]*/, int64_t n, double factor, double* value /*[1] or null*/,
                void* out /*[n] or null*/, double scale, Plus, int threads);

  // value = ½ Σ_ij s_ij ‖w_i − w_j‖²;  grad_i = 2·scale·Σ_j s_ij (w_i − w_j), plus nothing or what is
  // there (Plus::out), plus the affine part; left out when grad is null.
  void (*graph_value)(DType, const void* w /*[K, d]*/, Graph, int64_t K, int64_t d,
                      double* value /*[1]*/, void* grad /*[K, d] or null*/, double scale, Plus,
                      Affine, int threads);

  // value = ridge Σ_i ‖w_i‖² + pairs Σ_{i≠j} ‖w_i − w_j‖² + edges·½ Σ_ij s_ij ‖w_i − w_j‖²;  grad is its
  // gradient times scale, plus nothing or what is there, left out when grad is null.
  void (*quadratic)(DType, const void* w /*[K, d]*/, Graph, int64_t K, int64_t d, double ridge,
                    double pairs, double edges, double* value /*[1]*/,
                    void* grad /*[K, d] or null*/, double scale, Plus, int threads);

  // value = ½ Σ_ij s_ij ‖w_i − w_j‖;  grad_i = scale·Σ_j s_ij (w_i − w_j)/‖w_i − w_j‖, plus nothing or
  // what is there (Plus::out), left out when grad is null.
  void (*graph_total_variation)(DType, const void* w /*[K, d]*/, Graph, int64_t K, int64_t d,
                                double* value /*[1]*/, void* grad /*[K, d] or null*/,
                                double scale, Plus, int threads);

  // out[e] = ‖w_src[e] − w_dst[e]‖² in W's arithmetic type.
  void (*edge_distance)(DType, const void* w /*[K, d]*/, const int64_t* src /*[E]*/,
                        const int64_t* dst /*[E]*/, int64_t E, int64_t d, void* out /*[E]*/,
                        int threads);

  // The same as graph_value for a dense A [K, K] of W's arithmetic type; A_ij and A_ji both count.
  void (*dense_graph_value)(DType, const void* w /*[K, d]*/, const void* a /*[K, K]*/, int64_t K,
                            int64_t d, double* value /*[1]*/, void* grad /*[K, d] or null*/,
                            double scale, int threads);

  // out[i, j] = ‖w_i − w_j‖² in W's arithmetic type.
  void (*dense_distance)(DType, const void* w /*[K, d]*/, int64_t K, int64_t d,
                         void* out /*[K, K]*/, int threads);

  // value = Σ_ij (⟨w_i, w_j⟩ − ω_ij)²;  grad = 2 (R + Rᵀ) W with R = W Wᵀ − Ω, in W's arithmetic type,
  // left out when grad is null.
  void (*gram_dense)(DType, const void* w /*[K, d]*/, const void* omega /*[K, K]*/, int64_t K,
                     int64_t d, double* value /*[1]*/, void* grad /*[K, d] or null*/, int threads);

  // The same for a sparse Ω with ω_row(e)col(e) = values[e], no entry twice;  values_grad[e] =
  // −2 (⟨w_row(e), w_col(e)⟩ − values[e]).  A gradient is left out when it is null.  E, K < 2³¹;
  // values and gradients are of W's arithmetic type.
  void (*gram_edges)(DType, const void* w /*[K, d]*/, const int64_t* row /*[E]*/,
                     const int64_t* col /*[E]*/, const void* values /*[E]*/, int64_t K, int64_t d,
                     int64_t E, double* value /*[1]*/, void* grad /*[K, d] or null*/,
                     void* values_grad /*[E] or null*/, int threads);

  // length[j] = ‖w_·j‖₂.
  void (*column_lengths)(DType, const void* w /*[K, d]*/, int64_t K, int64_t d,
                         double* length /*[d]*/, int threads);

  // out_ij = factor_j w_ij, plus nothing or out.  out may be w; factors are of W's arithmetic type.
  void (*column_scale)(DType, const void* w /*[K, d]*/, const void* factor /*[d]*/, int64_t K,
                       int64_t d, Plus, void* out /*[K, d]*/, int threads);

  // Tasks member[ptr[g] .. ptr[g+1]) are linked all to all with weight 1 in both directions:
  // value = Σ_g 2 n_g Σ_i ‖w_i − w̄_g‖²;  grad_i = 4·scale·n_g (w_i − w̄_g), left out when grad
  // is null.
  // Rows of tasks in no group are not written.
  void (*group_value)(DType, const void* w /*[K, d]*/, const int64_t* ptr /*[G + 1]*/,
                      const int64_t* member, int64_t G, int64_t d,
                      double* value /*[1]*/, void* grad /*[K, d] or null*/, double scale,
                      int threads);

  // out_i = w̄_g + (w_i − w̄_g) / (1 + 4 n_g step): the prox of group_value.  out may be w.
  // Rows of tasks in no group are not written.
  void (*group_prox)(DType, const void* w /*[K, d]*/, const int64_t* ptr /*[G + 1]*/,
                     const int64_t* member, int64_t G, int64_t d, double step,
                     void* out /*[K, d]*/, int threads);

  // X with (I + 4·step·L) X = W, in double, L the Laplacian of (A + Aᵀ)/2. The rows of the graph are
  // those of `count` connected pieces, one after the other, piece p from first[p] on, and columns are
  // numbered within a piece; weight is in double.  status = (iterations, 1 when the matrix is not
  // positive definite), residual = what bounds the error where all weights are ≥ 0: max over pieces
  // and columns of ‖w − (I + 4·step·L)x‖ / ‖w‖, or of the size of a last correction.
  void (*graph_prox)(DType, const void* w /*[K, d]*/, Graph, const int64_t* first /*[count + 1]*/,
                     int64_t count, int64_t d, double step, double tol, int64_t max_iter,
                     void* out /*[K, d]*/, int64_t* status /*[2]*/, double* residual /*[1]*/,
                     int threads);

  // former_e = the projection of v + length_e (w_i − w_j) on the ball of radius scale·radius_e, where
  // v = u_e + momentum (u_e − former_e), and out = Dᵀ former: (Dᵀ U)_i = Σ u_e that begin at i −
  // Σ u_e that end there. former may be u; a null length is 1 throughout.
  void (*edge_dual_step)(const double* u /*[E, d]*/, double* former /*[E, d]*/,
                         const double* w /*[K, d]*/, Pairs, const double* radius /*[E]*/,
                         const double* length /*[E] or null*/, int64_t K, int64_t d,
                         double momentum, double scale, double* out /*[K, d]*/, int threads);

  // out = Dᵀ u.
  void (*edge_dual_adjoint)(const double* u /*[E, d]*/, Pairs, int64_t K, int64_t d,
                            double* out /*[K, d]*/, int threads);

  // value = Σ_e radius_e ‖w_i − w_j‖.
  void (*edge_dual_value)(const double* w /*[K, d]*/, Pairs, const double* radius /*[E]*/,
                          int64_t K, int64_t d, double* value /*[1]*/, int threads);

  // For each of B matrices w_b = U diag(σ) Vᵀ, min(m, n) ≤ 64: value = Σ σ_i, and
  // grad = Σ_{σ_i > rank cut} u_i v_iᵀ, left out when grad is null. A matrix that holds NaN or Inf
  // has value NaN.
  void (*trace_norm_value)(DType, const void* w /*[B, m, n]*/, int64_t B, int64_t m, int64_t n,
                           double* value /*[B]*/, void* grad /*[B, m, n] or null*/, int threads);

  // out_b = U diag((σ − threshold_b)₊) Vᵀ, NaN throughout for a matrix that holds NaN or Inf.
  // out may be w.
  void (*trace_norm_prox)(DType, const void* w /*[B, m, n]*/, const double* threshold /*[B]*/,
                          int64_t B, int64_t m, int64_t n, void* out /*[B, m, n]*/, int threads);

  // The same by Gram matrices, for float32 and 16-bit types and min(m, n) ≤ 256.
  void (*trace_norm_gram_value)(DType, const void* w /*[B, m, n]*/, int64_t B, int64_t m, int64_t n,
                                double* value /*[B]*/, void* grad /*[B, m, n] or null*/,
                                int threads);

  // finite_b = 0 and nothing written for a matrix that holds NaN or Inf, else 1.  out may be w.
  void (*trace_norm_gram_prox)(DType, const void* w /*[B, m, n]*/, const double* threshold /*[B]*/,
                               int64_t B, int64_t m, int64_t n, void* out /*[B, m, n]*/,
                               int64_t* finite /*[B]*/, int threads);
};

// The widest table this machine can run, or the one named by `isa`; null for an unknown name or an
// instruction set that this machine lacks.
const CpuKernels* cpu_kernels(const char* isa = nullptr);

// Names of the tables in this binary that this machine can run, widest last; returns how many.
int cpu_isas(const char* names[3]);

}  // namespace mtlfast
