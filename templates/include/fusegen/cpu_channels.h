// Operands with one number per channel, on the CPU: the runs of columns or rows that a channel has,
// its value for each of them, and the sums over them.
#pragma once

#include <algorithm>
#include <cstdint>

#include "fusegen/cpu.h"

namespace fusegen {
namespace {

// From this many adjacent columns on, a channel gets a loop of its own.
constexpr int64_t long_run = 64;

// Looks like an array whose elements are all equal: the channel value of one run.
template <class T>
struct Same {
  T value;
  T operator[](int64_t) const { return value; }
};

// Splits the columns [begin, end) at run boundaries and calls f(from, to, run) for each piece.
template <class F>
void for_each_run(int64_t begin, int64_t end, int64_t each, const F& f) {
  int64_t run = begin / each;
  for (int64_t from = begin; from < end; ++run) {
    const int64_t to = std::min(end, (run + 1) * each);
    f(from, to, run);
    from = to;
  }
}

// Fills out[0 … count) with the channel values of elements first … first + count - 1.
template <class S, class T>
void spread_channels(T* out, const S* data, int64_t first, int64_t count, int64_t run,
                     int64_t channels) {
  int64_t channel = channel_of(first, run, channels), until = run - first % run;
  for (int64_t i = 0; i < count; until = run) {
    const int64_t end = std::min(count, i + until);
    std::fill(out + i, out + end, load(data + channel));
    i = end;
    if (++channel == channels) channel = 0;
  }
}

// A row's columns are split into blocks, and also into runs, one per channel. The sum of run k's
// part in block b goes to place b + k. Each next piece has a new run or a new block, so no two
// pieces share a place and blocks can be summed in parallel. `out` points to the block's first
// place.
template <class T>
void add_runs(T* out, const T* terms, int64_t begin, int64_t end, int64_t run) {
  for_each_run(begin, end, run, [=](int64_t from, int64_t to, int64_t k) {
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = from; j < to; ++j) sum += terms[j - begin];
    out[k] = sum;
  });
}

// Adds up the parts of each run, in order, and adds the sum to what other rows have left.
template <class T>
void join_runs(T* out, const T* places, int64_t runs, int64_t run) {
  for (int64_t k = 0; k < runs; ++k) {
    double sum = 0;
    for (int64_t b = k * run / block_cols; b <= ((k + 1) * run - 1) / block_cols; ++b) {
      sum += places[b + k];
    }
    out[k] += T(sum);
  }
}

// Adds up partial[row] over the rows of each channel, in order, and stores the sums. The rows are
// [groups, channels, run].
template <class S, class T>
void store_channel_sums(S* out, const T* partial, int64_t rows, int64_t channels, int64_t run) {
  parallel_for(channels, 256, [&](int64_t channel) {
    double sum = 0;
    for (int64_t row = channel * run; row < rows; row += channels * run) {
      for (int64_t i = 0; i < run; ++i) sum += partial[row + i];
    }
    store(out + channel, compute_t<S>(sum));
  });
}

}  // namespace
}  // namespace fusegen
