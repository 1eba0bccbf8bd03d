// Huge pages for large new results. The kernel zeroes a fresh tensor's memory at the first write,
// page by page of 4 KiB. For tens of megabytes that takes longer than the arithmetic.
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

// The beginning of a file as text; empty if it cannot be read.
struct Beginning {
  char text[256] = {};

  explicit Beginning(const char* path) {
    std::FILE* const file = std::fopen(path, "r");
    if (!file) return;
    text[std::fread(text, 1, sizeof text - 1, file)] = 0;
    std::fclose(file);
  }
  // The same of a file of a device of a virtual machine.
  static Beginning of_device(int device, const char* name) {
    char path[64];
    std::snprintf(path, sizeof path, "/sys/bus/virtio/devices/virtio%d/%s", device, name);
    return Beginning(path);
  }
};

// Whether this is a virtual machine that returns free memory to its host. It returns huge pages
// first, and gets each one back page by page, which is five times slower than using small pages
// that it kept. The balloon's feature bit 5 says so (device 5; Virtual I/O Device 1.2, section
// 5.5).
inline bool returns_free_memory() {
  for (int device = 0; device < 32; ++device) {
    const Beginning features = Beginning::of_device(device, "features");
    if (std::strlen(features.text) > 5 && features.text[5] == '1' &&
        !std::strcmp(Beginning::of_device(device, "device").text, "0x0005\n")) {
      return true;
    }
  }
  return false;
}

// The sizes in bytes that benefit from huge pages, from `least` to below `end`. Below 8 MiB, memory
// mostly comes from earlier results whose pages are already mapped. From 32 MiB on
// (M_MMAP_THRESHOLD's maximum, mallopt(3)) each result is mapped and unmapped by itself, so a
// machine that returns free memory loses its pages each time. The range is empty if Linux does not
// grant huge pages by madvise, or if FUSEGEN_HUGE_PAGES is 0. If it is 1, large results get them on
// any machine.
struct Sizes {
  int64_t least, end;
};
inline Sizes sizes_for_huge_pages() {
  const char* const text = std::getenv("FUSEGEN_HUGE_PAGES");
  const char* const wanted = text ? text : "";
  const Beginning enabled("/sys/kernel/mm/transparent_hugepage/enabled");
  if (!std::strcmp(wanted, "0") || !std::strstr(enabled.text, "[madvise]")) return {0, 0};
  const bool keeps = !std::strcmp(wanted, "1") || !returns_free_memory();
  return {int64_t(8) << 20, keeps ? INT64_MAX : int64_t(32) << 20};
}

// Set when the package is loaded. If it were set at the first use, a process forked meanwhile would
// wait for ever.
inline const Sizes helped_by_huge_pages = sizes_for_huge_pages();

// Asks for huge pages under new memory that nothing has been written to. It is only a hint about
// the whole pages inside: contents and neighbours stay as they are, and an error changes nothing.
inline void prefer_huge_pages(void* memory, int64_t bytes) {
  if (bytes < helped_by_huge_pages.least || bytes >= helped_by_huge_pages.end) return;
  constexpr uintptr_t page = uintptr_t(2) << 20;
  const uintptr_t from = reinterpret_cast<uintptr_t>(memory);
  const uintptr_t begin = (from + page - 1) / page * page, end = (from + bytes) / page * page;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
}

#else

inline void prefer_huge_pages(void*, int64_t) {}

#endif

}  // namespace fusegen
