// Plan     a few freed blocks wait in a list, newest last; a request takes one of its own size.
// Locking  one mutex around the list; nothing of the system's is called under it.
#include "memory.h"

#include <cstdlib>
#include <mutex>
#include <new>
#include <utility>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace mtlfast {
namespace {

constexpr int64_t kHugePage = 1 << 21;
constexpr int kKept = 2;

struct Block {
  void* data = nullptr;
  int64_t bytes = 0;
};

std::mutex mutex;
Block kept[kKept];  // filled from the front

int64_t rounded(int64_t bytes) { return (bytes + kHugePage - 1) / kHugePage * kHugePage; }

void* allocate(int64_t bytes) {
  void* data = nullptr;
  if (posix_memalign(&data, kHugePage, size_t(bytes)) != 0) throw std::bad_alloc();
#ifdef __linux__
  madvise(data, size_t(bytes), MADV_HUGEPAGE);  // advice: refused where huge pages are off
#endif
  return data;
}

// Takes block k out of the list.
Block take(int k) {
  const Block taken = kept[k];
  for (; k + 1 < kKept; ++k) kept[k] = kept[k + 1];
  kept[kKept - 1] = Block{};
  return taken;
}

}  // namespace

Memory::Memory(int64_t bytes) : data_(nullptr), bytes_(rounded(bytes > 0 ? bytes : 1)) {
  {
    const std::lock_guard<std::mutex> lock(mutex);
    for (int k = kKept - 1; k >= 0 && data_ == nullptr; --k) {
      if (kept[k].bytes == bytes_) data_ = take(k).data;
    }
  }
  if (data_ == nullptr) data_ = allocate(bytes_);
}

Memory::~Memory() {
  Block oldest;
  {
    const std::lock_guard<std::mutex> lock(mutex);
    int count = 0;
    while (count < kKept && kept[count].data != nullptr) ++count;
    if (count == kKept) oldest = take(0), --count;
    kept[count] = {data_, bytes_};
  }
  std::free(oldest.data);
}

int64_t release_memory() {
  Block released[kKept];
  {
    const std::lock_guard<std::mutex> lock(mutex);
    std::swap(released, kept);
  }
  int64_t bytes = 0;
  for (const Block& block : released) {
    std::free(block.data);
    bytes += block.bytes;
  }
  return bytes;
}

}  // namespace mtlfast
