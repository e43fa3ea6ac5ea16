// Plan     what a thread does is in a variable of its own, so the check takes no lock; the threads of a
//          region share a flag. The hook is asked by one thread alone, the kernel's caller.
#include "interrupt.h"

#include <atomic>
#include <chrono>
#include <utility>

namespace mtlfast {
namespace {

constexpr int64_t kInterval = 50'000'000;  // ns: a quarter of the 0.2 s in which a user is heard

struct Stopped {
};  // leaves the unit of another thread; that error is the one which is thrown again

std::atomic<void (*)()> hook{nullptr};
thread_local InterruptState state;

int64_t now() {
  const auto since = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(since).count();
}

}  // namespace

void set_interrupt_hook(void (*asked)()) { hook = asked; }

void check_interrupt() {
  InterruptState& own = state;
  for (const Stop* region = own.region; region != nullptr; region = region->outer_) {
    if (region->is_met()) throw Stopped{};
  }
  if (!own.is_heard) return;
  const int64_t time = now();
  if (own.due == 0) own.due = time + kInterval;
  if (time < own.due) return;
  if (void (*ask)() = hook) ask();
  own.due = now() + kInterval;
}

Interruptible::Interruptible(bool is_heard) : outer_(state) { state = {is_heard, 0, nullptr}; }
Interruptible::~Interruptible() { state = outer_; }

Stop::Stop() : outer_(state.region) {}
Stop::~Stop() = default;

void Stop::keep() {
  if (!__atomic_exchange_n(&met_, true, __ATOMIC_RELAXED)) error_ = std::current_exception();
}

void Stop::raise() {
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

Stop::Within::Within(const Stop& stop) : outer_(state.region) { state.region = &stop; }
Stop::Within::~Within() { state.region = outer_; }

}  // namespace mtlfast
