// What memory allows: the least traffic of each job, and nothing else. Not part of the package.
#include <cstdint>
#include <cstring>

typedef float Vec __attribute__((vector_size(64)));

static Vec load(const float* p) { Vec v; std::memcpy(&v, p, 64); return v; }
static void store(float* p, Vec v) { std::memcpy(p, &v, 64); }

static float total(Vec v) { float s = 0; for (int l = 0; l < 16; ++l) s += v[l]; return s; }

extern "C" {

// Sum of n floats, n a multiple of 128.
float floor_read(const float* w, int64_t n, int threads) {
  float sum = 0;
#pragma omp parallel for schedule(static) num_threads(threads) reduction(+ : sum)
  for (int t = 0; t < threads; ++t) {
    const int64_t begin = n / 64 * t / threads * 64, end = n / 64 * (t + 1) / threads * 64;
    Vec s[4] = {};
    for (int64_t i = begin; i < end; i += 64) {
      for (int k = 0; k < 4; ++k) s[k] += load(w + i + 16 * k);
    }
    sum += total(s[0] + s[1] + s[2] + s[3]);
  }
  return sum;
}

// out = 2 w, or out += w, or, past the caches, out = 2 w.
void floor_write(const float* w, float* out, int64_t n, int mode, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int t = 0; t < threads; ++t) {
    const int64_t begin = n / 16 * t / threads * 16, end = n / 16 * (t + 1) / threads * 16;
    for (int64_t i = begin; i < end; i += 16) {
      if (mode == 1) {
        store(out + i, load(out + i) + load(w + i));
#ifdef __SSE2__
      } else if (mode == 2) {
        const Vec x = 2 * load(w + i);
        typedef long long Word __attribute__((vector_size(16)));
        for (int k = 0; k < 4; ++k) {
          Word word;
          std::memcpy(&word, reinterpret_cast<const char*>(&x) + 16 * k, 16);
          __builtin_ia32_movntdq(reinterpret_cast<Word*>(out + i + 4 * k), word);
        }
#endif
      } else {
        store(out + i, 2 * load(w + i));
      }
    }
#ifdef __SSE2__
    if (mode == 2) __builtin_ia32_sfence();
#endif
  }
}

// Reads row col[k] of w [*, d] for all k < edges, each once; d a multiple of 16.
float floor_gather(const float* w, const int32_t* col, int64_t edges, int64_t d, int threads) {
  float sum = 0;
  const int64_t unit = 4096, units = (edges + unit - 1) / unit;
#pragma omp parallel for schedule(dynamic) num_threads(threads) reduction(+ : sum)
  for (int64_t u = 0; u < units; ++u) {
    const int64_t end = (u + 1) * unit < edges ? (u + 1) * unit : edges;
    Vec s[4] = {};
    for (int64_t k = u * unit; k < end; ++k) {
      const float* ahead = w + int64_t(col[k + 12 < edges ? k + 12 : k]) * d;
      const float* row = w + int64_t(col[k]) * d;
      for (int64_t j = 0; j < d; j += 16) {
        __builtin_prefetch(ahead + j);
        s[j / 16 % 4] += load(row + j);
      }
    }
    sum += total(s[0] + s[1] + s[2] + s[3]);
  }
  return sum;
}
}
