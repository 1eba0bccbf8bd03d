// What the GPU's forms share: a kernel's tensors, and vectors of an element's inputs.
#pragma once

#include "fusegen/anywhere.cuh"
#include "fusegen/cuda.cuh"
#include "fusegen/forms/gpu_alternating.cuh"
#include "fusegen/forms/launch.h"
#include "fusegen/forms/parts.h"

namespace fusegen {
namespace {

// How many sums or maxima one exchange reduces. More of them would cost registers.
constexpr int jointly = 4;

// Reads V neighbouring elements, by a policy if the kernel has one.
template <class L, int V, class S>
__device__ __forceinline__ Packed<S, V> read(const S* from, [[maybe_unused]] uint64_t policy) {
  if constexpr (L::by_policy)
    return load_packed<V>(from, policy);
  else
    return load_packed<V>(from);
}

// What the GPU's forms know of a kernel with description D over tensors stored as S.
template <class D, class S>
struct GpuParts : Parts<D, S> {
  using P = Parts<D, S>;
  using Stored = S;
  using typename P::Args;
  using typename P::Fulls;
  using typename P::Inputs;
  using typename P::K;
  using typename P::RowSums;
  using typename P::RunSums;
  using typename P::Stores;
  using typename P::T;
  using typename P::Totals;

  using Cols = Only<Inputs, Role::col>;
  using Indices = Only<Inputs, Role::index>;
  static constexpr bool derives = Only<Inputs, Role::column_lines>::size > 0;
  using ColumnSums = decltype(typename P::ColSums{} + RunSums{});
  // The sums over the grid of which blocks leave parts. Sums of columns come first.
  using Partials = decltype(ColumnSums{} + RowSums{} + Totals{});
  using Partial = Pointers<T, Partials::size>;

  // The part of a sum that blocks leave.
  template <class Item>
  static __device__ __forceinline__ T* part(const Partial& partial) {
    return partial[place_of<Item, Partials>];
  }

  // Pointers to the results with a number for each element.
  static __device__ __forceinline__ auto results(const Args& args) {
    Pointers<S, Stores::size> found;
    each(Stores{}, [&](auto item, auto n) { found.to[n] = pointer<S, decltype(item)::arg>(args); });
    return found;
  }
  // How far the gaps before row r put each tensor, computed once per row; and only once for two
  // halves of a tensor.
  template <class Items>
  struct Gaps {
    int64_t before[Items::size + 1];
    __device__ __forceinline__ Gaps(const Args& args, int64_t r) {
      each(Items{}, [&](auto item, auto n) {
        using Item = decltype(item);
        constexpr int same = same_gap<Item>(Items{});
        if constexpr (!has_gap<Item>)
          before[n] = 0;
        else if constexpr (same < decltype(n)::value)
          before[n] = before[same];
        else
          before[n] = gap_before_row(args.*Item::gap, r);
      });
    }
  };
  // Pointers to element `at` of each tensor, counted without gaps; r is its row. There is one
  // pointer per tensor, so each access costs one addition.
  template <class Items>
  struct Starts {
    S* to[Items::size + 1];
    __device__ __forceinline__ Starts(const Args& args, int64_t r, int64_t at) {
      const Gaps<Items> gaps(args, r);
      each(Items{}, [&](auto item, auto n) {
        using Item = decltype(item);
        to[n] =
            const_cast<S*>(pointer<S, Item::arg>(args)) + opaque(gaps.before[n] + Item::step * at);
      });
    }
  };

  // The next functions do something with a vector of each tensor. They are shared by all kernels of
  // a description, which a lambda in each kernel would not be.

  // Reads vectors, `offset` elements after some pointers.
  template <class L, int V, class Offset>
  static __device__ __forceinline__ void read_all(Packed<S, V>* packed, S* const* from,
                                                  Offset offset, uint64_t policy) {
    each(Fulls{}, [&](auto item, auto n) {
      const S* const start = from[n];
      packed[n] = read<L, V>(start + vector_of<decltype(item), V>(offset), policy);
    });
  }
  // The same wherever they begin; the first `valid` elements exist.
  template <class L, int V>
  static __device__ __forceinline__ void read_anywhere(Packed<S, V>* packed, S* const* from,
                                                       int offset, int valid, uint64_t policy) {
    each(Fulls{}, [&](auto, auto n) {
      packed[n] = load_anywhere<V>(static_cast<const S*>(from[n]) + offset, valid,
                                   [&](const S* piece) { return read<L, V>(piece, policy); });
    });
  }
  // Those that some stages use.
  template <class L, class Stages, int V>
  static __device__ __forceinline__ void read_used(Packed<S, V>* packed, S* const* from,
                                                   int64_t offset, uint64_t policy) {
    each(Fulls{}, [&](auto item, auto n) {
      using Item = decltype(item);
      const S* const start = from[n];
      if constexpr (needs<Stages, Item>(Fulls{}))
        packed[n] = read<L, V>(start + vector_of<Item, V>(offset), policy);
    });
  }
  // Copies vectors to shared memory, and takes them from there. A tensor that is broadcast goes
  // through the L1 cache: all blocks would read the same few lines of the L2 cache at a time.
  template <int V, class Offset>
  static __device__ __forceinline__ void copy_all([[maybe_unused]] const Args& args,
                                                  Packed<S, V>* const* to, int place,
                                                  S* const* from, Offset offset, uint64_t policy) {
    each(Fulls{}, [&](auto item, auto n) {
      using Item = decltype(item);
      const S* const start = from[n] + vector_of<Item, V>(offset);
      if constexpr (has_gap<Item>)
        copy_ahead(to[n] + place, start, policy, (args.*Item::gap).broadcast);
      else
        copy_ahead(to[n] + place, start, policy);
    });
  }
  template <int V>
  static __device__ __forceinline__ void take_all(Packed<S, V>* packed, Packed<S, V>* const* from,
                                                  int place) {
#pragma unroll
    for (int n = 0; n < Fulls::size; ++n) packed[n] = from[n][place];
  }
  // Makes the compiler forget what it knows of the vectors that a stage reads.
  template <class Stage, int V>
  static __device__ __forceinline__ void forget_used(Packed<S, V>* packed) {
    each(Fulls{}, [&](auto item, auto n) {
      if constexpr (needs<Stage, decltype(item)>(Fulls{})) forget(packed[n]);
    });
  }
  // Computes what a stage computes once for a row.
  template <class Stage>
  static __device__ __forceinline__ void begin_stage(const typename K::Scalar& scalar,
                                                     typename K::Row& row) {
    each(Only<Stage, Role::row_lines>{}, [&](auto lines, auto) { lines.function(scalar, row); });
  }

  // Runs the stages of a kernel that reduces nothing over a row, on one element.
  static __device__ __forceinline__ void run_stages(const typename K::Full& full,
                                                    const typename K::Col& col,
                                                    const typename K::Row& row,
                                                    const typename K::Scalar& scalar,
                                                    typename K::Out& out) {
    typename K::Live live;
    each(StagesOf<D>{}, [&](auto stage, auto) {
      if constexpr (decltype(stage)::has_elements) stage.element(full, col, row, scalar, live, out);
    });
  }

  // Fills `full` with what elements read: packed inputs, random numbers of index `at`, and channel
  // values of column c, which belongs to `channel`. WHOLE: all V columns belong to one channel.
  // Stage: what reads them, one or several stages. ANYWHERE: `at` and c need not be multiples of V,
  // and only the first `valid` columns need exist.
  template <class Stage, bool WHOLE = false, bool ANYWHERE = false, int V, class Index>
  static __device__ __forceinline__ void unpack_full(const Args& args, typename K::Full (&full)[V],
                                                     const Packed<S, V>* packed, int64_t at,
                                                     int channel, Index c, int valid = V) {
    unpack_inputs<Stage, ANYWHERE>(args, full, packed, at);
    if constexpr (P::Spreads::size > 0) {
      // All are found before any is used: the compiler then finds their places once.
      Vector<T, V> spread[P::Spreads::size];
      each(typename P::Spreads{}, [&](auto item, auto n) {
        using Item = decltype(item);
        if constexpr (uses<Stage, Item>)
          spread[n] =
              spread_vector<V, WHOLE, ANYWHERE>(pointer<typename Item::type, Item::arg>(args),
                                                channel, c, Index(run_length<Item>(args)), valid);
      });
      each(typename P::Spreads{}, [&](auto item, auto n) {
        if constexpr (uses<Stage, decltype(item)>) {
#pragma unroll
          for (int v = 0; v < V; ++v) full[v].*item.field = spread[n].value[v];
        }
      });
    }
  }
  // The same without channel values.
  template <class Stage, bool ANYWHERE = false, int V>
  static __device__ __forceinline__ void unpack_inputs(const Args& args,
                                                       typename K::Full (&full)[V],
                                                       const Packed<S, V>* packed, int64_t at) {
    each(Fulls{}, [&](auto item, auto n) {
      if constexpr (uses<Stage, decltype(item)>) {
        const Vector<T, V> values = unpack(sorted<decltype(item), n>(packed));
#pragma unroll
        for (int v = 0; v < V; ++v) full[v].*item.field = values.value[v];
      }
    });
    if constexpr (P::Rngs::size > 0) {
      each(typename P::Rngs{}, [&](auto item, auto) {
        if constexpr (uses<Stage, decltype(item)>) {
          constexpr int drawn = ANYWHERE ? 1 : V;
#pragma unroll
          for (int first = 0; first < V; first += drawn) {
            const auto values =
                draw_vector<T, drawn>(seed_for<decltype(item)>(args), item.stream, at + first);
#pragma unroll
            for (int v = 0; v < drawn; ++v) full[first + v].*item.field = values.value[v];
          }
        }
      });
    }
  }

  // The elements of item N of those that are read.
  template <class Item, int N, int V>
  static __device__ __forceinline__ Packed<S, V> sorted(const Packed<S, V>* packed) {
    if constexpr (alternates<Item>) {
      constexpr int other = neighbour<Item>(Fulls{});
      static_assert(other < Fulls::size, "both of two items that alternate are read");
      return alternating_of<Item::place>(packed[Item::place ? other : N],
                                         packed[Item::place ? N : other]);
    } else {
      return packed[N];
    }
  }

  // Fills `col` with the operands of the columns from c on, and with what is derived of them.
  template <int V>
  static __device__ __forceinline__ void load_cols(const Args& args,
                                                   const typename K::Scalar& scalar,
                                                   typename K::Col (&col)[V], int64_t c) {
    each(Cols{}, [&](auto item, auto) {
      using Item = decltype(item);
      const auto values =
          unpack(load_columns<Item, V>(pointer<typename Item::type, Item::arg>(args), c));
#pragma unroll
      for (int v = 0; v < V; ++v) col[v].*item.field = values.value[v];
    });
    derive_cols(scalar, col, c);
  }
  // The same for the first `valid` of V columns.
  template <int V>
  static __device__ __forceinline__ void load_some_cols(const Args& args,
                                                        const typename K::Scalar& scalar,
                                                        typename K::Col (&col)[V], int c,
                                                        int valid) {
    each(Cols{}, [&](auto item, auto) {
      using Item = decltype(item);
      const auto* const from = pointer<typename Item::type, Item::arg>(args) + c;
      if (valid >= V && reinterpret_cast<uintptr_t>(from) % 16 == 0) {
        const auto values = load_vector<V>(from);
#pragma unroll
        for (int v = 0; v < V; ++v) col[v].*item.field = values.value[v];
      } else {
#pragma unroll
        for (int v = 0; v < V; ++v) {
          if (v < valid) col[v].*item.field = load(from + v);
        }
      }
    });
    derive_cols(scalar, col, c);
  }
  // The operands of V columns, as they are stored, if they stay in registers.
  template <int V>
  struct PackedColumn {
    template <class Item>
    using of = Packed<typename Item::type, V>;
  };
  template <int V>
  struct PackedCols : Slots<PackedColumn<V>, Cols> {};
  // Loads those of the columns from c on.
  template <int V>
  static __device__ __forceinline__ void load_packed_cols(const Args& args, PackedCols<V>& packed,
                                                          int64_t c) {
    each(Cols{}, [&](auto item, auto) {
      using Item = decltype(item);
      packed.template of<Item>() =
          load_columns<Item, V>(pointer<typename Item::type, Item::arg>(args), c);
    });
  }
  // Fills `col` from them. The compiler should not keep them unpacked too.
  template <int V>
  static __device__ __forceinline__ void unpack_cols(const typename K::Scalar& scalar,
                                                     typename K::Col (&col)[V],
                                                     PackedCols<V>& packed, int64_t c) {
    each(Cols{}, [&](auto item, auto) {
      auto& pack = packed.template of<decltype(item)>();
      forget(pack);
      const auto values = unpack(pack);
#pragma unroll
      for (int v = 0; v < V; ++v) col[v].*item.field = values.value[v];
    });
    derive_cols(scalar, col, c);
  }
  // What follows from the operands and the numbers of columns.
  template <int V>
  static __device__ __forceinline__ void derive_cols(const typename K::Scalar& scalar,
                                                     typename K::Col (&col)[V], int64_t c) {
    if constexpr (Indices::size > 0) {
      each(Indices{}, [&](auto item, auto) {
        const T first = T(c);
#pragma unroll
        for (int v = 0; v < V; ++v) col[v].*item.field = first + T(v);
      });
    }
    if constexpr (derives) {
#pragma unroll
      for (int v = 0; v < V; ++v) P::derive(scalar, col[v]);
    }
  }

  // Whether the columns of two items alternate.
  static constexpr bool alternating = any_alternates(Fulls{}) || any_alternates(Stores{});
  // Whether rows may begin between two accesses of V elements. Nothing must belong to columns, or
  // alternate.
  template <int V>
  static constexpr bool has_edges = V > 1 && Cols::size + P::ColSums::size == 0 && !alternating;
  // Whether every tensor of elements and of columns can be read in vectors of `width` elements.
  // EDGES: wherever rows begin.
  template <bool EDGES = false>
  static bool vectorisable(const Args& args, int width) {
    bool can = EDGES || args.cols % width == 0;
    const auto check = [&](auto item, size_t size) {
      can = can && aligned(args.*decltype(item)::arg, width * size);
    };
    each(Fulls{}, [&](auto item, auto) { check(item, sizeof(S)); });
    each(Cols{}, [&](auto item, auto) { check(item, sizeof(typename decltype(item)::type)); });
    each(Stores{}, [&](auto item, auto) { check(item, sizeof(S)); });
    return can && even(args, width);
  }
  // Whether gaps leave all vectors of `width` elements aligned.
  static bool even(const Args& args, int width) {
    bool can = true;
    const auto check = [&](auto item, auto) {
      if constexpr (has_gap<decltype(item)>)
        for (const uint32_t extra : (args.*item.gap).extra) can = can && extra % width == 0;
    };
    each(Fulls{}, check);
    each(Stores{}, check);
    return can;
  }
};

}  // namespace
}  // namespace fusegen
