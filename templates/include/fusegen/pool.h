// Reuses the memory of large results on the CPU: memory of a freed result goes to the next one of
// the same size, as in torch's CUDA allocator. The system would zero new memory page by page, which
// takes longer than the arithmetic.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <vector>

#include "fusegen/pages.h"

namespace fusegen {

// Blocks of whole MiB that no tensor uses at present, the oldest first. Their total is at most
// FUSEGEN_POOL_MB MiB (default 256; 0 disables the pool). A caller that finds the lock taken goes
// to the system instead. So nobody waits: no thread for another, and no forked process for a thread
// that it does not have.
class Pool {
 public:
  // The smallest result the pool serves, in bytes.
  static constexpr int64_t least = int64_t(1) << 20;

  // The package's pool.
  static Pool& here() { return *here_; }
  bool serves(int64_t bytes) const { return bytes >= least && whole(bytes) <= limit_; }

  // Memory for a result that the pool serves, aligned to 64 bytes or to a huge page.
  void* take(int64_t bytes) {
    const int64_t size = whole(bytes);
    if (!lock_.test_and_set(std::memory_order_acquire)) {
      void* const found = remove(size);
      lock_.clear(std::memory_order_release);
      if (found) return found;
    }
    void* const memory = std::aligned_alloc(size % huge_page ? 64 : huge_page, size_t(size));
    if (!memory) throw std::bad_alloc();
    prefer_huge_pages(memory, size);
    return memory;
  }

  // Takes back memory that `take` returned for the same number of bytes. If the pool is full, the
  // oldest blocks are freed: sizes out of use make room for those in use.
  void give(void* memory, int64_t bytes) noexcept {
    const int64_t size = whole(bytes);
    if (lock_.test_and_set(std::memory_order_acquire)) return std::free(memory);
    size_t leaving = 0;
    for (; idle_ + size > limit_; ++leaving) {
      idle_ -= blocks_[leaving].size;
      std::free(blocks_[leaving].memory);
    }
    blocks_.erase(blocks_.begin(), blocks_.begin() + leaving);
    blocks_.push_back({memory, size});
    idle_ += size;
    lock_.clear(std::memory_order_release);
  }

 private:
  struct Block {
    void* memory;
    int64_t size;
  };
  static constexpr int64_t huge_page = int64_t(2) << 20;

  // Made when the package is loaded. If it were made at the first use, a process forked meanwhile
  // would wait for ever for the thread that makes it. Never destroyed, because tensors may outlive
  // all static objects.
  static Pool* const here_;

  Pool() {
    const char* const text = std::getenv("FUSEGEN_POOL_MB");
    limit_ = (text ? std::strtoll(text, nullptr, 10) : 256) * least;
    if (limit_ > 0) blocks_.reserve(size_t(limit_ / least));  // so push_back never allocates
  }
  // Rounds up to whole MiB.
  static int64_t whole(int64_t bytes) { return (bytes + least - 1) / least * least; }

  // Removes and returns the newest block of a size, the one most likely to be in a cache; null if
  // there is none.
  void* remove(int64_t size) {
    for (size_t n = blocks_.size(); n-- > 0;) {
      if (blocks_[n].size != size) continue;
      void* const memory = blocks_[n].memory;
      blocks_.erase(blocks_.begin() + n);
      idle_ -= size;
      return memory;
    }
    return nullptr;
  }

  std::atomic_flag lock_ = ATOMIC_FLAG_INIT;
  std::vector<Block> blocks_;
  int64_t idle_ = 0, limit_;
};

inline Pool* const Pool::here_ = new Pool();

}  // namespace fusegen
