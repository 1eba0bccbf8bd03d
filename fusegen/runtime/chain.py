"""A generated chain as a differentiable function: the fast way in, and one Function for all orders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

from fusegen.runtime.binaries import load_binaries
from fusegen.runtime.explain import explain, fits
from fusegen.runtime.seeds import seed_tensor

#: The most derivatives that a spec can ask for.
HIGHEST = 3


@dataclass(frozen=True)
class Operand:
    """A tensor that the chain names.

    Args:
        name: its name in `apply`.
        kind: "full" (x's shape), "col" ([cols]), "row" (x's shape with a last dim of 1) or
            "scalar" (one element).
    """

    name: str
    kind: Literal["full", "col", "row", "scalar"]


@dataclass(frozen=True)
class Pass:
    """One operator of a mode: the forward pass or the derivative of the pass before.

    Args:
        operator: its name below `torch.ops.fusegen_<package>`.
        gradients: for a derivative, the input of the pass before to which each output belongs.
    """

    operator: str
    gradients: tuple[int, ...] = ()


@dataclass(frozen=True)
class Mode:
    """The chain as it runs in training or in evaluation.

    Args:
        operands: the operands it takes, by their place in the chain's.
        attributes: the attributes it takes, by their place in the chain's.
        passes: the forward pass and its derivatives, by order.
        saved: how many row statistics the forward pass saves for the derivatives.
        random: whether it draws random numbers, so takes a seed.
    """

    operands: tuple[int, ...]
    attributes: tuple[int, ...]
    passes: tuple[Pass, ...]
    saved: int
    random: bool


class Chain:
    """A generated chain.

    Args:
        package: the package's name, for messages.
        file: the package's `__init__.py`, beside which the binaries lie.
        operands: every tensor the chain names, in order.
        modes: "same", or "train" and "eval".
        rank: the number of dims that x must have, or 0 for any.

    Raises:
        ImportError: where the binaries were not built.
    """

    def __init__(
        self,
        package: str,
        file: str,
        operands: Sequence[Operand],
        modes: Mapping[str, Mode],
        rank: int = 0,
    ) -> None:
        self._has_cuda = load_binaries(package, Path(file).parent)
        namespace = getattr(torch.ops, f"fusegen_{package}")
        self.package, self.operands, self.rank = package, tuple(operands), rank
        self._modes = {
            name: _Bound(
                package, mode, [getattr(namespace, p.operator).default for p in mode.passes]
            )
            for name, mode in modes.items()
        }

    def __call__(
        self,
        mode: str,
        x: Tensor,
        operands: tuple[Tensor, ...],
        attributes: tuple[float, ...] = (),
        seed: int | Tensor | None = None,
    ) -> Tensor:
        """Return the chain's value at `x` [..., cols], differentiable in x and the operands.

        Raises:
            TypeError, ValueError: where an argument has the wrong type, dtype, device or shape.
        """
        bound = self._modes[mode]
        taken = [(self.operands[i], operands[i]) for i in bound.mode.operands]
        if not fits(x, taken, self.rank):
            explain(self.package, x, taken, self.rank)
        if x.is_cuda and not self._has_cuda:
            raise ValueError(
                f"{self.package}: x: expected a tensor on cpu, for which alone the package was built, got "
                f"one on {x.device}; run `fusegen build --backend cuda`"
            )
        return bound(x, tuple([tensor for _, tensor in taken]), attributes, seed)


class _Bound:
    """A mode with its operators."""

    def __init__(self, package: str, mode: Mode, operators: list[Callable[..., Any]]) -> None:
        self.package, self.mode, self.operators = package, mode, operators

    def __call__(
        self,
        x: Tensor,
        operands: tuple[Tensor, ...],
        attributes: tuple[float, ...],
        seed: int | Tensor | None,
    ) -> Tensor:
        mode = self.mode
        tensors = (x, *operands)
        numbers = tuple([float(attributes[i]) for i in mode.attributes])
        extras = (seed_tensor(seed, x), *numbers) if mode.random else numbers
        if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
            result: Tensor = _Derivative.apply(self, 0, extras, (), *tensors)
            return result
        out = self.operators[0](*tensors, *extras)
        return out[0] if mode.saved else out  # type: ignore[no-any-return]


def beyond(package: str, order: int) -> str:
    """Return what to say where the derivative of an order is asked for that was not generated."""
    remedy = f"set `order: {order}` in the spec and run `fusegen build` again"
    if order > HIGHEST:
        remedy = f"{HIGHEST} is the most there is"
    return f"{package}: its derivatives were generated to order {order - 1}; {remedy}"


class _Derivative(torch.autograd.Function):
    """Pass `order` of a mode; its backward is pass `order + 1`, so any order is exact or refused.

    Only inputs are saved, and the row statistics that are functions of them: the derived programs
    differentiate through those symbolically (fusegen/calculus.py).
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        bound: _Bound,
        order: int,
        extras: tuple[Any, ...],
        saved: tuple[Tensor, ...],
        *tensors: Tensor,
    ) -> Any:
        out = bound.operators[order](*tensors, *saved, *extras)
        if order == 0 and bound.mode.saved:
            out, *statistics = out
            saved = tuple(statistics)
        seed = extras[:1] if bound.mode.random else ()
        ctx.bound, ctx.order, ctx.numbers = bound, order, extras[len(seed) :]  # type: ignore[attr-defined]
        ctx.counts = len(tensors), len(saved)  # type: ignore[attr-defined]
        ctx.save_for_backward(*tensors, *saved, *seed)
        return out if isinstance(out, Tensor) else tuple(out)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> Any:
        bound, following = ctx.bound, ctx.order + 1
        if following >= len(bound.operators):
            raise RuntimeError(beyond(bound.package, following))
        inputs, statistics = ctx.counts
        kept = ctx.saved_tensors  # once: checkpointing computes them again at each access
        tensors, saved = kept[:inputs], kept[inputs : inputs + statistics]
        extras = (*kept[inputs + statistics :], *ctx.numbers)
        found = _Derivative.apply(bound, following, extras, saved, *tensors, *cotangents)
        gradients: list[Tensor | None] = [None] * inputs
        pass_ = bound.mode.passes[following]
        for place, gradient in zip(
            pass_.gradients, (found,) if isinstance(found, Tensor) else found, strict=True
        ):
            gradients[place] = gradient
        return (None, None, None, None, *gradients)
