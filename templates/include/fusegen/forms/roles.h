// What an item of a description says.
#pragma once

namespace fusegen {

// What an item says: of inputs, of what a stage does, and of results that no stage writes.
enum class Role {
  full,
  rng,
  spread,
  col,
  index,
  derived,
  column_lines,
  row,
  taken,
  scalar,
  number,
  scalar_lines,
  row_lines,
  after,
  uses,
  uses_columns,
  read,
  keep,
  provisional,
  shifted,
  rescaled,
  joined,
  centred,
  sum,
  largest,
  store,
  col_sum,
  run_sum,
  total,
  row_store,
  row_sum,
  row_total,
  col_store,
  known_total,
  final_lines,
  final
};

// Fields of a struct.
template <auto... FIELDS>
struct Fields {};

}  // namespace fusegen
