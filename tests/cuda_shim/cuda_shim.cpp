// Blocks of fibers: the scheduler, the meeting points, and the shared memory of cuda_shim.h.
#include "cuda_shim.h"

#include <algorithm>
#include <random>
#include <stdexcept>
#include <vector>

#include "context.h"

namespace cuda_shim {
namespace {

constexpr int64_t kSharedBytes = 99 << 10;  // what a block of compute capability 8.6 can have
constexpr int kMostThreads = 1024;
constexpr int64_t kGuard = 64;  // bytes behind each array
constexpr int kNan = 0xff;      // in every byte: NaN in all four types
constexpr int kGuardByte = 0xa5;
const char* const kNames[] = {"__syncthreads", "__syncthreads_or", "__syncwarp",
                              "__any_sync",    "__ballot_sync",    "a shuffle"};

struct Fiber {
  enum { kReady, kWaiting, kDone } state;
  Context context;
  Place place;
  Meet kind;
  unsigned mask, source;
  uint64_t value;
  int met_warp, met_block;  // how often
};

struct Array {
  const void* site;
  unsigned char* data;
  int64_t bytes;
};

std::mt19937_64 random_order;
bool shuffled = false;
int64_t the_only_block = -1;
std::vector<Fiber> fibers;
std::vector<int> ready;
std::vector<Context> retired;  // ThreadSanitizer takes a fiber for the one whose number it gets
size_t at_barrier = 0;
int laggard = -1;  // runs only where no other thread can
Array arrays[64];  // of the block; nothing that fibers write is allocated by them
int array_count = 0;
int64_t blocks_run = 0;
unsigned char* arena = nullptr;
int64_t arena_used = 0;
unsigned char* stacks = nullptr;
const std::function<void()>* body = nullptr;
std::string error;
Context scheduler;
Fiber* running = nullptr;

bool is_barrier(Meet kind) { return kind == Meet::barrier || kind == Meet::barrier_or; }

// An address of its own for each meeting of a warp or a block. Two take turns, since who is still
// on the way out of one must not see what others did before the next.
void* point_of(Fiber& fiber) {
  static char points[1 << 14][33][2];
  const bool all = is_barrier(fiber.kind);
  const int turn = all ? fiber.met_block++ : fiber.met_warp++;
  return &points[blocks_run % (1 << 14)][all ? 32 : fiber.place.thread.x / 32][turn % 2];
}

void run_fiber() {
  arrive_first(scheduler);
  (*body)();
  running->state = Fiber::kDone;
  leave_behind(&scheduler);
  switch_to(running->context, scheduler);
}

std::string name_of(const Fiber& fiber) {
  return "thread " + std::to_string(fiber.place.thread.x) + " of block " +
         std::to_string(fiber.place.block.x);
}

void fail(const std::string& what) {
  if (error.empty()) error = what;
}

// Calls visit with each fiber that must meet `fiber`, in thread order, until one answers false.
template <class Visit>
bool all_of_party(const Fiber& fiber, const Visit& visit) {
  const size_t first = is_barrier(fiber.kind) ? 0 : fiber.place.thread.x / 32 * 32;
  const size_t end = std::min(fibers.size(), is_barrier(fiber.kind) ? fibers.size() : first + 32);
  for (size_t k = first; k < end; ++k) {
    const bool takes_part = is_barrier(fiber.kind) || (fiber.mask >> (k - first) & 1);
    if (takes_part && !visit(fibers[k])) return false;
  }
  return true;
}

bool meets(const Fiber& fiber, const Fiber& other) {
  return other.state == Fiber::kWaiting && other.kind == fiber.kind && other.mask == fiber.mask;
}

// What each of the party gets, once all are there.
void exchange(const std::vector<Fiber*>& party) {
  const Meet kind = party[0]->kind;
  uint64_t together = 0;
  for (Fiber* f : party) {
    together |= kind == Meet::ballot ? f->value << f->place.thread.x % 32 : f->value;
  }
  std::vector<uint64_t> given;
  for (Fiber* f : party) {
    if (kind != Meet::shuffle) {
      given.push_back(together);
      continue;
    }
    const auto is_source = [&](Fiber* g) { return g->place.thread.x % 32 == f->source; };
    const auto from = std::find_if(party.begin(), party.end(), is_source);
    if (from == party.end()) {
      return fail(name_of(*f) + " reads lane " + std::to_string(f->source) +
                  ", which takes no part in the shuffle");
    }
    given.push_back((*from)->value);
  }
  for (size_t k = 0; k < party.size(); ++k) {
    party[k]->value = given[k];
    party[k]->state = Fiber::kReady;
    ready.push_back(int(party[k]->place.thread.x));
  }
}

void try_to_pass(const Fiber& fiber) {
  at_barrier += is_barrier(fiber.kind);
  if (is_barrier(fiber.kind) && at_barrier < fibers.size()) return;
  if (!all_of_party(fiber, [&](const Fiber& other) { return meets(fiber, other); })) return;
  if (is_barrier(fiber.kind)) at_barrier = 0;
  std::vector<Fiber*> party;
  all_of_party(fiber, [&](Fiber& other) { return party.push_back(&other), true; });
  exchange(party);
}

std::string whereabouts(const Fiber& fiber) {
  if (fiber.state == Fiber::kDone) return name_of(fiber) + " has returned";
  return name_of(fiber) + " waits at " + kNames[int(fiber.kind)];
}

void require_finished() {
  for (const Fiber& fiber : fibers) {
    if (fiber.state != Fiber::kWaiting) continue;
    all_of_party(fiber, [&](const Fiber& other) {
      if (!meets(fiber, other)) fail(whereabouts(fiber) + ", but " + whereabouts(other));
      return error.empty();
    });
  }
}

void start_block(int threads, unsigned block, unsigned blocks) {
  ++blocks_run;
  map_fresh(stacks, kMostThreads * kStackBytes, threads * kStackBytes);
  map_fresh(arena, 2 * kSharedBytes, 2 * kSharedBytes);
  forbid(arena, 2 * kSharedBytes, false);
  std::fill(arena, arena + 2 * kSharedBytes, (unsigned char)kNan);
  array_count = 0;
  arena_used = 0;
  fibers.assign(size_t(threads), Fiber{});
  ready.clear();
  at_barrier = 0;
  for (int k = 0; k < threads; ++k) {
    fibers[size_t(k)].place = {
        {unsigned(k), 0, 0}, {block, 0, 0}, dim3(unsigned(threads)), dim3(blocks)};
    fibers[size_t(k)].context = new_context(stacks + k * kStackBytes, run_fiber);
    ready.push_back(k);
  }
  // often the first thread, which is the one that writes a block's result
  laggard = random_order() % 2 ? 0 : int(random_order() % uint64_t(threads));
}

// The next to run: drawn at random, or the one that has waited longest.
int take_ready() {
  size_t at = shuffled ? random_order() % ready.size() : 0;
  if (shuffled && ready[at] == laggard) at = (at + 1) % ready.size();
  const int k = ready[at];
  if (shuffled) {
    ready[at] = ready.back();
    ready.pop_back();
  } else {
    ready.erase(ready.begin());
  }
  return k;
}

void check_guards() {
  for (const Array* array = arrays; array < arrays + array_count; ++array) {
    const unsigned char* const guard = array->data + array->bytes;
    forbid(guard, kGuard, false);
    for (int64_t k = 0; k < kGuard; ++k) {
      if (guard[k] != kGuardByte) fail("shared memory is written past the end of an array");
    }
  }
}

void destroy_retired() {
  for (const Context& context : retired) destroy(context);
  retired.clear();
}

void run_block() {
  while (!ready.empty() && error.empty()) {
    running = &fibers[size_t(take_ready())];
    switch_to(scheduler, running->context);
    if (running->state == Fiber::kWaiting) try_to_pass(*running);
  }
  if (error.empty()) require_finished();
  if (error.empty()) check_guards();
  for (const Fiber& fiber : fibers) retired.push_back(fiber.context);
  if (retired.size() > 4096) destroy_retired();
}

unsigned char* new_array(const void* site, int64_t bytes) {
  const int64_t begin = (arena_used + 15) / 16 * 16;
  if (begin + bytes > kSharedBytes || array_count == 64) {
    fail("more shared memory, or more arrays, than a block can have");
    switch_to(running->context, scheduler);
  }
  arena_used = begin + bytes + kGuard;
  std::fill(arena + begin + bytes, arena + arena_used, (unsigned char)kGuardByte);
  forbid(arena + begin + bytes, kGuard, true);
  arrays[array_count++] = {site, arena + begin, bytes};
  return arena + begin;
}

}  // namespace

void seed(uint64_t value) {
  shuffled = value != 0;
  random_order.seed(value);
}

void only_block(int64_t block) { the_only_block = block; }

const Place& place() { return running->place; }

uint64_t meet(Meet kind, unsigned mask, uint64_t value, unsigned source) {
  Fiber& self = *running;
  self.kind = kind;
  self.mask = mask;
  self.value = value;
  self.source = source;
  self.state = Fiber::kWaiting;
  if (!is_barrier(kind) && !(mask >> self.place.thread.x % 32 & 1)) {
    fail(name_of(self) + " is not in the mask of its own " + kNames[int(kind)]);
  }
  void* const point = point_of(self);
  leave_behind(point);
  switch_to(self.context, scheduler);
  come_to(point);
  return self.value;
}

void* shared_array(const void* site, int64_t bytes) {
  const auto is_it = [&](const Array& array) { return array.site == site; };
  const Array* const known = std::find_if(arrays, arrays + array_count, is_it);
  return known < arrays + array_count ? known->data : new_array(site, bytes);
}

void* dynamic_shared() { return arrays[0].data; }

void launch(const char* kernel, int64_t blocks, int threads, int64_t shared,
            const std::function<void()>& of_thread) {
  if (threads < 1 || threads > kMostThreads || shared > kSharedBytes) {
    throw std::runtime_error(std::string(kernel) + ": no block of that size");
  }
  name_current(scheduler);
  body = &of_thread;
  error.clear();
  std::vector<unsigned> order;
  const bool all = the_only_block < 0;
  for (int64_t b = all ? 0 : the_only_block; b < (all ? blocks : the_only_block + 1); ++b) {
    order.push_back(unsigned(b));
  }
  if (shuffled) std::shuffle(order.begin(), order.end(), random_order);
  for (const unsigned block : order) {
    start_block(threads, block, unsigned(blocks));
    new_array(nullptr, shared);  // the first is the dynamic one
    run_block();
    if (!error.empty()) throw std::runtime_error(std::string(kernel) + ": " + error);
  }
  come_to(&scheduler);
  destroy_retired();
}

}  // namespace cuda_shim
