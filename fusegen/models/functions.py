"""Functions that torch lacks: passes over a graph put a call of one in place of what a model writes out.

Each computes the same by torch's own functions, where no kernel does.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, fx
from torch.nn import functional

__all__ = [
    "PARTS",
    "BatchStatistic",
    "OfParts",
    "PartOf",
    "at_least",
    "at_most",
    "classes_of",
    "detached",
    "geglu",
    "glu",
    "layer_norm_of_channels",
    "max_values",
    "min_values",
    "reglu",
    "rms_norm_of_channels",
    "rope",
    "rotate_half",
    "swiglu",
]


def rotate_half(x: Tensor, interleaved: bool = False) -> Tensor:
    """The rotation of a row's halves or of neighbours, a function that torch lacks: models write it out
    (`rotary.py`)."""
    first, second = _halves(x, interleaved)
    return (
        torch.stack((-second, first), -1).flatten(-2)
        if interleaved
        else torch.cat((-second, first), -1)
    )


def rope(
    x: Tensor,
    cos: Tensor,
    sin: Tensor,
    interleaved: bool = False,
    partial_rotary_factor: float = 1.0,
    per_pair: bool = False,
) -> Tensor:
    """Rotary position embedding of a row or of its first columns (`rope.py`); see the op of this name."""
    width = round(x.shape[-1] * partial_rotary_factor)
    front, rest = x[..., :width], x[..., width:]
    if per_pair:
        twice = (lambda t: t.repeat_interleave(2, -1)) if interleaved else _twice
        cos, sin = twice(cos), twice(sin)
    turned = front * cos + rotate_half(front, interleaved) * sin
    return torch.cat((turned, rest), -1) if partial_rotary_factor < 1 else turned


def _twice(table: Tensor) -> Tensor:
    return torch.cat((table, table), -1)


def layer_norm_of_channels(
    x: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """A layer norm over dim 1, with weights [C, 1, ...], that torch lacks (`channel_norms.py`)."""
    weight, bias = (None if t is None else t.flatten() for t in (weight, bias))
    rows = functional.layer_norm(x.movedim(1, -1), x.shape[1:2], weight, bias, eps)
    return rows.movedim(-1, 1)


def rms_norm_of_channels(x: Tensor, weight: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """The same of an RMS norm."""
    weight = None if weight is None else weight.flatten()
    return functional.rms_norm(x.movedim(1, -1), x.shape[1:2], weight, eps).movedim(-1, 1)


def max_values(x: Tensor, dim: int, keepdim: bool = False) -> Tensor:
    """The values alone of `torch.max` over a dim (`extremes.py`)."""
    return torch.max(x, dim, keepdim).values


def min_values(x: Tensor, dim: int, keepdim: bool = False) -> Tensor:
    """The same of `torch.min`."""
    return torch.min(x, dim, keepdim).values


def at_least(x: Tensor, other: float) -> Tensor:
    """`torch.maximum` of a tensor and a number (`filled.py`)."""
    return torch.maximum(x, x.new_full((), other))


def at_most(x: Tensor, other: float) -> Tensor:
    """The same of `torch.minimum`."""
    return torch.minimum(x, x.new_full((), other))


def detached(x: Tensor) -> Tensor:
    """`x.detach()`, which a region computes (`detached.py`)."""
    return x.detach()


def classes_of(target: Tensor, count: int, ignored: int) -> Tensor:
    """The classes of a loss, if each is one or is ignored; a kernel would give NaN.

    Raises:
        IndexError: if one is not, as in torch. On a GPU nobody waits to see it.
    """
    if not target.is_cpu or not target.numel():
        return target
    least, most = target.aminmax()
    if least < 0 or most >= count:
        wrong = target[((target < 0) | (target >= count)) & (target != ignored)]
        if wrong.numel():
            raise IndexError(f"Target {int(wrong[0])} is out of bounds.")
    return target


def glu(x: Tensor, gate_first: bool, alternating: bool = False) -> Tensor:
    """The gate of two halves of the last dim, either of which may be the gate (`gates.py`)."""
    value, gate = _value_and_gate(x, gate_first, alternating)
    return value * torch.sigmoid(gate)


def swiglu(x: Tensor, gate_first: bool, alternating: bool = False) -> Tensor:
    """The same with silu."""
    value, gate = _value_and_gate(x, gate_first, alternating)
    return value * functional.silu(gate)


def geglu(
    x: Tensor, gate_first: bool, alternating: bool = False, approximate: str = "none"
) -> Tensor:
    """The same with gelu."""
    value, gate = _value_and_gate(x, gate_first, alternating)
    return value * functional.gelu(gate, approximate=approximate)


def reglu(x: Tensor, gate_first: bool, alternating: bool = False) -> Tensor:
    """The same with relu."""
    value, gate = _value_and_gate(x, gate_first, alternating)
    return value * functional.relu(gate)


#: What formulas call the parts of a tensor.
PARTS = ("first", "second", *(f"part{number}" for number in range(3, 17)))


class OfParts:
    """A function of the parts of the last dim that a spec writes as a formula (`other_gates.py`).

    Args:
        formula: the formula, of names in `PARTS`.
        run: computes it of the parts.
        ops: how many ops it is.
        count: how many parts there are.
        alternating: whether they are the even and the odd columns.
    """

    def __init__(
        self, formula: str, run: fx.GraphModule, ops: int, count: int, alternating: bool
    ) -> None:
        self.formula, self.run, self.ops = formula, run, ops
        self.count, self.alternating = count, alternating
        self.__name__ = "of_parts"  # as the code of a graph calls it

    def __call__(self, x: Tensor) -> Tensor:
        """Return its value, by torch's own functions."""
        parts = _halves(x, True) if self.alternating else x.chunk(self.count, -1)
        found: Tensor = self.run(*parts)
        return found


class BatchStatistic:
    """A statistic of a batch norm's batch, which its package gives (`computed_again.py`).

    Args:
        place: 0 of the mean, 1 of the variance.
    """

    def __init__(self, place: int) -> None:
        self.place = place
        self.__name__ = "batch_statistic"  # as the code of a graph calls it

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        """Return it, by torch's own functions, in the type that kernels compute in."""
        wide = x if x.dtype is torch.float64 else x.float()
        dims = [dim for dim in range(x.dim()) if dim != 1]
        return wide.var(dims, correction=0) if self.place else wide.mean(dims)


class PartOf:
    """A part of a tensor, or of the sum of several, that a region starts from (`from_parts.py`).

    Args:
        place: the number of the part.
        among: how many parts there are.
        dim: the dim along which they are, counted from the end.
    """

    def __init__(self, place: int, among: int, dim: int) -> None:
        self.place, self.among, self.dim = place, among, dim
        self.__name__ = "part_of"  # as the code of a graph calls it

    def __call__(self, *terms: Tensor) -> Tensor:
        """Return the part, by torch's own functions."""
        return functools.reduce(torch.add, terms).chunk(self.among, self.dim)[self.place]


def _value_and_gate(x: Tensor, gate_first: bool, alternating: bool) -> tuple[Tensor, Tensor]:
    first, second = _halves(x, alternating)
    return (second, first) if gate_first else (first, second)


def _halves(x: Tensor, alternating: bool) -> tuple[Tensor, Tensor]:
    first, second = (x[..., ::2], x[..., 1::2]) if alternating else x.chunk(2, -1)
    return first, second
