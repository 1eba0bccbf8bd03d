// Loops over the activation on the CPU: how it is split into tasks, and the buffers of a task.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <new>
#include <numeric>
#include <type_traits>

#include "fusegen/storage.h"
#include "fusegen/elementary.h"
#include "fusegen/isa.h"
#include "fusegen/precision.h"
#include "fusegen/random.h"

// torch's own thread pool, through torch's stable C interface (torch/csrc/stable/c/shim.h). It
// respects torch.set_num_threads. Declared here so that no kernel includes a torch header.
extern "C" int32_t torch_parallel_for(int64_t begin, int64_t end, int64_t grain_size,
                                      void (*body)(int64_t begin, int64_t end, void* context),
                                      void* context);
extern "C" int32_t torch_get_num_threads(uint32_t* threads);

// Everything here has internal linkage: kernel.cpp is compiled for several instruction sets, and
// the linker would otherwise keep one copy for all of them.
namespace fusegen {
namespace {

// Calls f(task) for tasks begin … end - 1. It is compiled once per f. `f` is copied and inlined, so
// that the compiler sees that no store changes what was captured; otherwise it gathers through the
// pointers.
template <class F>
__attribute__((noinline, flatten)) void run_tasks(int64_t begin, int64_t end, void* context) {
  const F f = *static_cast<const F*>(context);
  for (int64_t task = begin; task < end; ++task) {
    asm volatile("");  // prevents vectorization across tasks
    f(task);
  }
}

// Calls f(task) for each task in [0, tasks), with at least `grain` tasks per thread.
template <class F>
void parallel_for(int64_t tasks, int64_t grain, const F& f) {
  void* const context = const_cast<void*>(static_cast<const void*>(&f));
  if (tasks <= grain) {
    run_tasks<F>(0, tasks, context);
  } else {
    torch_parallel_for(0, tasks, std::max<int64_t>(grain, 1), run_tasks<F>, context);
  }
}

// How many columns are summed in the compute type before the sum is added to one in double. This
// keeps the error of a row's sum from growing with the row's length.
constexpr int64_t block_cols = 1024;
// The same where numbers are added one by one to a single sum, not to a vector of sums. It is
// smaller because roundings of equal numbers all have the same sign.
constexpr int64_t added_cols = 16;

// An uninitialised array, aligned to a cache line. A small one is stored in the object itself,
// because an allocation takes as long as a short row.
template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t count) {
    if (count <= inside) return;
    data_ = static_cast<T*>(std::aligned_alloc(64, (size_t(count) * sizeof(T) / 64 + 1) * 64));
    if (!data_) throw std::bad_alloc();
  }
  ~Buffer() {
    if (data_ != small_) std::free(data_);
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  T* data() const { return data_; }
  T& operator[](int64_t i) const { return data_[i]; }

 private:
  static constexpr int64_t inside = 512 / sizeof(T);

  alignas(64) T small_[inside];
  T* data_ = small_;
};

// Maps a number to an integer that sorts in the same order, with NaN the largest. Integers have a
// single instruction for the larger of two; no compiler uses the one for numbers that may be NaN.
template <class I, class T>
FUSEGEN_FN I ordinal_as(T x) {
  constexpr I largest = std::numeric_limits<I>::max();
  const I bits = bit_cast<I>(x), place = bits ^ ((bits >> (8 * sizeof(I) - 1)) & largest);
  return x != x ? largest : place;
}
// The larger of two ordinals. It takes them by value, because std::max's references keep gcc from
// vectorizing.
template <class I>
FUSEGEN_FN I larger(I a, I b) {
  return a > b ? a : b;
}
FUSEGEN_FN int32_t ordinal(float x) {
  return ordinal_as<int32_t>(x);
}
FUSEGEN_FN int64_t ordinal(double x) {
  return ordinal_as<int64_t>(x);
}
// The number of an ordinal.
FUSEGEN_FN float of_ordinal(int32_t place) {
  return bit_cast<float>(place ^ ((place >> 31) & 0x7fffffff));
}
FUSEGEN_FN double of_ordinal(int64_t place) {
  return bit_cast<double>(place ^ ((place >> 63) & 0x7fffffffffffffff));
}

// Prefetches memory that is read or written soon, so that it arrives while the current block is
// computed.
constexpr bool to_write = true;
template <bool WRITTEN = false, class S>
FUSEGEN_FN void prefetch(const S* memory, int64_t count) {
  for (int64_t i = 0; i < count; i += 64 / int64_t(sizeof(S))) {
    __builtin_prefetch(memory + i, WRITTEN, 2);
  }
}

// How many columns ahead an outer reduction prefetches.
constexpr int64_t columns_ahead = 4;

// The sum of a row's blocks.
template <class To, class T>
To total(const T* blocks, int64_t count) {
  double sum = 0;
  for (int64_t block = 0; block < count; ++block) sum += blocks[block];
  return To(sum);
}
// The maximum of a row's blocks.
template <class T>
T largest(const T* blocks, int64_t count) {
  T found = -INFINITY;
  for (int64_t block = 0; block < count; ++block) found = maximum(found, blocks[block]);
  return found;
}

// The activation [rows, cols], split into tasks of at most `tile_rows` rows and `tile_cols`
// columns. A row is split into blocks, and their sums are added up in order. If there are fewer
// rows than threads, the threads take one row at a time and share its blocks.
struct Tiling {
  // With less work, a second thread costs more than it saves.
  static constexpr int64_t elements_per_thread = 32768;

  int64_t rows, cols, tile_rows, tile_cols;
  bool splits_rows;

  // Makes about `parts` groups of rows at most, but allows two groups per thread. Each group has
  // its own sums over rows.
  static Tiling of(int64_t rows, int64_t cols, int64_t widest, int64_t parts) {
    const int64_t tile_cols = std::max<int64_t>(1, std::min(cols, widest));
    const int64_t wanted = std::max<int64_t>(1, elements_per_thread / tile_cols);
    uint32_t threads = 1;
    torch_get_num_threads(&threads);
    parts = std::max<int64_t>(parts, 2 * threads);
    return {rows, cols, std::clamp<int64_t>(rows / parts, std::min<int64_t>(wanted, 32), 128),
            tile_cols, rows < threads && cols >= 2 * elements_per_thread};
  }
  int64_t groups() const { return (rows + tile_rows - 1) / tile_rows; }
  int64_t columns() const { return (cols + tile_cols - 1) / tile_cols; }
  int64_t tasks() const { return groups() * columns(); }
  int64_t grain() const {
    return splits_rows ? tasks()
                       : std::max<int64_t>(1, elements_per_thread / (tile_rows * tile_cols));
  }
  int64_t blocks() const { return (cols + block_cols - 1) / block_cols; }
  int64_t block_grain() const { return splits_rows ? elements_per_thread / block_cols : blocks(); }
};

// The rows of each task where rows are reduced as a whole. Rows take turns at the channels: `cycle`
// of them together have all channels, or are all rows if no operand has channels along a row. A
// task takes `sets` neighbouring rows of each cycle, of at least so many elements, and so the same
// channels from cycle to cycle, in one of several pieces of the cycles. It sums no more than `most`
// of them in the compute type.
struct RowTasks {
  static constexpr int64_t most = 128, least = 1024;

  int64_t rows, cycle, sets, pieces;

  static RowTasks of(const Tiling& tiling, int64_t cycle) {
    const int64_t rows = tiling.rows;
    if (!cycle) return {rows, std::max<int64_t>(rows, 1), tiling.tile_rows, 1};
    const int64_t wanted = std::min<int64_t>(tiling.groups(), 64), cycles = rows / cycle;
    const int64_t wide = std::min(cycle, least / std::max<int64_t>(tiling.cols, 1));
    const int64_t sets = std::max({int64_t(1), cycle / std::max<int64_t>(wanted, 1), wide});
    const int64_t tiles = (cycle + sets - 1) / sets;
    const int64_t pieces = std::max((wanted + tiles - 1) / tiles, (cycles + most - 1) / most);
    return {rows, cycle, sets, std::clamp<int64_t>(pieces, 1, std::max<int64_t>(cycles, 1))};
  }
  int64_t tiles() const { return (cycle + sets - 1) / sets; }
  int64_t count() const { return rows ? pieces * tiles() : 0; }
  int64_t grain(const Tiling& tiling) const {
    const int64_t each = std::max<int64_t>(1, rows / std::max<int64_t>(count(), 1));
    return tiling.splits_rows
               ? count()
               : std::max<int64_t>(1, Tiling::elements_per_thread / (each * tiling.tile_cols));
  }
  // Calls f with each row of a task, and with the place of its row of channels among those of all
  // pieces.
  template <class F>
  void each_row(int64_t task, const F& f) const {
    const int64_t cycles = rows / cycle, piece = task / tiles(), first = task % tiles() * sets;
    const int64_t end = std::min(cycle, first + sets);
    for (int64_t n = cycles * piece / pieces; n < cycles * (piece + 1) / pieces; ++n) {
      for (int64_t set = first; set < end; ++set) f(n * cycle + set, piece * cycle + set);
    }
  }
};

// Tasks of an outer reduction. Its rows are adjacent in memory: they form matrices [cols, inner]. A
// task takes up to `lanes` rows, few enough that their live values stay in the L2 cache.
struct OuterTiling {
  int64_t rows, inner, lanes;

  // `run` neighbours belong together.
  static OuterTiling of(int64_t rows, int64_t cols, int64_t inner, int64_t run) {
    const int64_t wanted = std::clamp<int64_t>(32768 / std::max<int64_t>(cols, 1), 64, 1024);
    const int64_t unit = std::lcm(run, int64_t(16));
    return {rows, inner, std::min(inner, std::max(wanted / unit, int64_t(1)) * unit)};
  }
  int64_t tiles() const { return (inner + lanes - 1) / lanes; }
  int64_t tasks() const { return rows / inner * tiles(); }
};

// Fills out[0 … count) with the uniform random numbers of elements first … first + count - 1.
template <class T>
void fill_uniform(T* out, int64_t count, uint64_t seed, uint32_t stream, uint64_t first) {
  // A group has eight elements; groups are computed in vectors.
  constexpr int groups = 64, lanes = 16;
  int64_t i = 0;
  for (; i < count && (first + i) % 8; ++i) out[i] = uniform(seed, stream, first + i);
  for (int64_t whole; (whole = std::min<int64_t>(8 * groups, (count - i) / 8 * 8)) > 0;
       i += whole) {
    const uint64_t group = (first + i) / 8;
    alignas(64) uint32_t words[4 * groups];
    for (int drawn = 0; 8 * drawn < whole; drawn += lanes) {
#pragma omp simd
      for (int g = drawn; g < drawn + lanes; ++g) {
        const Bits bits = philox(seed, stream, group + g);
        words[4 * g] = bits.word[0];
        words[4 * g + 1] = bits.word[1];
        words[4 * g + 2] = bits.word[2];
        words[4 * g + 3] = bits.word[3];
      }
    }
    T* const to = out + i;
#pragma omp simd
    for (int64_t k = 0; k < whole / 2; ++k) {
      to[2 * k] = low_uniform(words[k]);
      to[2 * k + 1] = high_uniform(words[k]);
    }
  }
  for (; i < count; ++i) out[i] = uniform(seed, stream, first + i);
}

// Adds up partial[group][col] over the groups, in order, and stores the sums. There may be
// thousands of groups, so the sums are in double.
template <class S, class T>
void store_col_sums(S* out, int64_t step, const T* partial, int64_t groups, int64_t cols) {
  constexpr int64_t width = 1024;
  parallel_for((cols + width - 1) / width, 4, [&](int64_t tile) {
    double sum[width] = {};
    const int64_t begin = tile * width, count = std::min(width, cols - begin);
    for (int64_t group = 0; group < groups; ++group) {
      const T* from = partial + group * cols + begin;
      for (int64_t i = 0; i < count; ++i) sum[i] += from[i];
    }
    for (int64_t i = 0; i < count; ++i) store(out + step * (begin + i), compute_t<S>(sum[i]));
  });
}

// Adds up the totals of all tasks, in order, and stores the sum.
template <class S>
void store_total(S* out, const double* partial, int64_t tasks) {
  double sum = 0;
  for (int64_t task = 0; task < tasks; ++task) sum += partial[task];
  store(out, compute_t<S>(sum));
}

}  // namespace
}  // namespace fusegen
