// Items of a description: what elements, columns, rows and the whole call read.
#pragma once

#include <cstdint>

#include "fusegen/forms/roles.h"

namespace fusegen {

// An item with a STEP and a PLACE accesses a part of a tensor's columns: column j of the item is
// column STEP j + PLACE of the tensor. If STEP is 2, the columns of two items alternate. These
// stand side by side, the one with the even columns first.

// A tensor with one number for each element. GAP: what lies between its rows.
template <auto FIELD, auto ARG, auto GAP = nullptr, int STEP = 1, int PLACE = 0>
struct Full {
  static constexpr Role role = Role::full;
  static constexpr auto field = FIELD;
  static constexpr auto arg = ARG;
  static constexpr auto gap = GAP;
  static constexpr int step = STEP, place = PLACE;
};
// Random numbers of one of the call's streams. SHARED: several stages read them.
template <auto FIELD, uint32_t STREAM, bool SHARED = false>
struct Rng {
  static constexpr Role role = Role::rng;
  static constexpr auto field = FIELD;
  static constexpr uint32_t stream = STREAM;
  static constexpr bool shared = SHARED;
};
// A tensor with one number for each channel, stored as `Stored`, where a channel is a run of
// elements.
template <auto FIELD, auto ARG, class Stored>
struct Spread {
  static constexpr Role role = Role::spread;
  static constexpr auto field = FIELD;
  static constexpr auto arg = ARG;
  using type = Stored;
};
// One number for each column, stored as `Stored`.
template <auto FIELD, auto ARG, class Stored, int STEP = 1, int PLACE = 0>
struct Col {
  static constexpr Role role = Role::col;
  static constexpr auto field = FIELD;
  static constexpr auto arg = ARG;
  static constexpr int step = STEP, place = PLACE;
  using type = Stored;
};
// The number of the column.
template <auto FIELD>
struct Index {
  static constexpr Role role = Role::index;
  static constexpr auto field = FIELD;
};
// What K::columns computes once for each column.
template <auto FIELD>
struct Derived {
  static constexpr Role role = Role::derived;
  static constexpr auto field = FIELD;
};
// The function that computes the derived ones.
template <auto FUNCTION>
struct ColumnLines {
  static constexpr Role role = Role::column_lines;
  static constexpr auto function = FUNCTION;
};
// One number for each row, stored as `Stored`; or, PER_CHANNEL, for each channel, where a channel
// is a run of rows.
template <auto FIELD, auto ARG, class Stored, bool PER_CHANNEL = false>
struct RowLoad {
  static constexpr Role role = Role::row;
  static constexpr auto field = FIELD;
  static constexpr auto arg = ARG;
  static constexpr bool per_channel = PER_CHANNEL;
  using type = Stored;
};
// One element of a row, stored as `Stored`, in the column that a number of the row says: INDEX is
// the argument with these numbers. OF_ROW: whether the operand differs from row to row; otherwise
// it has one number for each column.
template <auto FIELD, auto INDEX, auto ARG, class Stored, bool OF_ROW, auto GAP = nullptr,
          int STEP = 1, int PLACE = 0>
struct Taken {
  static constexpr Role role = Role::taken;
  static constexpr auto field = FIELD;
  static constexpr auto index = INDEX;
  static constexpr auto arg = ARG;
  static constexpr auto gap = GAP;
  static constexpr int step = STEP, place = PLACE;
  static constexpr bool of_row = OF_ROW;
  using type = Stored;
};
// The same of random numbers.
template <auto FIELD, auto INDEX, uint32_t STREAM, class Stored, bool OF_ROW>
struct TakenRng {
  static constexpr Role role = Role::taken;
  static constexpr auto field = FIELD;
  static constexpr auto index = INDEX;
  static constexpr auto arg = nullptr;
  static constexpr uint32_t stream = STREAM;
  static constexpr bool of_row = OF_ROW;
  using type = Stored;
};
// One number for all elements, stored as `Stored`.
template <auto FIELD, auto ARG, class Stored>
struct Scalar {
  static constexpr Role role = Role::scalar;
  static constexpr auto field = FIELD;
  static constexpr auto arg = ARG;
  using type = Stored;
};
// A number that the call passes: an attribute, or an extent such as the number of columns.
template <auto FIELD, auto ARG>
struct Number {
  static constexpr Role role = Role::number;
  static constexpr auto field = FIELD;
  static constexpr auto arg = ARG;
};
// The function that computes further ones, once per call.
template <auto FUNCTION>
struct ScalarLines {
  static constexpr Role role = Role::scalar_lines;
  static constexpr auto function = FUNCTION;
};

}  // namespace fusegen
