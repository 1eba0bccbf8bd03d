// What the CPU's forms share: buffers, derived columns, and sums over the grid.
#pragma once

#include "fusegen/cpu.h"
#include "fusegen/cpu_channels.h"
#include "fusegen/forms/cpu_sweep.h"
#include "fusegen/forms/parts.h"

namespace fusegen {
namespace {

// Whether several stages read one of some random inputs.
template <class... Rngs>
constexpr bool any_shared(List<Rngs...>) {
  return (Rngs::shared || ...);
}
// The most that a stage reduces over a row.
template <class... Stages>
constexpr int most_reductions_of(List<Stages...>) {
  int most = 0;
  ((most = std::max(most, Only<Stages, Role::sum>::size + Only<Stages, Role::largest>::size)), ...);
  return most;
}

// Where a loop finds the gaps of item N of some. Items whose columns alternate share them, so that
// the compiler sees that they read and write neighbours, and makes vectors of both.
template <class Item, class Items, int N>
constexpr int gap_place = alternates<Item> ? same_gap<Item>(Items{}) : N;

// Finds how far the gaps before row r put each of some tensors; only once for the parts of a
// tensor.
template <class Items, class Args>
FUSEGEN_FN void find_gaps(Items items, const Args& args, int64_t r, int64_t* gaps) {
  each(items, [&](auto item, auto n) {
    using Item = decltype(item);
    constexpr int same = same_gap<Item>(Items{});
    if constexpr (has_gap<Item> && same < decltype(n)::value)
      gaps[n] = gaps[same];
    else
      gaps[n] = gap_of<Item>(args, r);
  });
}

// N uninitialised arrays of `count` numbers each.
template <class T, int N>
class Buffers {
 public:
  explicit Buffers(int64_t count) : Buffers(count, std::make_integer_sequence<int, N>{}) {}
  Pointers<T, N> pointers() const {
    Pointers<T, N> found;
    for (int n = 0; n < N; ++n) found.to[n] = memory_[n].data();
    return found;
  }

 private:
  template <int... PLACES>
  Buffers(int64_t count, std::integer_sequence<int, PLACES...>)
      : memory_{Buffer<T>(PLACES >= 0 ? count : 0)...} {}

  Buffer<T> memory_[N];
};
template <class T>
class Buffers<T, 0> {
 public:
  explicit Buffers(int64_t) {}
  Pointers<T, 0> pointers() const { return {}; }
};

// Fills arrays with what is derived of columns begin … begin + count - 1.
template <class P>
FUSEGEN_FN void derive_columns(const typename P::Args& args, const typename P::K::Scalar& scalar,
                               int64_t begin, int64_t count,
                               const Pointers<typename P::T, P::DerivedCols::size>& to) {
  if constexpr (P::DerivedCols::size > 0) {
    for (int64_t j = 0; j < count; ++j) {
      typename P::K::Col col = P::loaded_column(args, begin + j);
      P::derive(scalar, col);
      each(typename P::DerivedCols{},
           [&](auto item, auto place) { to[place][j] = col.*item.field; });
    }
  }
}

// Fills an array with one of the call's streams of random numbers, from element `first` on.
template <class Rng, class Args, class T>
FUSEGEN_FN void draw(const Args& args, T* to, int64_t count, int64_t first) {
  fill_uniform(to, count, *args.seed, Rng::stream, uint64_t(first));
}

// Calls f with a pointer to each result that a sum over the grid is written to, and how far apart
// its numbers are.
template <class S, class Added, class Args, class F>
FUSEGEN_FN void each_result(Added, const Args& args, const F& f) {
  each(typename Added::results{}, [&](auto result, auto) {
    using Result = decltype(result);
    using Stored = std::conditional_t<Result::computed, compute_t<S>, S>;
    f(pointer<Stored, Result::arg>(args) + Result::place, Result::step);
  });
}

// The partial sums that tasks leave. `groups` of them have sums of columns, `tasks` sums over
// everything, and `places` is how many sums of channels there are: those of each of `samples`
// together.
template <class D, class S>
struct GridSums {
  using P = Parts<D, S>;
  using T = typename P::T;

  Buffers<T, P::ColSums::size> cols;
  Buffers<T, P::RowSums::size> rows;
  Buffers<T, P::RunSums::size> runs;
  Buffers<double, P::Totals::size> totals;

  // Adds them up in order and writes the results, then those that depend on them.
  void write(const typename P::Args& args, const typename P::K::Scalar& scalar, int64_t groups,
             int64_t tasks, int64_t places, int64_t samples = 1) const {
    each(typename P::ColSums{}, [&](auto item, auto n) {
      each_result<S>(item, args, [&](auto* to, int step) {
        store_col_sums(to, step, cols.pointers()[n], groups, args.cols);
      });
    });
    each(typename P::RunSums{}, [&](auto item, auto n) {
      each_result<S>(item, args, [&](auto* to, int) {
        const int64_t each = places / samples, own = channels_of<decltype(item)>(args) / samples;
        for (int64_t sample = 0; sample < samples; ++sample)
          store_channel_sums(to + sample * own, runs.pointers()[n] + sample * each, each, own, 1);
      });
    });
    each(typename P::RowSums{}, [&](auto item, auto n) {
      each_result<S>(item, args, [&](auto* to, int) {
        store_channel_sums(to, rows.pointers()[n], args.rows, channels_of<decltype(item)>(args),
                           run_length<decltype(item)>(args));
      });
    });
    each(typename P::Totals{}, [&](auto item, auto n) {
      each_result<S>(item, args,
                     [&](auto* to, int) { store_total(to, totals.pointers()[n], tasks); });
    });
    P::finish(args, scalar);
  }
};

}  // namespace
}  // namespace fusegen
