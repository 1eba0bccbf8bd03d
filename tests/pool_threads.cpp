// Threads take blocks from the pool, write their name over them, find it there and give them back;
// meanwhile the process forks, and each child does the same. 0 where every block was one thread's
// alone and every child came to its end.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <thread>
#include <vector>

#include "fusegen/pool.h"

namespace {

using fusegen::Pool;

bool is_alone(int64_t name, int64_t bytes) {
  auto* const block = static_cast<int64_t*>(Pool::here().take(bytes));
  const int64_t places[] = {0, 1, bytes / 16, bytes / 8 - 1};
  for (const int64_t place : places) block[place] = name;
  const bool alone = std::all_of(std::begin(places), std::end(places),
                                 [&](int64_t place) { return block[place] == name; });
  Pool::here().give(block, bytes);
  return alone;
}

}  // namespace

int main() {
  std::atomic<bool> stop{false};
  std::atomic<int> shared{0};
  std::vector<std::thread> threads;
  for (int64_t name = 1; name <= 4; ++name) {
    threads.emplace_back([&, name] {
      for (int64_t n = 0; !stop; ++n) shared += !is_alone(name, Pool::least << (n + name) % 3);
    });
  }
  int stuck = 0;
  for (int n = 0; n < 200; ++n) {
    const pid_t child = fork();
    if (child == 0) {
      alarm(2);  // ends a child that waits for a thread which only its parent has
      _exit(is_alone(-1, Pool::least) ? 0 : 1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    stuck += status != 0;
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  std::printf("blocks with two owners: %d, children that failed: %d\n", shared.load(), stuck);
  return shared || stuck;
}
