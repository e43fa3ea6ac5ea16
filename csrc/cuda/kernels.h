// The signature of every CUDA kernel, with the shape of every array.
//
// All addresses are on the device, also those of scalars. Nothing is allocated and nothing waits:
// kernels are queued on the stream, work space comes from the caller. Real is double for float64,
// else float. A launch that fails throws std::runtime_error. The bits of every result depend on its
// arguments alone.
#pragma once

#include <cstdint>

#include "types.h"

namespace mtlfast {
namespace cuda {

struct Stream {
  int device;
  void* handle;  // cudaStream_t
};

// A factor that is known only on the device: factor · *upstream, or factor where upstream is null.
struct Scale {
  double factor;
  const void* upstream = nullptr;  // Real [1]
};

// value = scale · 2K Σ_i ‖w_i − w̄‖²;  mean = (hi, lo) with w̄ = hi + lo, not written where K = 0.
int64_t pairwise_workspace(DType, int64_t K, int64_t d);  // bytes
void pairwise_value(DType, const void* w /*[K, d]*/, int64_t K, int64_t d, double scale,
                    void* value /*Real [1]*/, void* mean /*Real [2, d]*/, void* workspace, Stream);

// out = scale·(w − w̄), plus nothing, w̄ or out.  out may be w.
void pairwise_affine(DType, const void* w /*[K, d]*/, const void* mean /*Real [2, d]*/, int64_t K,
                     int64_t d, Scale, Plus, void* out /*[K, d]*/, Stream);

// value = value_scale · ½ Σ_ij s_ij ‖w_i − w_j‖²;  grad_i = 2·scale·Σ_j s_ij (w_i − w_j), plus
// nothing or what is there (Plus::out), left out when grad is null.  E = row_ptr[K].
int64_t graph_workspace(DType, int64_t K, int64_t d, int64_t E);  // bytes
void graph_value(DType, const void* w /*[K, d]*/, Graph, int64_t K, int64_t d, int64_t E,
                 double value_scale, void* value /*Real [1]*/, void* grad /*[K, d] or null*/, Scale,
                 Plus, void* workspace, Stream);

// out[e] = ‖w_src[e] − w_dst[e]‖².
void edge_distance(DType, const void* w /*[K, d]*/, const int64_t* src /*[E]*/,
                   const int64_t* dst /*[E]*/, int64_t E, int64_t d, void* out /*Real [E]*/, Stream);

// The same as graph_value for a dense A of type Real; A_ij and A_ji both count.
int64_t dense_graph_workspace(int64_t K, int64_t d);  // bytes
void dense_graph_value(DType, const void* w /*[K, d]*/, const void* a /*Real [K, K]*/, int64_t K,
                       int64_t d, double value_scale, void* value /*Real [1]*/,
                       void* grad /*[K, d] or null*/, Scale, Plus, void* workspace, Stream);

// out[i, j] = ‖w_i − w_j‖².
void dense_distance(DType, const void* w /*[K, d]*/, int64_t K, int64_t d,
                    void* out /*Real [K, K]*/, Stream);

// out[e] = ⟨w_row, w_col⟩.
void edge_product(DType, const void* w /*[K, d]*/, const int64_t* row /*[E]*/,
                  const int64_t* col /*[E]*/, int64_t E, int64_t d, double* out /*[E]*/, Stream);

// out_i += factor · Σ_{e: task_e = i} weight_e w_other(e);  task rises.
int64_t edge_sum_workspace(int64_t M, int64_t d);  // bytes
void edge_sum(DType, const void* w /*[K, d]*/, const int64_t* task /*[M]*/,
              const int64_t* other /*[M]*/, const void* weight /*Real [M]*/, int64_t M, int64_t d,
              double factor, double* out /*[K, d]*/, void* workspace, Stream);

// Groups of tasks, each at most once: value = value_scale · Σ_g 2 n_g Σ_i ‖w_i − w̄_g‖²;
// grad_i = 4·scale·n_g (w_i − w̄_g), left out when grad is null.  M = ptr[G], ptr[0] = 0. Rows of
// tasks in no group, or alone in theirs, are not written.
int64_t group_workspace(DType, int64_t G, int64_t M, int64_t d);  // bytes
void group_value(DType, const void* w /*[K, d]*/, const int64_t* ptr /*[G + 1]*/,
                 const int64_t* member /*[M]*/, int64_t G, int64_t M, int64_t d, double value_scale,
                 void* value /*Real [1]*/, void* grad /*[K, d] or null*/, Scale, void* workspace,
                 Stream);

// out_i = w̄_g + (w_i − w̄_g) / (1 + 4 n_g step), the same rows, with the same workspace.  out may
// be w.
void group_prox(DType, const void* w /*[K, d]*/, const int64_t* ptr /*[G + 1]*/,
                const int64_t* member /*[M]*/, int64_t G, int64_t M, int64_t d, double step,
                void* out /*[K, d]*/, void* workspace, Stream);

// Matrices that a block takes; 0 where one does not fit into shared memory, and must go elsewhere.
int64_t trace_norm_matrices(int64_t m, int64_t n);

// value[b] = Σ σ_i;  grad[b] = Σ u_i v_iᵀ over σ_i > σ_1·max(m, n)·eps, left out when it is null.
// A matrix that is not finite gives NaN.
void trace_norm_value(DType, const void* w /*[B, m, n]*/, int64_t B, int64_t m, int64_t n,
                      void* value /*Real [B]*/, void* grad /*[B, m, n] or null*/, Stream);

// out[b] = Σ (σ_i − threshold[b])₊ u_i v_iᵀ; NaN also for a threshold that is not finite and ≥ 0.
// out may be w.
void trace_norm_prox(DType, const void* w /*[B, m, n]*/, const double* threshold /*[B]*/, int64_t B,
                     int64_t m, int64_t n, void* out /*[B, m, n]*/, Stream);

// X with (I + 4·step·L) X = W, L the Laplacian of (A + Aᵀ)/2, for the connected pieces of at most 64
// tasks, by elimination; the graph as types.h has it, by pieces, weight in double.
// indefinite[p] = 1 where the matrix of piece p is not positive definite, else 0. Rows of larger
// pieces are not written.
void graph_prox_small(DType, const void* w /*[K, d]*/, Graph, const int64_t* first /*[count + 1]*/,
                      int64_t count, int64_t d, double step, void* out /*[K, d]*/,
                      int32_t* indefinite /*[count]*/, Stream);

// The systems of d columns for one piece of K tasks, row i that of task order[i], or of task i; weight
// in double, E = row_ptr[K]; K, d, E > 0.
struct ProxSystem {
  Graph graph;
  int64_t K, d, E;
  double step;
  void* state;  // double [6]: residual, iterations, done, indefinite, small, size
};

// X by conjugate gradients: columns [column, column + d) are loaded, with the state (0, 0, 0, 1 where
// the diagonal is not positive, 0, 0); `residual` forms the true one, max over columns of
// ‖w − (I + 4·step·L)x‖ / ‖w‖, and starts from it; `iterate` does `count` steps on X, or on an error
// of it that was 0 after `residual`, or nothing once it is done: at tol (small), at max_iter, where
// something overflows or a direction of negative curvature is met; `correct` adds the error to X,
// size = max over columns of its ‖e‖ / ‖w‖; `store` writes X, NaN in columns that held NaN or Inf.
int64_t graph_prox_workspace(int64_t K, int64_t d, int64_t E);  // bytes
void graph_prox_load(DType, const void* w /*[tasks, stride]*/, int64_t stride, int64_t column,
                     ProxSystem, void* workspace, Stream);
void graph_prox_residual(DType, const void* w /*[tasks, stride]*/, int64_t stride, int64_t column,
                         ProxSystem, void* workspace, Stream);
void graph_prox_iterate(ProxSystem, bool error, double tol, int64_t max_iter, int64_t count,
                        void* workspace, Stream);
void graph_prox_correct(ProxSystem, void* workspace, Stream);
void graph_prox_store(DType, void* out /*[tasks, stride]*/, int64_t stride, int64_t column,
                      ProxSystem, void* workspace, Stream);

}  // namespace cuda
}  // namespace mtlfast
