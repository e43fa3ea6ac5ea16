// Stacks that take turns, and what the sanitizers must be told of them.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <new>

#ifndef __x86_64__
#error "cuda_shim switches stacks with x86-64 instructions"
#endif

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#endif
#ifdef CUDA_SHIM_TSAN  // the file that includes this is compiled without it
extern "C" {
void* __tsan_create_fiber(unsigned);
void* __tsan_get_current_fiber();
void __tsan_destroy_fiber(void*);
void __tsan_switch_to_fiber(void*, unsigned);
void __tsan_acquire(void*);
void __tsan_release(void*);
}
#endif

namespace cuda_shim {
namespace {

#ifdef __SANITIZE_ADDRESS__
constexpr int64_t kStackBytes = 256 << 10;
#else
constexpr int64_t kStackBytes = 64 << 10;
#endif

struct Context {
  void* pointer = nullptr;  // of the stack, while something else runs
  const void* stack = nullptr;
  size_t stack_bytes = 0;
  void* sanitizer = nullptr;
};

extern "C" void cuda_shim_switch(void** from, void* to);
// Saves what a callee must keep and the stack pointer in *from, goes on where `to` was saved.
asm(R"(
.text
cuda_shim_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
)");

inline void switch_to(Context& from, Context& to) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_start_switch_fiber(&from.sanitizer, to.stack, to.stack_bytes);
#endif
#ifdef CUDA_SHIM_TSAN
  __tsan_switch_to_fiber(to.sanitizer, 1);  // 1: a switch orders nothing
#endif
  cuda_shim_switch(&from.pointer, to.pointer);
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(from.sanitizer, nullptr, nullptr);
#endif
}

// The first thing to do on a stack that was switched to from `from`.
inline void arrive_first(Context& from) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(nullptr, &from.stack, &from.stack_bytes);
#endif
  (void)from;
}

// A stack on which `entry` begins when it is switched to; entry does not return.
inline Context new_context(unsigned char* stack, void (*entry)()) {
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(stack, size_t(kStackBytes));  // its last user may not have returned
#endif
  void** const top = reinterpret_cast<void**>(stack + kStackBytes) - 8;
  std::fill(top, top + 8, nullptr);
  top[6] = reinterpret_cast<void*>(entry);  // above the six saved registers
  Context context{top, stack, size_t(kStackBytes), nullptr};
#ifdef CUDA_SHIM_TSAN
  context.sanitizer = __tsan_create_fiber(0);
#endif
  return context;
}

inline void destroy(const Context& context) {
#ifdef CUDA_SHIM_TSAN
  __tsan_destroy_fiber(context.sanitizer);
#endif
  (void)context;
}

inline void name_current(Context& context) {
#ifdef CUDA_SHIM_TSAN
  context.sanitizer = __tsan_get_current_fiber();
#endif
  (void)context;
}

// For ThreadSanitizer: what was done before `point` was left behind is seen by who comes to it.
inline void leave_behind(void* point) {
#ifdef CUDA_SHIM_TSAN
  __tsan_release(point);
#endif
  (void)point;
}

inline void come_to(void* point) {
#ifdef CUDA_SHIM_TSAN
  __tsan_acquire(point);
#endif
  (void)point;
}

// `bytes` of memory, of which `used` will be written to.
inline void map_fresh(unsigned char*& memory, int64_t bytes, int64_t used) {
  if (memory == nullptr) {
    memory = static_cast<unsigned char*>(mmap(nullptr, size_t(bytes), PROT_READ | PROT_WRITE,
                                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (memory == MAP_FAILED) throw std::bad_alloc();
  }
#ifdef CUDA_SHIM_TSAN  // what other blocks did to this memory is none of this block's concern
  mmap(memory, size_t(used), PROT_READ | PROT_WRITE,
       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0);
#endif
  (void)used;
}

// For AddressSanitizer: nobody may touch these bytes, or everybody again.
inline void forbid(const unsigned char* memory, int64_t bytes, bool forbidden) {
#ifdef __SANITIZE_ADDRESS__
  forbidden ? __asan_poison_memory_region(memory, size_t(bytes))
            : __asan_unpoison_memory_region(memory, size_t(bytes));
#endif
  (void)memory, (void)bytes, (void)forbidden;
}

}  // namespace
}  // namespace cuda_shim
