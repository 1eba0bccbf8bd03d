// What a thread keeps of a row that stays in its team's registers: how many accesses, and whether
// the team takes only one row.
#pragma once

#include <algorithm>
#include <type_traits>

#include "fusegen/forms/launch.h"

namespace fusegen {

// Threads of a full block. Single elements need an address and a test each, and doubles need two
// registers per value. In these cases, and if a thread has many elements, it gets 128 registers
// instead of 64.
template <class S, int V>
constexpr int full_block(int elements) {
  return V == 1 || sizeof(S) == 8 || elements > 16 ? 512 : 1024;
}

// How many elements a thread of a full block keeps, if an element needs `bytes` of registers. It is
// a power of two, small enough that they take up to half of the thread's registers, or three
// eighths of 128.
template <class S, int V>
constexpr int live_elements(double bytes, int most) {
  int elements = V == 1 || sizeof(S) == 8 ? std::min(most / 2, 8) : most;
  const double room = full_block<S, V>(most) == 512 && V > 1 && sizeof(S) < 8 ? 192 : 128;
  while (elements > V && elements * bytes > room) elements /= 2;
  return elements;
}

// Accesses per thread if one warp has the whole row. For 16-bit types it is twice as many, because
// a block has only 256 threads. Twice as many of a wider type would leave too few threads on the
// chip.
template <class S, int V>
constexpr int warp_items(int held) {
  return V > 1 && sizeof(S) == 2 ? 2 * held : held;
}

// Accesses per thread in a cluster. The exchange between blocks takes registers that wide types
// lack. But if an element needs few registers, more accesses make the exchange rarer.
template <class S, int V>
constexpr int cluster_items(double bytes, int held) {
  const int usual = sizeof(S) == 4 && held > 1 ? held / 2 : held;
  if (V == 1 || sizeof(S) == 8) return usual;
  int least = 2 * held;
  while (least > usual && least * V * bytes > 64) least /= 2;
  return least;
}

// As a number of waves, this means one block per row.
constexpr int each_row = 1024;

// How many elements of a row a thread must keep if no other row is in flight. For 16-bit types it
// is twice as many: four blocks of 256 threads then share a multiprocessor, instead of two of 512,
// and fewer threads wait for each other.
template <class S>
constexpr int elements_of_one_row(int most) {
  return sizeof(S) == 2 ? 2 * most : most;
}

// Whether a thread has registers for `sums` column sums per column, beside `bytes` for each
// element. Together they may take half of 64 registers; of 128, the sums may take 32.
constexpr bool has_live_sums(int threads, int blocks, int elements, int sums, double bytes) {
  if (sums == 0) return false;
  if (threads * blocks <= 512) return elements * sums <= 32;
  return elements * (bytes + sizeof(float) * sums) <= 128;
}

// What a thread keeps of a kernel's row. `Kernel` has the launch parameters and says what an
// element needs (forms/launch.h):
//   between     how many inputs and values are live between two stages
//   beside      whether that is more than what is stored
//   recomputed  whether that takes little time to compute
//   sums        how many sums of its columns registers may hold
//   rows_apart  whether a block may take one row alone, because rows share no state
template <class Kernel>
struct ResidentRow {
  template <class S>
  static constexpr int most =
      sizeof(S) == 2 && Kernel::elements_narrow > 0 ? Kernel::elements_narrow : Kernel::elements;

  // The most bytes of registers that an element needs between two stages.
  template <class S>
  static constexpr double bytes_of() {
    return live_bytes<S>(typename Kernel::between{});
  }

  // Whether a block takes one row alone, and no thread copies a next row ahead. While the block
  // reduces, the other blocks on its multiprocessor load. Each thread must keep enough of the row;
  // for 16-bit types it must keep nothing but what is stored.
  template <class S, int V>
  static constexpr bool single() {
    if (!Kernel::rows_apart || Kernel::waves < each_row) return false;
    if (V == 1 || sizeof(S) != 2) return true;
    const int elements = elements_of_one_row<S>(most<S>);
    return !Kernel::beside && elements * bytes_of<S>() <= 128;
  }

  // How many blocks of 512 such threads a multiprocessor has registers for: three if a row takes 16
  // of a thread's 40.
  template <class S, int V>
  static constexpr int single_blocks() {
    const double bytes = block_items<S, V>() * V * bytes_of<S>();
    const bool few = V > 1 && sizeof(S) < 8 && !Kernel::beside && bytes <= 64;
    return few ? std::max(3, blocks<S, V>()) : blocks<S, V>();
  }

  // Accesses per thread if a row is in a warp, in a block, or in a cluster.
  template <class S, int V>
  static constexpr int items() {
    return live_elements<S, V>(bytes_of<S>(), most<S>) / V;
  }
  template <class S, int V>
  static constexpr int warp_items() {
    return fusegen::warp_items<S, V>(Kernel::sums > 1 ? summing_items<S, V>() : items<S, V>());
  }
  template <class S, int V>
  static constexpr int block_items() {
    const bool more = V > 1 && sizeof(S) == 2 && single<S, V>();
    return more ? elements_of_one_row<S>(most<S>) / V : summing_items<S, V>();
  }
  // In a large block. If sums left only one access to each thread, it takes as many as without
  // them.
  template <class S, int V>
  static constexpr int large_items() {
    return Kernel::sums && summing_items<S, V>() < 2 ? items<S, V>() : block_items<S, V>();
  }
  template <class S, int V>
  static constexpr int cluster_items() {
    return fusegen::cluster_items<S, V>(bytes_of<S>(), items<S, V>());
  }

  // Accesses that leave registers for the sums of their columns, if two blocks of 512 threads share
  // a multiprocessor. Fewer accesses are well worth it, except in 16-bit types with costly
  // functions.
  template <class S, int V>
  static constexpr int summing_items() {
    constexpr int all = items<S, V>();
    if (V == 1 || sizeof(S) == 8 || blocks<S, V>() < 2) return all;
    if (Kernel::sums == 0 || (sizeof(S) == 2 && !Kernel::recomputed)) return all;
    const double bytes = bytes_of<S>();
    int some = all;
    while (some > 1 && !has_live_sums(512, 2, some * V, Kernel::sums, bytes)) some /= 2;
    return has_live_sums(512, 2, some * V, Kernel::sums, bytes) ? some : all;
  }

  // Whether the column sums of `ITEMS` accesses stay in registers.
  template <class S, int V, int THREADS, int BLOCKS, int ITEMS>
  using HasLiveSums =
      std::bool_constant<has_live_sums(THREADS, BLOCKS, ITEMS* V, Kernel::sums, bytes_of<S>())>;

  // Threads of a full block.
  template <class S, int V>
  static constexpr int threads() {
    return std::min(Kernel::full, full_block<S, V>(most<S>));
  }

  // How many blocks of 512 threads a multiprocessor has registers for.
  template <class S, int V>
  static constexpr int blocks() {
    if (V == 1 || sizeof(S) == 8) return 1;
    return sizeof(S) == 2 ? Kernel::resident_narrow : Kernel::resident;
  }
};

}  // namespace fusegen
