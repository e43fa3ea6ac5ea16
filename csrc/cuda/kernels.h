// The signature of every CUDA kernel, with the shape of every array.
//
// All addresses are on the device, also those of scalars. Nothing is allocated and nothing waits:
// kernels are queued on the stream, work space comes from the caller. Real is double for float64,
// else float. A launch that fails throws std::runtime_error. The bits of every result depend on its
// arguments alone.
#pragma once

#include <cstdint>

#include "mtlfast.h"

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
                 double value_scale, void* value /*Real [1]*/, void* grad /*[K, d] or null*/,
                 Scale, Plus, void* workspace, Stream);

// out[e] = ‖w_src[e] − w_dst[e]‖².
void edge_distance(DType, const void* w /*[K, d]*/, const int64_t* src /*[E]*/,
                   const int64_t* dst /*[E]*/, int64_t E, int64_t d, void* out /*Real [E]*/,
                   Stream);

// The same as graph_value for a dense A of type Real; A_ij and A_ji both count.
int64_t dense_graph_workspace(int64_t K, int64_t d);  // bytes
void dense_graph_value(DType, const void* w /*[K, d]*/, const void* a /*Real [K, K]*/, int64_t K,
                       int64_t d, double value_scale, void* value /*Real [1]*/,
                       void* grad /*[K, d] or null*/, Scale, Plus, void* workspace, Stream);

// out[i, j] = ‖w_i − w_j‖².
void dense_distance(DType, const void* w /*[K, d]*/, int64_t K, int64_t d,
                    void* out /*Real [K, K]*/, Stream);

}  // namespace cuda
}  // namespace mtlfast
