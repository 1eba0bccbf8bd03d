// Huge pages under large new results. A fresh tensor of tens of megabytes is memory that the kernel
// zeroes when it is first written to: page by page of 4 KiB, which takes longer than the
// arithmetic.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace fusegen {

#if defined(__linux__) && defined(MADV_HUGEPAGE)

inline std::string text_of(const std::string& path) {
  std::FILE* const file = std::fopen(path.c_str(), "r");
  if (!file) return {};
  char text[256] = {};
  const size_t read = std::fread(text, 1, sizeof(text) - 1, file);
  std::fclose(file);
  return std::string(text, read);
}

// Whether this is a virtual machine that hands free memory back to its host: huge pages first, and
// each comes back page by page, five times slower than small pages that the machine kept. It is bit
// 5 of the balloon's features (device 5; Virtual I/O Device 1.2, section 5.5).
inline bool returns_free_memory() {
  for (int device = 0; device < 32; ++device) {
    const std::string folder = "/sys/bus/virtio/devices/virtio" + std::to_string(device) + "/";
    const std::string features = text_of(folder + "features");
    if (features.size() > 5 && features[5] == '1' && text_of(folder + "device") == "0x0005\n") {
      return true;
    }
  }
  return false;
}

// Whether asking helps: Linux gives huge pages to those who ask (not to all, nor to nobody), keeps
// them, and FUSEGEN_HUGE_PAGES is not 0. If that is 1, they are asked for where it does not keep
// them too.
inline bool asks_for_huge_pages() {
  const char* const wanted = std::getenv("FUSEGEN_HUGE_PAGES");
  if (wanted && !std::strcmp(wanted, "0")) return false;
  if (!std::strstr(text_of("/sys/kernel/mm/transparent_hugepage/enabled").c_str(), "[madvise]")) {
    return false;
  }
  return (wanted && !std::strcmp(wanted, "1")) || !returns_free_memory();
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
