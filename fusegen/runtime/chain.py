"""A generated chain as a function of tensors. It checks the call, draws the seed and runs the mode's
operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from fusegen.base.shipped import DISTRIBUTION
from fusegen.runtime.activation import Activation
from fusegen.runtime.autocast import in_dtypes, widened_values, widening
from fusegen.runtime.averages import Average, move
from fusegen.runtime.binaries import load_binaries
from fusegen.runtime.bind_operators import bind_operators
from fusegen.runtime.broadcasting import broadcast
from fusegen.runtime.checked_calls import CheckedCalls, signature
from fusegen.runtime.conversion import offer_converter
from fusegen.runtime.declared_operator import Operator
from fusegen.runtime.derivative import call
from fusegen.runtime.explain import explain, fits
from fusegen.runtime.modes import Modes
from fusegen.runtime.movement import offer_movement
from fusegen.runtime.operand_shapes import (
    Operand,
    adapted,
    asks_for_float32,
    masks_as_numbers,
)
from fusegen.runtime.operators import BoundOperator, as_tuple
from fusegen.runtime.registered import LOADING, registered
from fusegen.runtime.registration import register
from fusegen.runtime.seeds import seed_tensor
from fusegen.runtime.sizes_of_operands import check_sizes
from fusegen.runtime.windows import offer_windows

_NONE: Mapping[str, tuple[bool, ...]] = MappingProxyType({})


@dataclass(frozen=True)
class Mode:
    """The chain as it runs in training or in evaluation.

    Args:
        operands: the operands it takes, by their index in the chain's operands.
        attributes: the attributes it takes, by their index in the chain's attributes.
        operators: the forward and its derivatives, by order.
        saved: the kinds of the statistics that the forward saves for the derivatives: "row", "col" or
            "scalar". With statistics of columns, rows depend on one another.
        random: whether it draws random numbers, and so takes a seed.
    """

    operands: tuple[int, ...]
    attributes: tuple[int, ...]
    operators: tuple[Operator, ...]
    saved: tuple[str, ...]
    random: bool


class Chain:
    """A generated chain.

    Args:
        package: the package's name, for messages.
        file: the package's `__init__.py`; the libraries are beside it.
        made_of: a hash of the package's generated files, which its `__init__.py` contains.
        operands: every operand of the chain, in order.
        modes: "same", or "train" and "eval".
        activation: what it says of its activation.
        autocast: by device, whether torch.autocast makes each value float32, for an x of 16 bits.
        promoting: of each value, the places of the operands that make it float32 there if they are.
        pools: whether the package has kernels of windows for a GPU.

    Raises:
        ImportError: if the libraries were not built, or do not match the package.
    """

    def __init__(
        self,
        package: str,
        file: str,
        made_of: str,
        operands: Sequence[Operand],
        modes: Mapping[str, Mode],
        activation: Activation,
        autocast: Mapping[str, tuple[bool, ...]] = _NONE,
        *,
        promoting: tuple[tuple[int, ...], ...] = (),
        pools: bool = False,
    ) -> None:
        binaries = load_binaries(package, Path(file).parent, made_of)
        self._has_cuda, self.namespace = binaries.cuda is not None, binaries.namespace
        self._dtypes = frozenset(getattr(torch, name) for name in binaries.dtypes)
        self.package, self.operands = package, tuple(operands)
        self.activation = activation
        widens = torch.float32 in self._dtypes
        self._autocast = widening(autocast if widens else _NONE, promoting if widens else ())
        namespace = getattr(torch.ops, self.namespace)
        if self._has_cuda:
            offer_converter(namespace, self._dtypes)
            offer_movement(namespace, self._dtypes)
            if pools:
                offer_windows(namespace, self._dtypes)
        self._modes = Modes[_Bound](package)
        for name, mode in modes.items():
            operators = bind_operators(
                package,
                namespace,
                mode.operators,
                ["full", *(operands[i].kind_in_passes for i in mode.operands)],
                float32=[False, *(operands[i].float32 for i in mode.operands)],
                statistics=mode.saved,
                random=mode.random,
                columns=activation.columns,
                grouped=activation.grouped,
                halved=activation.halved,
                partition=activation.partition,
            )
            self._modes[name] = _Bound(mode, operators, self.operands)
            with LOADING:
                known = registered(self.namespace)
                for operator in operators:
                    if operator.name not in known:
                        register(operator)
                        known.add(operator.name)

    def __call__(
        self,
        mode: str,
        x: Tensor,
        operands: tuple[Tensor, ...],
        attributes: tuple[float, ...] = (),
        seed: int | Tensor | None = None,
        groups: int = 1,
    ) -> Tensor:
        """Return the chain's value at `x` [..., cols], differentiable in x and the operands.

        Raises:
            TypeError, ValueError: where an argument has the wrong type, dtype, device or shape.
        """
        if wide := widened_values(x, operands, self._autocast):
            given = (operands, attributes, seed, groups)
            return in_dtypes(self.with_values(mode, x.float(), *given), x.dtype, wide)[0]
        bound = self._modes[mode]
        args = self._arguments(bound, x, operands, attributes, seed, groups)
        out = call(bound.forward, args, value_alone=True)
        value: Tensor = out if isinstance(out, Tensor) else out[0]
        if args[0] is x:
            return value
        return _in_dtype(value, x.dtype, wide=bound.forward.float32[0])

    def with_values(
        self,
        mode: str,
        x: Tensor,
        operands: tuple[Tensor, ...],
        attributes: tuple[float, ...] = (),
        seed: int | Tensor | None = None,
        groups: int = 1,
    ) -> tuple[Tensor, ...]:
        """Return the chain's value, and after it the values that later segments use.

        Raises:
            TypeError, ValueError: as a call does.
        """
        if wide := widened_values(x, operands, self._autocast):
            given = (operands, attributes, seed, groups)
            return in_dtypes(self.with_values(mode, x.float(), *given), x.dtype, wide)
        bound = self._modes[mode]
        args = self._arguments(bound, x, operands, attributes, seed, groups)
        out = call(bound.forward, args, value_alone=True)
        found = as_tuple(out)[: len(bound.forward.like)]
        return found if args[0] is x else _values(bound.forward, found, x.dtype)

    def with_averages(
        self,
        mode: str,
        x: Tensor,
        operands: tuple[Tensor, ...],
        attributes: tuple[float, ...] = (),
        seed: int | Tensor | None = None,
        groups: int = 1,
        *,
        averages: Sequence[Average],
    ) -> tuple[Tensor, ...]:
        """Return the same as `with_values`, and update the running averages with the batch's statistics.

        Raises:
            TypeError, ValueError: as a call does, and if a channel has only one value.
        """
        if wide := widened_values(x, operands, self._autocast):
            given = (operands, attributes, seed, groups)
            found = self.with_averages(mode, x.float(), *given, averages=averages)
            return in_dtypes(found, x.dtype, wide)
        bound = self._modes[mode]
        args = self._arguments(bound, x, operands, attributes, seed, groups)
        values = self.activation.values_of_channel(self.package, x)
        own = len(bound.forward.like)
        out = call(bound.forward, args, seen=lambda out: move(averages, out[own:], values))
        return tuple(out[:own]) if args[0] is x else _values(bound.forward, out, x.dtype)

    def _arguments(
        self,
        bound: _Bound,
        x: Tensor,
        operands: tuple[Tensor, ...],
        attributes: tuple[float, ...],
        seed: int | Tensor | None,
        groups: int,
    ) -> tuple[Any, ...]:
        """Return the arguments of the forward operator, with x in float32 if an operand asks for it."""
        start, taken, activation = x, operands, self.activation
        if activation.broadcasters:
            kinds = [self.operands[place].kind for place in activation.broadcasters]
            operands = (x, *operands)
            larger = [operands[place] for place in activation.broadcasters]
            x = broadcast(x, larger, kinds, activation.columns)
        given = operands if bound.takes_all else tuple([operands[i] for i in bound.mode.operands])
        if bound.masks:
            given = masks_as_numbers(self.package, x, bound.operands, given)
        checked = signature(x, given, groups)
        if checked is None or checked not in bound.checked:  # a compiler would guard what is in it
            if fits(x, bound.operands, given, activation):
                self._check(x, groups)
                if checked is not None:
                    bound.checked.note(checked)
            else:
                passed = given
                given = adapted(
                    x,
                    bound.operands,
                    given,
                    activation.columns,
                    activation.halved,
                    activation.parts,
                )
                if torch.float32 in self._dtypes and asks_for_float32(x, bound.operands, given):
                    wide = start.to(torch.float32)
                    return self._arguments(bound, wide, taken, attributes, seed, groups)
                if not fits(x, bound.operands, given, activation):
                    explain(self.package, x, bound.operands, given, activation)
                check_sizes(self.package, x, bound.operands, passed, activation.sized)
                self._check(x, groups)
        mode = bound.mode
        args: tuple[Any, ...] = (x, *given)
        if mode.random:
            args += (seed_tensor(seed, x),)
        if mode.attributes:
            args += tuple([float(attributes[i]) for i in mode.attributes])
        return (*args, groups) if activation.grouped else args

    def _check(self, x: Tensor, groups: int) -> None:
        """Refuse an activation that the package was not built for, or sizes that no kernel can compute.

        Raises:
            TypeError, ValueError: with the remedy.
        """
        activation = self.activation
        if x.dtype not in self._dtypes:
            own = str(x.dtype).removeprefix("torch.")
            raise TypeError(
                f"{self.package}: {activation.name}: the package was built without {own}; add it to "
                f"`dtypes:` in the spec, or to --dtypes, and build again"
            )
        if x.is_cuda and not self._has_cuda:
            remedy = f"{DISTRIBUTION} has no kernels for a GPU" if DISTRIBUTION else ""
            raise ValueError(
                f"{self.package}: x: expected a tensor on cpu, since the package was built only for that, "
                f"got one on {x.device}; {remedy or 'run `fusegen build --backend cuda`'}"
            )
        if activation.grouped or activation.several_values or activation.indexes:
            activation.check(self.package, x, groups)

    def operators(self, mode: str) -> tuple[BoundOperator, ...]:
        """Return the operators of a mode: the forward and its derivatives, by order."""
        return self._modes[mode].operators


class _Bound:
    """A mode with its operators."""

    def __init__(
        self, mode: Mode, operators: tuple[BoundOperator, ...], operands: tuple[Operand, ...]
    ) -> None:
        self.mode, self.forward, self.operators = mode, operators[0], operators
        self.operands = tuple(operands[i] for i in mode.operands)
        self.takes_all = self.operands == operands
        self.masks = any(operand.mask for operand in self.operands)
        self.checked = CheckedCalls()


def _values(forward: BoundOperator, out: Any, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """Return a forward's values without its statistics, for an x of a dtype."""
    values = zip(out, forward.float32, strict=False)
    return tuple([_in_dtype(value, dtype, wide=wide) for value, wide in values])


def _in_dtype(value: Tensor, dtype: torch.dtype, *, wide: bool) -> Tensor:
    """Return a value in x's dtype, or as it is if it is of float32 where x has 16 bits."""
    return value if wide or value.dtype is dtype else value.to(dtype)
