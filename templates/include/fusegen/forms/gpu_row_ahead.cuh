// Values that each row has of its own, on the GPU: read while the row before is computed.
//
// Nothing uses them until the row's turn, because a use would wait for them. Numbers of rows that
// say which elements to take are read one row earlier still.
#pragma once

#include "fusegen/forms/gpu_grid_sums.cuh"

namespace fusegen {
namespace {

// Values as they are stored.
struct AsStored {
  template <class Item>
  using of = typename Item::type;
};

// Whether a row's numbers say which of its elements to take.
template <auto ARG>
struct Named;
template <class Item, class... Taken>
constexpr bool serves(List<Taken...>) {
  return (std::is_same_v<Named<Item::arg>, Named<Taken::index>> || ...);
}
template <bool SERVES, class TakenItems, class... Rows>
constexpr auto serving(List<Rows...>) {
  return (List<>{} + ... +
          std::conditional_t<serves<Rows>(TakenItems{}) == SERVES, List<Rows>, List<>>{});
}

template <class D, class S>
class RowAhead {
  using P = Parts<D, S>;
  using Args = typename D::Args;
  using T = typename P::T;
  using TakenItems = Only<InputsOf<D>, Role::taken>;
  using Loads = Only<InputsOf<D>, Role::row>;
  using Values = decltype(serving<false, TakenItems>(Loads{}));
  using Columns = decltype(serving<true, TakenItems>(Loads{}));

 public:
  // Before the rows from `first` on: reads which elements the first one takes.
  __device__ __forceinline__ RowAhead(const Args& args, int64_t first) {
    if (Columns::size > 0 && args.rows > 0) look<&RowAhead::next_>(args, first);
  }
  // Reads the values of row r.
  template <class Index>
  __device__ __forceinline__ void read(const Args& args, Index r) {
    each(Values{}, [&](auto item, auto) {
      using Item = decltype(item);
      const auto* const from = pointer<typename Item::type, Item::arg>(args);
      slots_.template of<Item>() = from[row_place<Item>(args, r)];
    });
    each(TakenItems{}, [&](auto item, auto) {
      using Item = decltype(item);
      slots_.template of<Item>() = taken<D, Item>(args, r, next_[place_in<Item>(Columns{})]);
    });
  }
  // Once the first row has been read: which elements row `second` takes.
  __device__ __forceinline__ void begin(const Args& args, int64_t second) {
    if (Columns::size > 0 && args.rows > 0) {
#pragma unroll
      for (int n = 0; n < Columns::size; ++n) now_[n] = next_[n];
      look<&RowAhead::next_>(args, second);
    }
  }
  // Fills `row` with the values that were read, and reads which elements row `later` takes.
  __device__ __forceinline__ void take_up(const Args& args, typename P::K::Row& row,
                                          int64_t later) {
    each(Values{} + TakenItems{}, [&](auto item, auto) {
      using Item = decltype(item);
      row.*item.field = T(Storage<typename Item::type>::load(slots_.template of<Item>()));
    });
    each(Columns{}, [&](auto item, auto n) { row.*item.field = T(now_[n]); });
    look<&RowAhead::later_>(args, later);
  }
  // Goes on to the next row.
  __device__ __forceinline__ void advance() {
#pragma unroll
    for (int n = 0; n < Columns::size; ++n) {
      now_[n] = next_[n];
      next_[n] = later_[n];
    }
  }

 private:
  // The place among the columns of the one that an item takes its element from.
  template <class Item, class... Rows>
  static FUSEGEN_FN constexpr int place_in(List<Rows...>) {
    int place = 0;
    (void)((std::is_same_v<Named<Rows::arg>, Named<Item::index>> || (++place, false)) || ...);
    return place;
  }
  // Reads which elements row r takes, or the last row if there is no such row.
  template <auto INTO>
  __device__ __forceinline__ void look(const Args& args, int64_t r) {
    each(Columns{}, [&](auto item, auto n) {
      (this->*INTO)[n] = pointer<int64_t, decltype(item)::arg>(args)[min(r, args.rows - 1)];
    });
  }

  Slots<AsStored, decltype(Values{} + TakenItems{})> slots_;
  int64_t now_[Columns::size + 1] = {}, next_[Columns::size + 1] = {},
                               later_[Columns::size + 1] = {};
};

}  // namespace
}  // namespace fusegen
