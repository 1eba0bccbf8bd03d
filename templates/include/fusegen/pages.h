// Huge pages under large new results. A fresh tensor of tens of megabytes is memory that the kernel
// zeroes when it is first written to: page by page of 4 KiB, which takes longer than the
// arithmetic.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace fusegen {

#if defined(__linux__) && defined(MADV_HUGEPAGE)

// Whether asking helps: Linux gives huge pages to those who ask (not to all, nor to nobody), and
// FUSEGEN_HUGE_PAGES is not 0.
inline bool asks_for_huge_pages() {
  const char* const wanted = std::getenv("FUSEGEN_HUGE_PAGES");
  if (wanted && !std::strcmp(wanted, "0")) return false;
  std::FILE* const file = std::fopen("/sys/kernel/mm/transparent_hugepage/enabled", "r");
  if (!file) return false;
  char text[64] = {};
  const size_t read = std::fread(text, 1, sizeof(text) - 1, file);
  std::fclose(file);
  return read && std::strstr(text, "[madvise]");
}

// Asks for huge pages under new memory that nothing was written to. It is a hint about the whole
// pages inside: contents and neighbours stay as they are, and an error changes nothing. Below 8 MiB
// memory is mostly what was freed before, whose pages are there already.
inline void prefer_huge_pages(void* memory, int64_t bytes) {
  constexpr uintptr_t page = uintptr_t(2) << 20;
  if (bytes < int64_t(4 * page)) return;
  static const bool asks = asks_for_huge_pages();
  if (!asks) return;
  const uintptr_t from = reinterpret_cast<uintptr_t>(memory);
  const uintptr_t begin = (from + page - 1) / page * page, end = (from + bytes) / page * page;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
}

#else

inline void prefer_huge_pages(void*, int64_t) {}

#endif

}  // namespace fusegen
