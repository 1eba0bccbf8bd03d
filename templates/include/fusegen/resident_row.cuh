// What a thread holds of a row where the registers of its team do: how many accesses, and whether
// the team takes one row alone.
#pragma once

#include <algorithm>
#include <type_traits>

namespace fusegen {

// Threads of a full block. Single elements need an address and a test each, doubles two registers a
// value: there a thread gets 128 registers, not 64, as it does where it is to hold many elements.
template <class S, int V>
constexpr int full_block(int elements) {
  return V == 1 || sizeof(S) == 8 || elements > 16 ? 512 : 1024;
}

// Elements that a thread of a full block holds where an element needs `bytes` of registers: a power
// of two, so that they take up to half of its registers, or three eighths of 128.
template <class S, int V>
constexpr int live_elements(double bytes, int most) {
  int elements = V == 1 || sizeof(S) == 8 ? std::min(most / 2, 8) : most;
  const double room = full_block<S, V>(most) == 512 && V > 1 && sizeof(S) < 8 ? 192 : 128;
  while (elements > V && elements * bytes > room) elements /= 2;
  return elements;
}

// Accesses that a thread holds where one warp has the whole row: twice as many, for there are only
// 256 threads in a block, but not of a wide type's, which would leave too few threads on the chip.
template <class S, int V>
constexpr int warp_items(int held) {
  return V > 1 && sizeof(S) == 2 ? 2 * held : held;
}

// Accesses that a thread of a cluster holds: its exchange takes registers that wide types lack, but
// where an element needs few, more of them make the exchange rarer.
template <class S, int V>
constexpr int cluster_items(double bytes, int held) {
  const int usual = sizeof(S) == 4 && held > 1 ? held / 2 : held;
  if (V == 1 || sizeof(S) == 8) return usual;
  int light = 2 * held;
  while (light > usual && light * V * bytes > 64) light /= 2;
  return light;
}

// So many waves of blocks are one block for each row.
constexpr int each_row = 1024;

// Elements of a row that a thread must hold where no other row is under way: of 16-bit types twice
// as many, so that four blocks of 256 threads share a multiprocessor where two of 512 would, and
// fewer threads wait for each other.
template <class S>
constexpr int elements_of_one_row(int most) {
  return sizeof(S) == 2 ? 2 * most : most;
}

// Whether a thread has registers for `sums` of each column that it holds of a row, beside `bytes`
// of each element: half of 64 in all, or, of 128, 32.
constexpr bool has_live_sums(int threads, int blocks, int elements, int sums, double bytes) {
  if (sums == 0) return false;
  if (threads * blocks <= 512) return elements * sums <= 32;
  return elements * (bytes + sizeof(float) * sums) <= 128;
}

// What a thread holds of a row of a kernel. `Kernel` has the launch parameters, and says what an
// element needs: `bytes<S>()` of registers between two stages at most, `beside`, whether that is
// more than what is stored; `light`, whether that is soon computed; `sums`, how many sums of its
// columns registers may hold; and `singly`, whether rows share no state.
template <class Kernel>
struct ResidentRow {
  // Whether a block takes one row alone and no thread copies a next one ahead: while it reduces,
  // the other blocks on its multiprocessor load. It must hold enough of it, of 16-bit types nothing
  // beside what is stored.
  template <class S, int V>
  static constexpr bool single() {
    if (!Kernel::singly || Kernel::waves < each_row) return false;
    if (V == 1 || sizeof(S) != 2) return true;
    const int elements = elements_of_one_row<S>(Kernel::elements);
    return !Kernel::beside && elements * Kernel::template bytes<S>() <= 128;
  }

  // Blocks of 512 such threads that a multiprocessor has registers for: three where a row takes 16
  // of 40.
  template <class S, int V>
  static constexpr int resident_single() {
    const double bytes = block_items<S, V>() * V * Kernel::template bytes<S>();
    const bool few = V > 1 && sizeof(S) < 8 && !Kernel::beside && bytes <= 64;
    return few ? std::max(3, resident<S, V>()) : resident<S, V>();
  }

  // Accesses that a thread holds of a row in a warp, in a block, in a cluster.
  template <class S, int V>
  static constexpr int items() {
    return live_elements<S, V>(Kernel::template bytes<S>(), Kernel::elements) / V;
  }
  template <class S, int V>
  static constexpr int warp_items() {
    return fusegen::warp_items<S, V>(Kernel::sums > 1 ? summing_items<S, V>() : items<S, V>());
  }
  template <class S, int V>
  static constexpr int block_items() {
    const bool more = V > 1 && sizeof(S) == 2 && single<S, V>();
    return more ? elements_of_one_row<S>(Kernel::elements) / V : summing_items<S, V>();
  }
  // In a large block: where sums would leave one access to each thread, as many as without them.
  template <class S, int V>
  static constexpr int large_items() {
    return Kernel::sums && summing_items<S, V>() < 2 ? items<S, V>() : block_items<S, V>();
  }
  template <class S, int V>
  static constexpr int cluster_items() {
    return fusegen::cluster_items<S, V>(Kernel::template bytes<S>(), items<S, V>());
  }

  // Accesses that leave registers for the sums of their columns, where two blocks of 512 threads
  // share a multiprocessor: fewer, which makes up for it by far, but not where functions of 16-bit
  // types are called.
  template <class S, int V>
  static constexpr int summing_items() {
    constexpr int all = items<S, V>();
    if (V == 1 || sizeof(S) == 8 || resident<S, V>() < 2) return all;
    if (Kernel::sums == 0 || (sizeof(S) == 2 && !Kernel::light)) return all;
    const double bytes = Kernel::template bytes<S>();
    int some = all;
    while (some > 1 && !has_live_sums(512, 2, some * V, Kernel::sums, bytes)) some /= 2;
    return has_live_sums(512, 2, some * V, Kernel::sums, bytes) ? some : all;
  }

  // Whether the sums of the columns of so many accesses are in registers.
  template <class S, int V, int THREADS, int BLOCKS, int ITEMS>
  using HasLiveSums = std::bool_constant<has_live_sums(THREADS, BLOCKS, ITEMS* V, Kernel::sums,
                                                       Kernel::template bytes<S>())>;

  // Threads of a full block.
  template <class S, int V>
  static constexpr int threads() {
    return std::min(Kernel::full, full_block<S, V>(Kernel::elements));
  }

  // Blocks of 512 threads that a multiprocessor has registers for.
  template <class S, int V>
  static constexpr int resident() {
    if (V == 1 || sizeof(S) == 8) return 1;
    return sizeof(S) == 2 ? Kernel::resident_narrow : Kernel::resident;
  }
};

}  // namespace fusegen
