// How a kernel is stopped half-way, as by Ctrl-C: its loops ask now and then.
//
// A kernel calls check_interrupt() between parts of its work that take some milliseconds at most, in
// whichever of its threads; the parallel loops (common/parallel.h) do it before each unit. What is
// written to by then must be nobody's but the kernel's, and memory must be owned by objects.
// Knows nothing of Python: module.cpp says who may be interrupted, python_signals.cpp by what.
#pragma once

#include <cstdint>
#include <exception>

namespace mtlfast {

// Throws where the work is to end, else returns: in the thread that called an interruptible kernel it
// asks the hook every 50 ms, in others of a parallel region whether an error was met. Costs a look
// at the clock.
void check_interrupt();

// What is asked: it throws to interrupt, and is called with no lock held, perhaps within a parallel
// region. Null asks nobody, as it is at first.
void set_interrupt_hook(void (*hook)());

class Stop;

// What check_interrupt does in this thread.
struct InterruptState {
  bool is_heard = false;
  int64_t due = 0;               // when the hook is asked next, in ns; 0 before the first check
  const Stop* region = nullptr;  // the innermost parallel region
};

// While it lives, kernels that this thread calls are interrupted, or not: not those that write over
// what their caller has. One inside another counts alone.
class Interruptible {
 public:
  explicit Interruptible(bool is_heard);
  ~Interruptible();
  Interruptible(const Interruptible&) = delete;
  Interruptible& operator=(const Interruptible&) = delete;

 private:
  const InterruptState outer_;
};

// The first error of a parallel region, which must not leave it: it is thrown again when all threads
// have come to the end. No inline code but a load: instruction sets share these functions.
class Stop {
 public:
  Stop();
  ~Stop();
  Stop(const Stop&) = delete;
  Stop& operator=(const Stop&) = delete;

  __attribute__((always_inline)) bool is_met() const {
    return __atomic_load_n(&met_, __ATOMIC_RELAXED);
  }
  void keep();   // the exception that is being handled, if it is the first
  void raise();  // by the thread that began the region, at its end

  // Each thread of the region holds one.
  class Within {
   public:
    explicit Within(const Stop& stop);
    ~Within();
    Within(const Within&) = delete;
    Within& operator=(const Within&) = delete;

   private:
    const Stop* const outer_;
  };

 private:
  friend void check_interrupt();
  const Stop* const outer_;  // the region in which this one began
  bool met_ = false;
  std::exception_ptr error_;
};

}  // namespace mtlfast
