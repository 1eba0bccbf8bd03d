// Columns by themselves, on the CPU: results that depend on a column's operands alone, without the
// activation.
//
// Bound: nothing, since there are few columns.
#pragma once

#include "fusegen/forms/cpu_parts.h"

namespace fusegen {
namespace {

// The kernel that D describes, for tensors stored as S.
template <class D, class S>
void columns_of(const typename D::Args& args) {
  using P = Parts<D, S>;
  const auto scalar = P::scalars(args);
  for (int64_t j = 0; j < args.cols; ++j) {
    auto col = P::loaded_column(args, j);
    P::derive(scalar, col);
    each(typename ResultsOf<D>::items{}, [&](auto item, auto) {
      put<decltype(item)>(args, element_of<decltype(item)>(j), member(col, scalar, item.value));
    });
  }
}

template <template <class> class Form, class Args>
void run_columns(DType dtype, const Args& args) {
  with_dtype(dtype,
             [&](auto stored) { columns_of<Form<decltype(stored)>, decltype(stored)>(args); });
}

}  // namespace
}  // namespace fusegen
