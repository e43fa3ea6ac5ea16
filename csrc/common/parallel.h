// Fixed work units in parallel: the cut into units depends on the problem alone, results are kept
// per unit and combined in unit order, so the bits do not depend on the number of threads.
#pragma once

#include <stdlib.h>  // posix_memalign

#include <cstdint>
#include <new>

#include "common/scalar.h"
#include "memory.h"

namespace mtlfast {
namespace MTLFAST_ISA {

// Below this many element operations a parallel region costs more than it brings.
constexpr int64_t kSerialWork = 1 << 15;

// Whether a unit of a region has met std::bad_alloc, which must not leave the region: it is thrown again
// when all threads have come to the end. Units that have not begun by then are left out.
class Shortage {
 public:
  template <class Body>
  void run(const Body& body, int64_t unit) {
    if (__atomic_load_n(&met_, __ATOMIC_RELAXED)) return;
    try {
      body(unit);
    } catch (const std::bad_alloc&) {
      __atomic_store_n(&met_, true, __ATOMIC_RELAXED);
    }
  }
  void raise() const {
    if (met_) throw std::bad_alloc();
  }

 private:
  bool met_ = false;
};

// Calls body(unit) once for each unit in [0, units). Units are handed out dynamically. A body throws
// nothing but std::bad_alloc, which is thrown again here.
template <class Body>
inline void parallel_for(int64_t units, int64_t work, int threads, const Body& body) {
  if (threads > units) threads = int(units);
  if (threads <= 1 || work < kSerialWork) {
    for (int64_t u = 0; u < units; ++u) body(u);
    return;
  }
  Shortage shortage;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
  for (int64_t u = 0; u < units; ++u) shortage.run(body, u);
  shortage.raise();
}

// The same for units of equal cost that walk through memory: each thread takes one run of neighbours,
// at every call the same, so that its part of the data is still in its cache at the next.
template <class Body>
inline void parallel_for_even(int64_t units, int64_t work, int threads, const Body& body) {
  if (threads > units) threads = int(units);
  if (threads <= 1 || work < kSerialWork) {
    for (int64_t u = 0; u < units; ++u) body(u);
    return;
  }
  Shortage shortage;
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t u = 0; u < units; ++u) shortage.run(body, u);
  shortage.raise();
}

constexpr size_t kLargeScratch = size_t(1) << 23;  // bytes

// Uninitialised scratch memory, aligned for vectors; large ones are used again (memory.h). Throws
// std::bad_alloc.
template <class T>
class Scratch {
 public:
  explicit Scratch(int64_t n) {
    const size_t bytes = size_t(n > 0 ? n : 1) * sizeof(T);
    void* memory = nullptr;
    if (bytes >= kLargeScratch) {
      large_ = new Memory(int64_t(bytes));
      memory = large_->data();
    } else if (posix_memalign(&memory, 64, bytes) != 0) {
      // not aligned_alloc, which wants whole multiples of 64: AddressSanitizer would miss the slack
      throw std::bad_alloc();
    }
    data_ = static_cast<T*>(memory);
  }
  ~Scratch() {
    if (large_ != nullptr) {
      delete large_;
    } else {
      free(data_);
    }
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  T* get() const { return data_; }
  T& operator[](int64_t i) const { return data_[i]; }

 private:
  Memory* large_ = nullptr;
  T* data_;
};

}  // namespace MTLFAST_ISA
}  // namespace mtlfast
