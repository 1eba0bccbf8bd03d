// Rows too long to stay on the chip whose columns have operands or sums, on the GPU.
//
// The first pass streams the rows (gpu_streamed.cuh) and keeps what is known of each, a few
// numbers. The second takes columns (gpu_pointwise.cuh): a thread keeps their operands and their
// sums in registers, and walks down the rows. Streamed rows would read the operands, and read and
// write the sums, once for each element. Bound: memory, of which the second pass reads again what
// the first has read.
#pragma once

#include "fusegen/forms/gpu_pointwise.cuh"
#include "fusegen/forms/gpu_streamed.cuh"

namespace fusegen {
namespace {

// The arguments of D's kernel, and where what is known of the rows lies between the passes.
template <class D>
struct TwoPassArgs : D::Args {
  typename D::K::Row* known_rows;
};

// What the first pass does of a stage: all but what elements leave. Behind the last stage that
// reduces something, only what is computed once for a row.
template <class Item>
constexpr bool is_left_by_elements =
    Item::role == Role::store || Item::role == Role::col_sum || Item::role == Role::total;

template <auto ELEMENT, class... Items>
constexpr Stage<ELEMENT, Items...> stage_with(List<Items...>) {
  return {};
}
template <bool REDUCING, auto ELEMENT, class... Items>
constexpr auto of_first_pass(Stage<ELEMENT, Items...>) {
  if constexpr (REDUCING)
    return stage_with<ELEMENT>(
        (List<>{} + ... + std::conditional_t<is_left_by_elements<Items>, List<>, List<Items>>{}));
  else
    return stage_with<nullptr>(
        (List<>{} + ... +
         std::conditional_t<Items::role == Role::row_lines, List<Items>, List<>>{}));
}
template <class... Stages, int... PLACES>
constexpr auto of_first_pass(List<Stages...> stages, std::integer_sequence<int, PLACES...>) {
  constexpr int last = last_reducing(List<Stages...>{});
  return List<decltype(of_first_pass<(PLACES <= last)>(Stages{}))...>{};
}

// What some stages read of a kernel's inputs.
template <class Input, class... Stages>
constexpr bool is_read(List<Stages...>) {
  constexpr Role role = Input::role;
  if constexpr (role == Role::full)
    return (uses<Stages, Input> || ...);
  else if constexpr (role == Role::col || role == Role::index || role == Role::derived ||
                     role == Role::column_lines)
    return ((Only<Stages, Role::uses_columns>::size > 0) || ...);
  else
    return true;
}
template <class Stages, class... Inputs>
constexpr auto read_by(List<Inputs...>) {
  return (List<>{} + ... + std::conditional_t<is_read<Inputs>(Stages{}), List<Inputs>, List<>>{});
}

template <class D>
struct FirstPass : D {
  using Args = TwoPassArgs<D>;
  using stages = decltype(of_first_pass(typename D::stages{},
                                        std::make_integer_sequence<int, D::stages::size>{}));
  using inputs = decltype(read_by<stages>(typename D::inputs{}));
  static constexpr bool keeps_rows = true;
};
template <class D>
struct SecondPass : D {
  using Args = TwoPassArgs<D>;
  static constexpr bool knows_rows = true;
};

// How the second pass is launched.
template <class L>
struct SecondLaunch : L {
  static constexpr int access = 16, rows_in_flight = 2;
  static constexpr int tiles = 64, threads_across = 256, block = 256;
  static constexpr int waves = 2, batches = 2;
};

template <class D, class L, class S>
struct TwoPasses {
  using Args = typename D::Args;
  using P = GpuParts<D, S>;
  using Columns = Pointwise<SecondPass<D>, SecondLaunch<L>, S>;
  using Resident = ResidentRow<L>;

  // Whether a kernel may take its rows in two passes. Sums over values of rows belong to the first
  // pass, and sums over elements to the second.
  static constexpr bool serves = L::reduces && !L::reads_once &&
                                 P::Cols::size + P::ColSums::size > 0 &&
                                 P::RunSums::size + P::Spreads::size == 0 && !P::alternating &&
                                 P::RowSums::size + P::RowTotals::size == 0;
  // The same for rows that would be streamed in accesses of `width` elements.
  static constexpr bool serves_width(int width) {
    return serves && (P::ColSums::size > 0 || width == 1);
  }

  static size_t bytes_of_rows(const Args& args) {
    return (args.rows * sizeof(typename D::K::Row) + 15) / 16 * 16;
  }
  static int64_t workspace(const Args& args) {
    return int64_t(bytes_of_rows(args)) + Columns::workspace({args, nullptr});
  }
  static void run(const Args& args, void* workspace, cudaStream_t stream) {
    const TwoPassArgs<D> both{args, static_cast<typename D::K::Row*>(workspace)};
    stream_rows_of(both, stream);
    Columns::run(both, static_cast<char*>(workspace) + bytes_of_rows(args), stream);
  }

 private:
  static constexpr int wide = 16 / sizeof(S), least = 8;
  using FirstParts = GpuParts<FirstPass<D>, S>;

  static void stream_rows_of(const TwoPassArgs<D>& args, cudaStream_t stream) {
    const bool counted = args.cols / wide <= most_accesses;
    const bool by_edges = FirstParts::template has_edges<wide> && counted &&
                          FirstParts::template vectorisable<true>(args, wide);
    const int width = by_edges ? wide : widest<S, least>(16, [&](int width) {
      return counted && FirstParts::vectorisable(args, width);
    });
    RowNeeds needs{};
    needs.rows = args.rows;
    needs.cols = args.cols;
    needs.width = width;
    needs.keeps_long = true;  // all rows are long
    needs.cluster = L::cluster;
    RowPlan plan = stream_rows(needs, most_blocks(needs));
    const uint64_t policy = read_policy(args.rows * args.cols * int64_t(sizeof(S)));
    with_width<S, least, 16>(width, [&](auto width) {
      constexpr int V = decltype(width)::value;
      auto* const kernel =
          streamed<FirstPass<D>, L, S, V, Resident::template blocks<S, V>(), Holders::cluster>;
      while (!place_rows(plan, kernel, args.rows, 1, false, 0))
        plan = stream_rows(needs, std::max(1, plan.cluster / 2));
      return launch_rows(plan, stream, kernel, args, policy, typename FirstParts::Partial{});
    });
  }
};

}  // namespace
}  // namespace fusegen
