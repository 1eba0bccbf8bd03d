"""The operators of a mode: their inputs and outputs, and which operator differentiates which.

Operator k + 1 is the vector-Jacobian product of operator k. It takes the inputs of operator k and a cotangent
for each of its outputs. The mathematics is in fusegen/program/calculus.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from fusegen.runtime.declared_operator import Operator
from fusegen.runtime.observers import unseen
from fusegen.runtime.result_shapes import KIND_OF_OUTLINE, reduced_shape
from fusegen.runtime.sharding import know_shardings

#: The most derivatives that a spec can ask for.
HIGHEST = 3

_CPU = torch._C.DispatchKeySet(torch._C.DispatchKey.CPU)
_CUDA = torch._C.DispatchKeySet(torch._C.DispatchKey.CUDA)


class BoundOperator:
    """An operator registered in torch, which takes `(*tensors, *statistics, *seed, *numbers, *groups)`.

    Args:
        package: the package's name, for messages.
        order: 0 for the forward pass, 1 for the backward, …
        overload: the operator, as torch has it.
        value: the operator that leaves out the statistics, or None.
        declared: the generated package's declaration of the operator.
        kinds: the kind of each tensor that it takes.
        float32: whether each of them is of float32 where x has 16 bits.
        statistic_kinds: the kinds of the statistics that the forward saves. They are outputs of operator 0
            and inputs of the others.
        random: whether it takes a seed.
        columns: the first and the last dim along which a row runs, counted from the end.
        grouped: whether a row is only one of several groups that these dims are cut into.
        outlines: the shapes of the forward's outputs.
        halved: the dim along which x has two halves or more parts, counted from the end; 0 where it has none.
        partition: how many parts there are, and whether the columns of the first two alternate.

    Attributes:
        name: the operator's name, "fusegen_<package>_<hash>::…".
        count: how many tensors it takes; `cotangents` of them belong to outputs of the operator before.
        statistics: how many statistics there are.
        float32: whether each output is of float32 where x has 16 bits.
        still: the inputs of the operator before whose gradient is 0 everywhere. It does not return it.
        shared: the inputs whose gradient it does not return either, with the tensor that it is: of its own
            arguments a cotangent, or an input whose gradient it returns.
        takes: the inputs of the operator before in whose place it takes an output of that, with the output.
        kept: the same of the operator that is this one's derivative.
        unread: the inputs of the operator before of which it reads no number, each with what stands for it.
        spared: the same of the operator that is this one's derivative.
        told: whether its last argument says which cotangents of the forward's outputs are present.
        needs: for each output, alternatives of these without which it has no value.
        stands: for each cotangent, the input that stands for it where it is absent, or -1; () if none does.
        leads: whether its outputs belong to its first inputs, in order, and no other has a gradient.
        mixes_rows: whether a row's results depend on other rows.
    """

    def __init__(
        self,
        package: str,
        order: int,
        overload: Callable[..., Any],
        value: Callable[..., Any] | None,
        declared: Operator,
        kinds: tuple[str | tuple[int, ...], ...],
        float32: tuple[bool, ...],
        statistic_kinds: tuple[str, ...],
        random: bool,
        columns: tuple[int, int],
        grouped: bool,
        outlines: tuple[str, ...],
        halved: int,
        partition: tuple[int, bool],
    ) -> None:
        self.package, self.order, self.overload = package, order, overload
        self.name: str = overload.name()  # type: ignore[attr-defined]
        self._kernel = _below_autograd(overload)
        self._value = self._kernel if value is None else _below_autograd(value)
        self.like, self.kinds, self.random, self.columns = declared.like, kinds, random, columns
        self.by_column, self.grouped, self.memory_format = (
            declared.by_column,
            grouped,
            declared.memory_format,
        )
        self.halved, self.partition = halved, partition
        self.count, self.statistics = len(kinds), len(statistic_kinds)
        self.statistic_kinds, statistics = statistic_kinds, len(statistic_kinds)
        # One number, or one of a column, may depend on all rows, and on how many there are.
        self.mixes_rows = "col" in statistic_kinds or not {
            "scalar",
            "col",
            "col_keepdim",
        }.isdisjoint(outlines)
        self.cotangents = 0
        self.given_tensors = self.count + (statistics if order else 0) + random
        self.output_kinds = tuple(kinds[place] for place in declared.like)
        if order == 0 and outlines:
            self.output_kinds = tuple(KIND_OF_OUTLINE.get(outline, "full") for outline in outlines)
        self.float32 = tuple(float32[place] for place in declared.like)
        if order == 0:
            self.float32 = declared.float32 or (False,) * len(declared.like)
        self.still, self.shared = declared.still, declared.shared
        self.takes, self.told, self.needs = declared.kept, declared.told, declared.needs
        self.stands = declared.stands
        self.kept: tuple[tuple[int, int], ...] = ()
        self.unread = declared.unread
        self.spared: tuple[tuple[int, int], ...] = ()
        self.leads = self.like == tuple(range(len(self.like))) and not (self.still or self.shared)
        self.returned = len(declared.like) + (0 if order else statistics)
        self._next: BoundOperator | None = None

    @property
    def following(self) -> BoundOperator:
        """The derivative of this operator.

        Raises:
            RuntimeError: if it was not generated.
        """
        if self._next is None:
            order = self.order + 1
            remedy = (
                f"set `order: {order}` in the spec and run `fusegen build` again, "
                f"or give fusegen.fuse or the options of torch.compile order={order}"
            )
            if order > HIGHEST:
                remedy = f"{HIGHEST} is the most there is"
            raise RuntimeError(
                f"{self.package}: its derivatives were generated to order {self.order}; {remedy}"
            )
        return self._next

    def differentiate_by(self, following: BoundOperator) -> None:
        """Take an operator as this one's derivative; it takes a cotangent for each output."""
        self._next, following.cotangents = following, len(self.like)
        self.kept, self.spared = following.takes, following.unread

    def rows_shape(self, x: Tensor) -> Sequence[int]:
        """Return the shape of the activation for the kernels: x's, or that of one half or part."""
        return half_shape(x.shape, self.halved, self.partition[0])

    def shape(self, place: int, tensors: Sequence[Tensor]) -> Sequence[int]:
        """Return the shape of an output, from the tensors that the operator takes."""
        like, kind = tensors[self.like[place]], self.output_kinds[place]
        if self.order or kind == "full":
            return like.shape
        if kind == "scalar" or not like.dim():
            return ()
        shape = self.rows_shape(like)
        if kind == "half":
            return shape
        return reduced_shape(str(kind), shape, self.columns)

    def dtype(self, place: int, x: torch.dtype) -> torch.dtype:
        """Return the dtype of an output, for an activation of a dtype."""
        return computed_in(x) if self.float32[place] else x

    def arguments(
        self,
        tensors: Sequence[Tensor],
        statistics: Sequence[Tensor],
        extras: Sequence[Any],
    ) -> tuple[Any, ...]:
        """Return the operator's arguments; `extras` are the seed, if any, and the numbers."""
        return (*tensors, *(statistics if self.order else ()), *extras)

    def saved(self, args: Sequence[Any], out: Any) -> tuple[Sequence[Tensor], Sequence[Any]]:
        """Return the statistics and the extras of a call, from its arguments and its outputs."""
        if self.order == 0:
            return (out[len(self.like) :] if self.statistics else ()), args[self.count :]
        after = self.count + self.statistics
        return args[self.count : after], args[after:]

    def run(self, args: tuple[Any, ...], *, value_alone: bool = False) -> Any:
        """Run the kernel without recording anything; with `value_alone` it may leave out the statistics.

        Plain tensors go straight to the kernel, below the operator's autograd, which would take 5 µs of
        Python. Tensor subclasses, dispatch modes and profilers see the operator.
        """
        if self.is_plain(args):
            kernel = self._value if value_alone else self._kernel
            return kernel(_CUDA if args[0].is_cuda else _CPU, *args)
        return self.dispatch(args)

    def run_plain(self, args: tuple[Any, ...]) -> Any:
        """Run the kernel on plain tensors, with no mode or profiler active."""
        return self._kernel(_CUDA if args[0].is_cuda else _CPU, *args)

    def is_plain(self, args: tuple[Any, ...]) -> bool:
        """Return whether only torch's CPU or CUDA backend takes part in a call.

        Its tensors must be numbers in memory that a kernel can read directly. These are not plain:
        subclasses, batched tensors of `vmap`, zero tensors of autograd, views of a conjugate's imaginary
        part, sparse tensors, and meta tensors.
        """
        if not unseen():
            return False
        count = self.count
        try:
            for tensor in args[:count]:  # not any(): a generator would cost as much as the rest
                kind = type(tensor)
                if kind is not Tensor and kind is not Parameter:
                    return False
                if not tensor.data_ptr() or tensor.is_neg():
                    return False
        except RuntimeError:  # it has no memory, so torch raises an error
            return False
        if count == self.given_tensors:
            return True
        # The operators made the other tensors: their class is enough.
        return all(type(tensor) is Tensor for tensor in args[count : self.given_tensors])

    def dispatch(self, args: tuple[Any, ...]) -> Any:
        """Call the operator through torch's dispatcher.

        Raises:
            TypeError: if a tensor is not dense.
        """
        for place, tensor in enumerate(args[: self.count]):
            if tensor.layout is not torch.strided:
                raise TypeError(
                    f"{self.package}: {'an operand' if place else 'x'}: expected a dense tensor, got one of "
                    f"layout {tensor.layout}; call to_dense()"
                )
        know_shardings(self)
        return self.overload(*args)


def as_tuple(out: Any) -> tuple[Tensor, ...]:
    """Return an operator's outputs, of which there may be one."""
    return (out,) if isinstance(out, Tensor) else tuple(out)


def bits_of(tensors: Sequence[Tensor | None]) -> int:
    """Return which tensors there are, a bit for each."""
    return sum(1 << place for place, tensor in enumerate(tensors) if tensor is not None)


def existing(
    outputs: Sequence[Tensor], needs: Sequence[tuple[int, ...]], present: int
) -> Sequence[Tensor | None]:
    """Return a derivative's outputs, None in the place of those that need an absent cotangent.

    Args:
        outputs: the outputs.
        needs: what each needs (`Operator.needs`).
        present: the cotangents of the forward's outputs that are present, a bit for each.
    """
    if not needs:
        return outputs
    return [
        out if not needed or any(present & bits == bits for bits in needed) else None
        for out, needed in zip(outputs, needs, strict=True)
    ]


def computed_in(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which kernels compute: float32, or float64 for an activation of that."""
    return torch.float64 if dtype is torch.float64 else torch.float32


def _below_autograd(overload: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that runs an operator's kernel for a dispatch key."""
    found: Callable[..., Any] = overload._handle.redispatch_boxed  # type: ignore[attr-defined] # not in the stubs
    return found


def half_shape(shape: Sequence[int], halved: int, parts: int = 2, held: int = 1) -> tuple[int, ...]:
    """Return the shape of one half of a tensor, along a dim counted from the end; its own shape if the dim is
    0.

    Args:
        shape: the tensor's.
        halved: the dim.
        parts: the number of parts, if they are more than halves.
        held: the shape of how many of them to return.
    """
    place = len(shape) + halved
    return tuple([n // parts * held if d == place else n for d, n in enumerate(shape)])
