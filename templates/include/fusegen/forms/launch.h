// What a package says of a kernel for the GPU alone: launch parameters, and what its loops keep and
// how they read. fusegen/lower/kernel/launch.py and gpu_form.py choose these.
#pragma once

#include <algorithm>

#include "fusegen/storage.h"
#include "fusegen/forms/lists.h"

namespace fusegen {

// The inputs and the computed values of an element that are live between two stages.
template <int STORED, int COMPUTED>
struct Between {
  static constexpr int stored = STORED;
  static constexpr int computed = COMPUTED;
};

// What a kernel's launch has unless its package says otherwise.
struct Launch {
  using between = List<>;
  static constexpr bool by_policy = false;     // whether loads use an L2 cache policy
  static constexpr bool rows_apart = false;    // whether threads may take just one row
  static constexpr bool live_columns = false;  // whether operands of columns stay in registers
  static constexpr int elements_narrow = 0;    // elements of 16 bits in a thread; 0: elements
  static constexpr int sums = 0;               // column sums that registers may hold
  static constexpr bool beside = false;        // whether an element needs more than is stored
  static constexpr bool recomputed = false;    // whether that takes little time to compute
  static constexpr bool reads_once = false;    // whether a single stage reads a row
  static constexpr bool reduces = false;       // whether the threads of a row combine anything
  static constexpr bool staged = false;        // whether long rows stay in shared memory
  static constexpr int staged_items = 0;       // most accesses of a thread there; 0: any number
};

// The most bytes of registers that an element needs between two stages, if a thread reads one
// element of an input in `least` bytes or more.
template <class S, class... Betweens>
constexpr double live_bytes(List<Betweens...>, double least = sizeof(S)) {
  double most = 0;
  ((most = std::max(most, Betweens::stored * std::max<double>(sizeof(S), least) +
                              Betweens::computed * double(sizeof(compute_t<S>)))),
   ...);
  return most;
}

}  // namespace fusegen
