// Stores that go past the caches: for results too large to be found there when they are read next.
// They save the read of a line that is about to be overwritten whole, a third of the traffic of a
// read-and-write pass, and leave the caches to the input.
#pragma once

#ifdef MTLFAST_X86_64
#include <immintrin.h>
#endif

#include "common/lanes.h"

namespace mtlfast {
namespace MTLFAST_ISA {

constexpr int64_t kStreamBytes = int64_t(3) << 23;  // with the input, more than the last cache

#if defined(__AVX512F__)
using Chunk = __m512i;
MTLFAST_INLINE void stream_chunk(Chunk* p, Chunk x) { _mm512_stream_si512(p, x); }
#elif defined(__AVX2__)
using Chunk = __m256i;
MTLFAST_INLINE void stream_chunk(Chunk* p, Chunk x) { _mm256_stream_si256(p, x); }
#elif defined(MTLFAST_X86_64)
using Chunk = __m128i;
MTLFAST_INLINE void stream_chunk(Chunk* p, Chunk x) { _mm_stream_si128(p, x); }
#endif

// Whether results of `bytes` bytes at p, in vectors of `vector` bytes, should and can be streamed.
MTLFAST_INLINE bool streams(const void* p, int64_t bytes, size_t vector) {
  return bytes >= kStreamBytes && reinterpret_cast<uintptr_t>(p) % vector == 0;
}

// p is a multiple of sizeof(V). An ordinary store where the machine has no such instruction.
template <class V, class T>
MTLFAST_INLINE void stream_raw(T* p, V v) {
#ifdef MTLFAST_X86_64
  if constexpr (sizeof(Chunk) > sizeof(V)) {
    _mm256_stream_si256(reinterpret_cast<__m256i*>(p), (__m256i)v);
  } else {
    for (size_t k = 0; k < sizeof(V); k += sizeof(Chunk)) {
      Chunk chunk;
      std::memcpy(&chunk, reinterpret_cast<const char*>(&v) + k, sizeof chunk);
      stream_chunk(reinterpret_cast<Chunk*>(reinterpret_cast<char*>(p) + k), chunk);
    }
  }
#else
  store_raw(p, v);
#endif
}

// Lane<T>::store, past the caches.
template <class T>
MTLFAST_INLINE void stream(T* p, typename Lane<T>::Vec v) {
  if constexpr (sizeof(T) == 2) {
    stream_raw(p, narrow(v, T{}));
  } else {
    stream_raw(p, v);
  }
}

// After the last streamed store of a thread, before another may read the result.
MTLFAST_INLINE void stream_fence() {
#ifdef MTLFAST_X86_64
  _mm_sfence();
#endif
}

}  // namespace MTLFAST_ISA
}  // namespace mtlfast
