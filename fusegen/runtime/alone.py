"""The chain of a single file, in place of `Chain`: it needs no package of fusegen beside it.

`fusegen export --single-file` copies this class into the file that it writes. It runs in plain eager, with
derivatives of any order that the file has kernels for; `torch.func`, forward mode and fake tensors need the
package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fusegen.runtime.absent import read_beside
from fusegen.runtime.activation import Activation
from fusegen.runtime.autocast import in_dtypes, widened_values, widening
from fusegen.runtime.averages import Average, move
from fusegen.runtime.broadcasting import broadcast
from fusegen.runtime.declared_operator import Operator
from fusegen.runtime.explain import fits
from fusegen.runtime.operand_shapes import Operand, adapted, asks_for_float32, masks_as_numbers
from fusegen.runtime.operators import (
    as_tuple,
    bits_of,
    existing,
)
from fusegen.runtime.saved_tensors import kept_tensors, with_unread, without_unread
from fusegen.runtime.sizes_of_operands import check_sizes


class Mode:
    """The chain as it runs in training or in evaluation.

    Args:
        operands, attributes: the operands and the attributes that it takes, by their index.
        operators: the forward and its derivatives, by order.
        saved: the kinds of the statistics that the forward saves for the derivatives.
        random: whether it draws random numbers, and so takes a seed.
    """

    def __init__(
        self,
        operands: tuple[int, ...],
        attributes: tuple[int, ...],
        operators: tuple[Operator, ...],
        saved: tuple[str, ...],
        random: bool,
    ) -> None:
        self.operands, self.attributes, self.operators = operands, attributes, operators
        self.saved, self.random = saved, random


class Chain:
    """A chain of kernels as one differentiable function.

    Args:
        package: its name, for messages.
        compiled: compiles the kernels for a device, "cpu" or "cuda", and returns their operators.
        dtypes: the dtypes that they are compiled for.
        operands: every operand, in order.
        modes: "same", or "train" and "eval".
        activation: what it says of its activation.
    """

    def __init__(
        self,
        package: str,
        compiled: Callable[[str], Any],
        dtypes: Sequence[torch.dtype],
        operands: Sequence[Operand],
        modes: Mapping[str, Mode],
        activation: Activation,
        autocast: Mapping[str, tuple[bool, ...]] | None = None,
        promoting: tuple[tuple[int, ...], ...] = (),
    ) -> None:
        widens = torch.float32 in dtypes
        self.autocast = widening((widens and autocast) or {}, promoting if widens else ())
        self.package, self.compiled, self.dtypes = package, compiled, dtypes
        self.operands, self.modes, self.activation = operands, modes, activation

    def __call__(self, mode: str, *args: Any, **options: Any) -> Tensor:
        """Return the chain's value; see `with_values`."""
        return self.with_values(mode, *args, **options)[0]

    def with_values(
        self, mode: str, x: Tensor, operands: tuple[Tensor, ...], *args: Any, **options: Any
    ) -> tuple[Tensor, ...]:
        """Return the chain's value, and after it the values that later segments use."""
        if wide := widened_values(x, operands, self.autocast):
            found = self.with_values(mode, x.float(), operands, *args, **options)
            return in_dtypes(found, x.dtype, wide)
        first = self.modes[mode].operators[0]
        return self._in_dtype(first, self._run(mode, x, operands, *args, **options), x.dtype)

    def with_averages(
        self,
        mode: str,
        x: Tensor,
        operands: tuple[Tensor, ...],
        *args: Any,
        averages: Sequence[Average],
        **options: Any,
    ) -> tuple[Tensor, ...]:
        """Return the same, and update running averages with the batch's statistics."""
        if wide := widened_values(x, operands, self.autocast):
            found = self.with_averages(
                mode, x.float(), operands, *args, averages=averages, **options
            )
            return in_dtypes(found, x.dtype, wide)
        values = self.activation.values_of_channel(self.package, x)
        first = self.modes[mode].operators[0]
        out = self._run(mode, x, operands, *args, keep=True, **options)
        move(averages, out[len(first.like) :], values)
        return self._in_dtype(first, out, x.dtype)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def _run(
        self,
        name: str,
        x: Tensor,
        operands: tuple[Tensor, ...],
        attributes: tuple[float, ...] = (),
        seed: int | Tensor | None = None,
        groups: int = 1,
        keep: bool = False,
    ) -> tuple[Tensor, ...]:
        """Return the outputs of the forward operator; without `keep` it may leave out its statistics."""
        mode, start, taken = self.modes[name], x, operands
        activation = self.activation
        if activation.broadcasters:
            kinds = [self.operands[place].kind for place in activation.broadcasters]
            operands = (x, *operands)
            larger = [operands[place] for place in activation.broadcasters]
            x = broadcast(x, larger, kinds, activation.columns)
        own = [self.operands[i] for i in mode.operands]
        given = masks_as_numbers(self.package, x, own, [operands[i] for i in mode.operands])
        passed = given
        given = adapted(x, own, passed, activation.columns, activation.halved, activation.parts)
        if torch.float32 in self.dtypes and asks_for_float32(x, own, given):
            return as_tuple(self._run(name, start.float(), taken, attributes, seed, groups, keep))
        self._check(x, own, given, groups)
        check_sizes(self.package, x, own, passed, activation.sized)
        args = (x, *given)
        if mode.random:
            args += (_seed(seed, x),)
        args += tuple([float(attributes[i]) for i in mode.attributes])
        args += (groups,) if activation.grouped else ()
        operators = self.compiled("cuda" if x.is_cuda else "cpu")
        if torch.is_grad_enabled() and any(t.requires_grad for t in (x, *given)):
            return as_tuple(Fused.apply(operators, mode, 0, 1 + len(given), *args))
        first = mode.operators[0]
        called = f"{first.name}_value" if first.value and not keep else first.name
        return as_tuple(getattr(operators, called)(*args))

    def _check(self, x: Tensor, operands: Any, given: Any, groups: int) -> None:
        """Refuse what the kernels don't take: an error in them would end the process."""
        named = zip(operands, given, strict=True)
        shown = [f"{o.name} {tuple(t.shape)} {t.dtype}" for o, t in named]
        what = f"{self.package}: {', '.join([f'x {tuple(x.shape)} {x.dtype}', *shown])}"
        if not fits(x, operands, given, self.activation):
            raise ValueError(f"{what}: these do not fit together; see the docstring of apply")
        if x.dtype not in self.dtypes:
            raise TypeError(f"{what}: the kernels of this file are for {self.dtypes}")
        self.activation.check(self.package, x, groups)

    def _in_dtype(
        self, forward: Operator, out: Sequence[Tensor], dtype: torch.dtype
    ) -> tuple[Tensor, ...]:
        """Return a forward's values, without its statistics, in x's dtype or in float32 if they are of it."""
        wide = forward.float32 or (False,) * len(forward.like)
        return tuple([o if w else o.to(dtype) for o, w in zip(out, wide, strict=False)])


class Fused(torch.autograd.Function):
    """One operator of a mode. Its backward is the next operator, called the same way, so derivatives of any
    order are exact or refused."""

    @staticmethod
    def forward(ctx: Any, operators: Any, mode: Mode, order: int, count: int, *args: Any) -> Any:
        """Run the operator: its first `count` arguments are x, the operands and cotangents."""
        declared = mode.operators[order]
        out = as_tuple(getattr(operators, declared.name)(*args))
        own = len(declared.like)
        if order == 0:
            statistics, rest = out[own:], args[count:]
        else:
            after = count + len(mode.saved)
            statistics, rest = args[count:after], args[after:]
        ctx.called = operators, mode, order, count
        ctx.numbers = rest[mode.random :]
        ctx.outputs = [(o.shape, o.dtype) for o in out[:own]]
        following = mode.operators[order + 1 : order + 2]
        kept: Sequence[Any] = args[:count]
        for derivative in following:
            kept = without_unread(derivative.unread, kept_tensors(derivative.kept, kept, out))
        ctx.save_for_backward(*kept, *statistics, *rest[: mode.random])
        ctx.mark_non_differentiable(*out[own:])
        ctx.set_materialize_grads(False)
        return out

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor | None) -> Any:
        """Return the gradient of each tensor that the operator took."""
        operators, mode, order, count = ctx.called
        if order + 1 == len(mode.operators):
            raise RuntimeError(f"the derivatives in this file go to order {order}")
        saved, following = ctx.saved_tensors, mode.operators[order + 1]
        taken = len(saved) + len(ctx.numbers) - (0 if order else len(mode.saved))
        if all(cotangent is None for cotangent in cotangents):
            return (None,) * (4 + taken)
        saved = with_unread(following.unread, saved, cotangents)
        given = [*cotangents[: len(ctx.outputs)]]
        for place, (shape, dtype) in enumerate(ctx.outputs):
            if cotangents[place] is None and following.told and not order:
                given[place] = read_beside(following.stands, ctx.outputs, place, cotangents, saved)
            if given[place] is None:
                given[place] = saved[0].new_zeros(shape, dtype=dtype)
        numbers = ctx.numbers
        if following.told and not order:
            numbers = (*numbers, bits_of(cotangents[: len(given)]))
        args = (*saved[:count], *given, *saved[count:], *numbers)
        out = Fused.apply(operators, mode, order + 1, count + len(given), *args)
        found = existing(out, following.needs, numbers[-1]) if following.needs else out
        gradients: list[Tensor | None] = [None] * taken
        for place, gradient in zip(following.like, found, strict=True):
            gradients[place] = gradient
        for place in following.still:
            gradients[place] = torch.zeros_like(saved[place])
        for place, source in following.shared:
            gradients[place] = gradients[source] if source < count else cotangents[source - count]
        return (None, None, None, None, *gradients)


def _seed(seed: int | Tensor | None, x: Tensor) -> Tensor:
    """Return the seed as one int64 on x's device; without one, from torch's generator."""
    if seed is None:
        return torch.randint(2**63 - 1, (1,), dtype=torch.int64, device=x.device)
    if isinstance(seed, Tensor):
        return seed.to(x.device)
    return torch.full((1,), (seed + 2**63) % 2**64 - 2**63, dtype=torch.int64, device=x.device)
