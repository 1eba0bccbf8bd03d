// Items of a description: sums over the grid, and results that no stage writes.
#pragma once

#include "fusegen/forms/lists.h"
#include "fusegen/forms/roles.h"

namespace fusegen {

// Sums over the grid. `Results` are the arguments they are written to.

// A result in the tensors' dtype, and one in the type that it is computed in. STEP, PLACE: see
// input_items.h.
template <auto ARG, int STEP = 1, int PLACE = 0>
struct To {
  static constexpr auto arg = ARG;
  static constexpr bool computed = false;
  static constexpr int step = STEP, place = PLACE;
};
template <auto ARG, int STEP = 1, int PLACE = 0>
struct Save {
  static constexpr auto arg = ARG;
  static constexpr bool computed = true;
  static constexpr int step = STEP, place = PLACE;
};
// Over the rows, for each column.
template <auto OUT, class... Results>
struct ColSum {
  static constexpr Role role = Role::col_sum;
  static constexpr auto out = OUT;
  using results = List<Results...>;
};
// Over the elements of each channel, where a channel is a run of elements.
template <auto OUT, class... Results>
struct RunSum {
  static constexpr Role role = Role::run_sum;
  static constexpr auto out = OUT;
  using results = List<Results...>;
};
// Over all elements.
template <auto OUT, class... Results>
struct Total {
  static constexpr Role role = Role::total;
  static constexpr auto out = OUT;
  using results = List<Results...>;
};

// Results that no stage writes. VALUE is a member of Row (Col, Total) or of Scalar.

// One number for each row, or for each column.
template <auto VALUE, auto ARG, class Stored>
struct RowStore {
  static constexpr Role role = Role::row_store;
  static constexpr auto value = VALUE;
  static constexpr auto arg = ARG;
  using type = Stored;
};
template <auto VALUE, auto ARG, class Stored, int STEP = 1, int PLACE = 0>
struct ColStore {
  static constexpr Role role = Role::col_store;
  static constexpr auto value = VALUE;
  static constexpr auto arg = ARG;
  static constexpr int step = STEP, place = PLACE;
  using type = Stored;
};
// Sums over one number of each row: for each channel, where a channel is a run of rows, and over
// all rows.
template <auto VALUE, class... Results>
struct RowSum {
  static constexpr Role role = Role::row_sum;
  static constexpr auto value = VALUE;
  using results = List<Results...>;
};
template <auto VALUE, class... Results>
struct RowTotal {
  static constexpr Role role = Role::row_total;
  static constexpr auto value = VALUE;
  using results = List<Results...>;
};
// Results that depend on sums over the grid: the sums, the function that computes the values, and
// the values.
template <auto FIELD, auto ARG>
struct KnownTotal {
  static constexpr Role role = Role::known_total;
  static constexpr auto field = FIELD;
  static constexpr auto arg = ARG;
};
template <auto FUNCTION, class Totals>
struct FinalLines {
  static constexpr Role role = Role::final_lines;
  using type = Totals;
  static constexpr auto function = FUNCTION;
};
template <auto VALUE, auto ARG, class Stored>
struct Final {
  static constexpr Role role = Role::final;
  static constexpr auto value = VALUE;
  static constexpr auto arg = ARG;
  using type = Stored;
};

}  // namespace fusegen
