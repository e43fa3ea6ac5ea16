// Entries e = 0 … E − 1 grouped by a key, those of one key in their order: a counting sort.
//
// The entries are cut into fixed chunks, each with a counter for every key, so that threads count
// and place without meeting.
#pragma once

#include "common/parallel.h"

namespace mtlfast {
namespace MTLFAST_ISA {

constexpr int64_t kChunks = 8;              // at most
constexpr int64_t kChunkEntries = 1 << 14;  // at least, but for the only one

inline int64_t chunks_of(int64_t E) {
  const int64_t most = ceil_div(E, kChunkEntries);
  return most < kChunks ? most : kChunks;
}

// Calls body(chunk, begin, end) for each chunk of entries.
template <class Body>
inline void for_chunks(int64_t E, int threads, const Body& body) {
  const int64_t chunks = chunks_of(E);
  parallel_for_even(chunks, E, threads,
                    [&](int64_t c) { body(c, E * c / chunks, E * (c + 1) / chunks); });
}

// begin [keys + 1] receives where the entries of each key start; put(position, e) is called once
// for each entry, in parallel. E < 2³¹.
template <class Put>
inline void group_by(const int64_t* key, int64_t keys, int64_t E, int threads, int64_t* begin,
                     const Put& put) {
  const int64_t chunks = chunks_of(E);
  const Scratch<int32_t> next(chunks * keys);
  for_chunks(E, threads, [&](int64_t c, int64_t first, int64_t last) {
    int32_t* count = next.get() + c * keys;
    for (int64_t i = 0; i < keys; ++i) count[i] = 0;
    for (int64_t e = first; e < last; ++e) ++count[key[e]];
  });
  int32_t position = 0;
  for (int64_t i = 0; i < keys; ++i) {
    begin[i] = position;
    for (int64_t c = 0; c < chunks; ++c) {
      const int32_t count = next[c * keys + i];
      next[c * keys + i] = position;
      position += count;
    }
  }
  begin[keys] = position;
  for_chunks(E, threads, [&](int64_t c, int64_t first, int64_t last) {
    int32_t* at = next.get() + c * keys;
    for (int64_t e = first; e < last; ++e) put(at[key[e]]++, e);
  });
}

}  // namespace MTLFAST_ISA
}  // namespace mtlfast
