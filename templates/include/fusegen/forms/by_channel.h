// Kernels whose rows differ by their channels alone, or whose elements differ by their columns
// alone. If the channels of a place are adjacent in memory, all samples of the former are one
// matrix [places, channels].
#pragma once

#include <cstdint>

#include "fusegen/forms/parts.h"

namespace fusegen {
namespace {

// Whether the numbers that rows load belong to channels.
template <class... Rows>
constexpr bool all_per_channel(List<Rows...>) {
  return (Rows::per_channel && ...);
}
// Whether what is summed over the rows of a channel is a sum over the columns: then the channel's
// sum is one over all its elements.
template <class Sum, class Total>
constexpr bool is_sum_of = std::is_same_v<Member<Sum::row>, Member<Total::value>>;
template <class Total, class... Sums>
constexpr bool is_summed(List<Sums...>) {
  return (is_sum_of<Sums, Total> || ...);
}
template <class Sums, class... Totals>
constexpr bool all_summed(List<Totals...>) {
  return (is_summed<Totals>(Sums{}) && ...);
}
template <class... Stages>
constexpr int stages_of_elements(List<Stages...>) {
  return (0 + ... + int(Stages::has_elements));
}
template <class First, class... Others>
constexpr bool others_compute_nothing(List<First, Others...>) {
  return ((Only<Others, Role::row_lines>::size == 0) && ...);
}
// Whether a row is nothing but some elements of its channel.
template <class D>
constexpr bool differs_by_channel =
    Only<InputsOf<D>, Role::row>::size + Only<ResultsOf<D>, Role::row_sum>::size > 0 &&
    all_per_channel(Only<InputsOf<D>, Role::row>{}) &&
    has_none_of<InputsOf<D>, Role::taken, Role::col, Role::index, Role::spread, Role::derived, Role::column_lines>&& has_none_of<
        FirstStages<D>, Role::largest, Role::col_sum,
        Role::run_sum>&& has_none_of<ResultsOf<D>, Role::row_store,
                                     Role::row_total>&& stages_of_elements(StagesOf<D>{}) == 1 &&
    others_compute_nothing(StagesOf<D>{}) &&
    all_summed<Only<FirstStages<D>, Role::sum>>(Only<ResultsOf<D>, Role::row_sum>{});

// Whether elements differ by their columns alone, and nothing is summed but columns and all.
template <class D>
constexpr bool differs_by_column =
    Only<InputsOf<D>, Role::col>::size + Only<FirstStages<D>, Role::col_sum>::size > 0 &&
    has_none_of<InputsOf<D>, Role::row, Role::taken, Role::spread>&&
        has_none_of<FirstStages<D>, Role::row_lines, Role::sum, Role::largest, Role::run_sum>&&
            has_none_of<ResultsOf<D>, Role::row_store, Role::row_sum, Role::row_total> &&
    !any_alternates(Only<InputsOf<D>, Role::full>{}) &&
    !any_alternates(Only<FirstStages<D>, Role::store>{});

// Whether no tensor of a call has gaps.
template <class D, class Args>
bool has_no_gaps(const Args& args) {
  bool can = true;
  const auto check = [&](auto item, auto) {
    if constexpr (has_gap<decltype(item)>) can = can && (args.*item.gap).none();
  };
  each(Only<InputsOf<D>, Role::full>{}, check);
  each(Only<FirstStages<D>, Role::store>{}, check);
  return can;
}
// Whether the channels of a place are adjacent in a call, and no tensor has gaps.
template <class D, class Args>
bool has_adjacent_channels(const Args& args) {
  if constexpr (!differs_by_channel<D>) {
    return false;
  } else {
    return args.channel_run == 1 && args.inner == args.channels && args.rows > 0 &&
           args.channels < INT32_MAX / 32 && has_no_gaps<D>(args);
  }
}

}  // namespace
}  // namespace fusegen
