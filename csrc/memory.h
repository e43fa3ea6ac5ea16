// Memory for large results: huge pages, and what was freed last is handed out again.
//
// Fresh memory from the system costs a page fault per 4 KiB at the first write, several times what a
// memory-bound kernel needs for the whole result. A training step frees a gradient and asks for one
// of the same size, so up to kKept freed blocks are kept for the next request of their size.
#pragma once

#include <cstdint>

namespace mtlfast {

// A block of at least `bytes` bytes, aligned to a huge page. Throws std::bad_alloc.
class Memory {
 public:
  explicit Memory(int64_t bytes);
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  void* data() const { return data_; }
  int64_t bytes() const { return bytes_; }

 private:
  void* data_;
  int64_t bytes_;
};

// Returns the freed blocks that are kept to the system; how many bytes that were.
int64_t release_memory();

}  // namespace mtlfast
