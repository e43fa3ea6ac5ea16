// Fixed work units in parallel: the cut into units depends on the problem alone, results are kept
// per unit and combined in unit order, so the bits do not depend on the number of threads.
#pragma once

#include <stdlib.h>  // posix_memalign

#include <cstdint>
#include <new>

#include "common/scalar.h"
#include "interrupt.h"
#include "memory.h"

namespace mtlfast {
namespace MTLFAST_ISA {

// Below this many element operations a parallel region costs more than it brings.
constexpr int64_t kSerialWork = 1 << 15;

// A unit of a parallel region; none begins once an error was met.
template <class Body>
inline void run_unit(Stop& stop, const Body& body, int64_t unit) {
  if (stop.is_met()) return;
  try {
    check_interrupt();
    body(unit);
  } catch (...) {
    stop.keep();
  }
}

// All units in one thread. Small work ends before anybody could ask for it, and may be one of many
// that are inside a unit.
template <class Body>
inline void run_all(int64_t units, int64_t work, const Body& body) {
  const bool is_long = work >= kSerialWork;
  for (int64_t u = 0; u < units; ++u) {
    if (is_long) check_interrupt();
    body(u);
  }
}

// Calls body(unit) once for each unit in [0, units). Units are handed out dynamically. What a body
// throws, std::bad_alloc or an interrupt, is thrown again when all threads have come to the end;
// units that have not begun by then are left out.
template <class Body>
inline void parallel_for(int64_t units, int64_t work, int threads, const Body& body) {
  if (threads > units) threads = int(units);
  if (threads <= 1 || work < kSerialWork) return run_all(units, work, body);
  Stop stop;
#pragma omp parallel num_threads(threads)
  {
    const Stop::Within within(stop);
#pragma omp for schedule(dynamic) nowait
    for (int64_t u = 0; u < units; ++u) run_unit(stop, body, u);
  }
  stop.raise();
}

// The same for units of equal cost that walk through memory: each thread takes one run of neighbours,
// at every call the same, so that its part of the data is still in its cache at the next.
template <class Body>
inline void parallel_for_even(int64_t units, int64_t work, int threads, const Body& body) {
  if (threads > units) threads = int(units);
  if (threads <= 1 || work < kSerialWork) return run_all(units, work, body);
  Stop stop;
#pragma omp parallel num_threads(threads)
  {
    const Stop::Within within(stop);
#pragma omp for schedule(static) nowait
    for (int64_t u = 0; u < units; ++u) run_unit(stop, body, u);
  }
  stop.raise();
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
