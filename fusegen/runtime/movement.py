"""Moves and sums elements on a GPU by kernels that all packages have, as torch's functions of these names do.

torch's own kernels read one element at a time where strides differ. A roll takes a pass for each dim. The
gradient of a tensor's parts is put together, then copied into place. That of a product's bias is summed at
a third of the speed of memory. What is small, or not seen by plain eager alone, is left to torch.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter, functional

from fusegen.runtime.conversion import is_plain_on_gpu

__all__ = [
    "FEW",
    "compacted",
    "linear",
    "offer_movement",
    "parts",
    "parts_by_one_copy",
    "roll",
    "summed",
]

#: The fewest elements for which a kernel is worth it: torch's own are as fast for tensors in a cache.
FEW = 1 << 18
#: What copies a second tensor's elements into a first one of its shape, by the bytes of an element, where a
#: loaded package has it.
_copies: dict[int, Callable[[Tensor, Tensor], None]] = {}
#: What sums the rows of a contiguous matrix, likewise.
_sums: dict[int, Callable[[Tensor], Tensor]] = {}
_is_compiling = torch.compiler.is_compiling


def offer_movement(namespace: Any, dtypes: Iterable[torch.dtype]) -> None:
    """Let models move elements by a package's operators, of sizes that no other package has.

    Args:
        namespace: the operators of a package that was built for CUDA.
        dtypes: those that it was built for.
    """
    if not hasattr(namespace, "copy_into"):
        return  # it was built before there was such an operator
    for dtype in dtypes:
        _copies.setdefault(dtype.itemsize, namespace.copy_into.default)
        _sums.setdefault(dtype.itemsize, namespace.sum_rows.default)


def compacted(x: Tensor) -> Tensor:
    """Return a tensor as it is if it is contiguous, or a contiguous copy."""
    if x.is_contiguous():
        return x
    if not _may_move(x):
        return x.contiguous()
    return _with_gradient(_Compacted, _compact, x)


def roll(x: Tensor, shifts: int | Sequence[int], dims: int | Sequence[int] = ()) -> Tensor:
    """Return a tensor whose elements are shifted along some dims, and come in again at the other end."""
    shifts, dims = _numbers(shifts), _numbers(dims)
    if len(set(dims)) != len(shifts) or len(dims) != len(shifts) or not _may_move(x):
        return torch.roll(x, shifts, dims)
    return _with_gradient(_Rolled, _rolled, x, shifts, dims)


def parts(x: Tensor, sizes: Sequence[int] | None, dim: int) -> tuple[Tensor, ...]:
    """Return the parts of a tensor along a dim, as views. Their gradients are put where the parts lie.

    Args:
        x: the tensor.
        sizes: the size of each part; None for selections, which lack the dim.
        dim: the dim.
    """
    if not (torch.is_grad_enabled() and x.requires_grad and _may_move(x)):
        return _apart(x, sizes, dim)
    found: tuple[Tensor, ...] = _Parts.apply(x, sizes, dim)
    return found


def parts_by_one_copy(x: Tensor, count: int, dim: int) -> tuple[Tensor, ...]:
    """Return equal parts of a tensor along a dim, each contiguous.

    Kernels copy an operand with gaps, in each pass; for a small one a launch costs more than its bytes.
    """
    dim %= x.dim()
    apart: Tensor = x.unflatten(dim, (count, x.shape[dim] // count))
    apart = apart.movedim(dim, 0)
    return tuple(apart.contiguous().unbind(0))


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x times a weight and plus a bias; a kernel sums the gradient of the bias."""
    product = functional.linear
    if bias is None or type(bias) not in (Tensor, Parameter):  # a sharded one, say
        return product(x, weight, bias)
    if not (torch.is_grad_enabled() and bias.requires_grad and _may_move(x)):
        return product(x, weight, bias)
    plain = x.is_contiguous() and type(weight) in (Tensor, Parameter)
    if plain and weight.requires_grad and not torch.is_autocast_enabled(x.device.type):
        return _apply_linear(x, weight, bias)
    found: Tensor = _Biased.apply(product(x, weight, bias.detach()), bias)
    return found


def summed(rows: Tensor) -> Tensor:
    """Return the sum of some rows, the gradient of a bias; a kernel computes it."""
    if torch.is_grad_enabled() or not _may_move(rows):
        return rows.sum(0)
    return _sums[rows.itemsize](_compact(rows))


class _Compacted(torch.autograd.Function):
    """A contiguous copy; its gradient may have any strides, as that of torch's."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.set_materialize_grads(False)
        return _compact(x)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor | None) -> Any:
        del ctx
        return cotangent


class _Rolled(torch.autograd.Function):
    """A roll; its gradient is rolled back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, shifts: tuple[int, ...], dims: tuple[int, ...]) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.back = tuple(-shift for shift in shifts), dims
        return _rolled(x, shifts, dims)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor | None) -> Any:
        return None if cotangent is None else roll(cotangent, *ctx.back), None, None


class _Parts(torch.autograd.Function):
    """The parts of a tensor; the gradient is written where the parts lie."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sizes: tuple[int, ...] | None, dim: int) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.like = x.shape, x.stride(), sizes, dim
        return _apart(x, sizes, dim)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        shape, strides, sizes, dim = ctx.like
        some = next((c for c in cotangents if c is not None), None)
        if some is None:
            return None, None, None
        total = some.new_empty(shape)
        if _is_dense(shape, strides):
            total = some.new_empty_strided(shape, strides)
        places = _apart(total, sizes, dim)
        if torch.is_grad_enabled():  # a second derivative is wanted
            put = torch.stack if sizes is None else torch.cat
            both = zip(cotangents, places, strict=True)
            given = [p.new_zeros(p.shape) if c is None else c for c, p in both]
            return put(given, dim), None, None
        for cotangent, place in zip(cotangents, places, strict=True):
            if cotangent is None:
                place.zero_()
            else:
                _copy_into(place, cotangent)
        return total, None, None


class _Linear(torch.autograd.Function):
    """A product plus a bias, as one function: the host takes as long for each as for a small kernel.

    With rows x [n, k], a weight W [m, k] and a cotangent c [n, m] of x W^T + b, the gradients are c W, c^T x
    and the sum of c's rows.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight)
        return functional.linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor | None) -> Any:
        if cotangent is None:
            return None, None, None
        x, weight = ctx.saved_tensors
        again = torch.is_grad_enabled()  # a second derivative is wanted
        c = (cotangent if again else _compact(cotangent)).reshape(-1, cotangent.shape[-1])
        by_x = torch.mm(c, weight).view(x.shape) if ctx.needs_input_grad[0] else None
        return by_x, torch.mm(c.t(), x.view(-1, x.shape[-1])), summed(c)


#: Without what `Function.apply` does in Python for transforms, which `_may_move` has excluded.
_apply_linear: Callable[..., Tensor] = super(torch.autograd.Function, _Linear).apply


class _Biased(torch.autograd.Function):
    """A sum that has been computed, as a function of its second term, a bias: of other products.

    A product plus a bias [cols] is given. Its derivative by the bias is 1 in each row, so that the bias's
    cotangent is the sum of the rows of the result's.
    """

    @staticmethod
    def forward(ctx: Any, total: Tensor, bias: Tensor) -> Tensor:
        del bias
        ctx.set_materialize_grads(False)
        return total.detach()

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor | None) -> Any:
        del ctx
        if cotangent is None:
            return None, None
        rows = range(cotangent.dim() - 1)
        if torch.is_grad_enabled() or not rows or not _may_move(cotangent):
            return cotangent, cotangent.sum(list(rows)) if rows else cotangent
        compact = _compact(cotangent)  # the products that come next want it so, too
        return compact, summed(compact.view(-1, compact.shape[-1]))


def _with_gradient(
    function: type[torch.autograd.Function], plain: Callable[..., Tensor], x: Tensor, *given: Any
) -> Tensor:
    """Return what a function computes, by autograd if that is needed."""
    if torch.is_grad_enabled() and x.requires_grad:
        found: Tensor = function.apply(x, *given)
        return found
    return plain(x, *given)


def _may_move(x: Tensor) -> bool:
    """Return whether a tensor's elements are moved by a kernel."""
    if x.numel() < FEW or _is_compiling() or not x.dtype.is_floating_point:
        return False
    return x.itemsize in _copies and is_plain_on_gpu(x)


def _compact(x: Tensor) -> Tensor:
    if x.is_contiguous():
        return x
    copy = x.new_empty(x.shape)
    _copy_into(copy, x)
    return copy


def _copy_into(to: Tensor, x: Tensor) -> None:
    """Copy elements; of small tensors by torch."""
    if _may_move(x):
        _copies[x.itemsize](to, x)
    else:
        to.copy_(x)


def _rolled(x: Tensor, shifts: tuple[int, ...], dims: tuple[int, ...]) -> Tensor:
    """Copy the stretches that stay together: two along each dim."""
    rolled = x.new_empty(x.shape)
    stretches = []
    for shift, dim in zip(shifts, dims, strict=True):
        size = x.shape[dim]
        cut = shift % size
        stretches.append([(dim, size - cut, 0, cut), (dim, 0, cut, size - cut)])
    for pieces in itertools.product(*stretches):
        source, to = x, rolled
        for dim, before, after, length in pieces:
            source, to = source.narrow(dim, before, length), to.narrow(dim, after, length)
        if source.numel():
            _copies[x.itemsize](to, source)
    return rolled


def _apart(x: Tensor, sizes: Sequence[int] | None, dim: int) -> tuple[Tensor, ...]:
    return x.unbind(dim) if sizes is None else x.split(list(sizes), dim)


def _is_dense(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Return whether a tensor has neither gaps nor elements that share a place."""
    apart = 1
    for stride, size in sorted(zip(strides, shape, strict=True)):
        if size == 1:
            continue
        if stride != apart:
            return False
        apart *= size
    return True


def _numbers(given: int | Sequence[int]) -> tuple[int, ...]:
    return (given,) if isinstance(given, int) else tuple(given)
