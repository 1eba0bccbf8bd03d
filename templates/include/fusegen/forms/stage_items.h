// Items of a description: what a stage does. ELEMENT is its function in element.h, or nullptr where
// it computes values of rows alone.
#pragma once

#include "fusegen/forms/roles.h"

namespace fusegen {

// The function that computes values of the row before the stage begins, and the values.
template <auto FUNCTION, auto... FIELDS>
struct RowLines {
  static constexpr Role role = Role::row_lines;
  static constexpr auto function = FUNCTION;
  using fields = Fields<FIELDS...>;
};
// An earlier stage whose live values this one computes again, if the form does not keep them.
template <auto FUNCTION>
struct After {
  static constexpr Role role = Role::after;
  static constexpr auto function = FUNCTION;
};
// An input of each element that the stage reads: for itself, or only to compute those live values
// again.
template <auto FIELD>
struct Uses {
  static constexpr Role role = Role::uses;
};
template <auto FIELD>
struct UsesAgain {
  static constexpr Role role = Role::uses;
};
// Said of a stage that reads operands of columns.
struct UsesColumns {
  static constexpr Role role = Role::uses_columns;
};
// A live value of an earlier stage that it reads, or one that it leaves for later stages.
template <auto FIELD>
struct Read {
  static constexpr Role role = Role::read;
  static constexpr auto field = FIELD;
};
template <auto FIELD>
struct Keep {
  static constexpr Role role = Role::keep;
  static constexpr auto field = FIELD;
};
// A sum or maximum over the row.
template <auto OUT, auto ROW>
struct Sum {
  static constexpr Role role = Role::sum;
  static constexpr auto out = OUT;
  static constexpr auto row = ROW;
};
template <auto OUT, auto ROW>
struct Largest {
  static constexpr Role role = Role::largest;
  static constexpr auto out = OUT;
  static constexpr auto row = ROW;
};
// A result with one number for each element. STEP, PLACE: see input_items.h.
template <auto OUT, auto ARG, auto GAP = nullptr, int STEP = 1, int PLACE = 0>
struct Store {
  static constexpr Role role = Role::store;
  static constexpr auto out = OUT;
  static constexpr auto arg = ARG;
  static constexpr auto gap = GAP;
  static constexpr int step = STEP, place = PLACE;
};

// The maximum that the stage finds may be that of some of the row's elements: the next stage's sums
// are relative to it, and both are joined to those of the row together.
struct Provisional {
  static constexpr Role role = Role::provisional;
};
// ROW: the provisional maximum that the stage's sums are relative to.
template <auto ROW>
struct Shifted {
  static constexpr Role role = Role::shifted;
  static constexpr auto row = ROW;
};
// A live value relative to that maximum, which this stage is the first to read again.
template <auto FIELD>
struct Rescaled {
  static constexpr Role role = Role::rescaled;
  static constexpr auto field = FIELD;
};

// A form that streams a row may find the stage's sum, S, together with that of the next stage,
// which is of the squares of what is summed less its mean, S / cols.
struct Joined {
  static constexpr Role role = Role::joined;
};
// Said of that next stage.
struct Centred {
  static constexpr Role role = Role::centred;
};

}  // namespace fusegen
