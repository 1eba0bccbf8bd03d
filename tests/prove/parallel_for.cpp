// torch's parallel loop with threads of its own, started and joined in each loop: ThreadSanitizer
// sees how they wait for each other, which it does not of torch's. Loaded before torch's libraries.
#include <algorithm>
#include <cstdint>
#include <thread>
#include <vector>

namespace {
constexpr int64_t threads = 4;
}

extern "C" int32_t torch_get_num_threads(uint32_t* found) {
  *found = threads;
  return 0;
}

extern "C" int32_t torch_parallel_for(int64_t begin, int64_t end, int64_t grain,
                                      void (*body)(int64_t, int64_t, void*), void* context) {
  const int64_t each = std::max(grain, (end - begin + threads - 1) / threads);
  std::vector<std::thread> all;
  for (int64_t first = begin; first < end; first += each)
    all.emplace_back(body, first, std::min(end, first + each), context);
  for (std::thread& thread : all) thread.join();
  return 0;
}
