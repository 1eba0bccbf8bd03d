// Memory of large results on the CPU, which goes from one that was freed to the next of its size,
// as torch's allocator has it on CUDA. Memory that the system hands out anew it zeroes first, page
// by page, which takes longer than the arithmetic.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <vector>

#include "fusegen/pages.h"

namespace fusegen {

// Blocks of whole MiB that no tensor has at present, the oldest first: together at most
// FUSEGEN_POOL_MB MiB (256; 0: none). Who finds the lock taken goes to the system instead, so
// nobody waits: neither a thread for another, nor a forked process for a thread that it has not.
class Pool {
 public:
  static constexpr int64_t least = int64_t(1) << 20;  // the smallest result it serves, in bytes

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

  // Takes memory back that `take` gave for as many bytes. What no longer fits is freed, the oldest
  // first: sizes that nobody asks for any more make room for those in use.
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

  // Made as the package is loaded: a process forked while another thread makes it at its first use
  // would wait for that thread for ever. Never destroyed: tensors may outlive all static objects.
  static Pool* const here_;

  Pool() {
    const char* const text = std::getenv("FUSEGEN_POOL_MB");
    limit_ = (text ? std::strtoll(text, nullptr, 10) : 256) * least;
    if (limit_ > 0) blocks_.reserve(size_t(limit_ / least));  // so push_back allocates nothing
  }
  static int64_t whole(int64_t bytes) { return (bytes + least - 1) / least * least; }

  // The newest block of a size, which is the likeliest to be in a cache; null where there is none.
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
