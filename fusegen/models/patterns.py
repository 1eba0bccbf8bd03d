"""Which torch functions are which op: tables that are data.

Most rows follow from the ops themselves: each names the torch function that it equals. What stands here is
what torch spells in another way: Python's operators, methods, casts, and functions in other modules.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional

from fusegen.ops import Op, find, registry

__all__ = [
    "CASTS",
    "COMPARISONS",
    "GATES",
    "INFIX",
    "JOINS",
    "KEPT",
    "OF_CHANNELS",
    "OF_ONE",
    "PRODUCTS",
    "SHOWN",
    "STEPS",
    "VIEWS",
    "WINDOWS",
    "OfHalves",
    "geglu",
    "glu",
    "layer_norm_of_channels",
    "max_values",
    "min_values",
    "op_of",
    "op_of_function",
    "op_of_method",
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


class OfHalves:
    """A function of the two halves of the last dim that a spec writes as a formula (`other_gates.py`).

    Args:
        formula: the formula, of `first` and `second`.
        run: computes it of both halves.
        ops: how many ops it is.
        alternating: whether the halves are the even and the odd columns.
    """

    def __init__(
        self, formula: str, run: Callable[[Tensor, Tensor], Tensor], ops: int, alternating: bool
    ) -> None:
        self.formula, self.run, self.ops, self.alternating = formula, run, ops, alternating
        self.__name__ = "of_halves"  # as the code of a graph calls it

    def __call__(self, x: Tensor) -> Tensor:
        """Return its value, by torch's own functions."""
        return self.run(*_halves(x, self.alternating))


def _value_and_gate(x: Tensor, gate_first: bool, alternating: bool) -> tuple[Tensor, Tensor]:
    first, second = _halves(x, alternating)
    return (second, first) if gate_first else (first, second)


def _halves(x: Tensor, alternating: bool) -> tuple[Tensor, Tensor]:
    first, second = (x[..., ::2], x[..., 1::2]) if alternating else x.chunk(2, -1)
    return first, second


#: The gates of two halves that models write out.
GATES = frozenset({glu, swiglu, geglu, reglu})
#: Python's operators and what torch calls otherwise, each with its op. An in-place operator is named as the
#: one that it is the in-place form of; `inplace.py` decides whether it may be computed out of place.
_FUNCTIONS: Mapping[Any, str] = {
    operator.add: "add",
    operator.iadd: "add",
    operator.sub: "sub",
    operator.isub: "sub",
    operator.mul: "mul",
    operator.imul: "mul",
    operator.truediv: "div",
    operator.itruediv: "div",
    operator.pow: "pow",
    operator.neg: "neg",
    operator.abs: "abs",
    torch.true_divide: "div",
    torch.subtract: "sub",
    torch.multiply: "mul",
    torch.divide: "div",
    torch.negative: "neg",
    torch.absolute: "abs",
    torch.clip: "clamp",
    torch.clamp_min: "clamp",
    torch.clamp_max: "clamp",
    torch.relu: "relu",
    torch.special.expit: "sigmoid",
    torch.special.erf: "erf",
    torch.where: "where",
    torch.masked_fill: "masked_fill",
    torch.linalg.vector_norm: "norm",
    torch.softmax: "softmax",
    torch.log_softmax: "log_softmax",
    torch.rms_norm: "rms_norm",
    functional.sigmoid: "sigmoid",
    functional.tanh: "tanh",
    torch.threshold: "threshold",
    torch.celu: "celu",
    torch.selu: "selu",
    torch.dropout: "dropout",
    torch.batch_norm: "batch_norm",
    torch.layer_norm: "layer_norm",
    torch.group_norm: "group_norm",
    rotate_half: "rotate_half",
    rope: "rope",
    layer_norm_of_channels: "layer_norm",
    rms_norm_of_channels: "rms_norm",
    max_values: "max",
    min_values: "min",
    at_least: "maximum",
    at_most: "minimum",
    functional.glu: "glu",
    torch._C._nn.glu: "glu",
    **{glu: "glu", swiglu: "swiglu", geglu: "geglu", reglu: "reglu"},
}
#: The same for methods of a tensor. `sub` and the like are found under their own names.
_METHODS: Mapping[str, str] = {
    "true_divide": "div",
    "negative": "neg",
    "absolute": "abs",
    "clip": "clamp",
    "clamp_min": "clamp",
    "clamp_max": "clamp",
    "float_power": "",
    "__add__": "add",
    "__radd__": "add",
    "__mul__": "mul",
    "__rmul__": "mul",
    "__sub__": "sub",
    "__rsub__": "rsub",
    "__truediv__": "div",
    "__pow__": "pow",
    "__neg__": "neg",
    "__abs__": "abs",
}
#: Comparisons that a condition of `where` may be, as functions and methods.
COMPARISONS: Mapping[Any, str] = {
    **{operator.lt: "<", operator.le: "<=", operator.gt: ">", operator.ge: ">="},
    **{torch.lt: "<", torch.le: "<=", torch.gt: ">", torch.ge: ">="},
    **{"lt": "<", "le": "<=", "gt": ">", "ge": ">="},
}
#: Reductions whose functions have a form of two tensors, with its op.
_OF_TWO: Mapping[str, str] = {"max": "maximum", "min": "minimum"}
#: Reductions to one element of a row, which alone gets the gradient. A formula has others of their names.
OF_ONE = frozenset({"max", "min"})
#: What stands for something that a model calls by another name, with that name.
SHOWN: Mapping[Any, str] = {
    max_values: "max",
    min_values: "min",
    at_least: "maximum",
    at_most: "minimum",
    layer_norm_of_channels: "layer_norm",
    rms_norm_of_channels: "rms_norm",
}
#: Ops that a formula writes with a sign between the two.
INFIX: Mapping[str, str] = {"add": "+", "sub": "-", "mul": "*", "div": "/", "pow": "**"}
#: Ops that are steps of their own, since they keep state, draw numbers, set the layout of rows, or take the
#: halves of a tensor.
KEPT = frozenset(
    {
        *("batch_norm", "instance_norm", "group_norm", "dropout", "alpha_dropout", "masked_fill"),
        *(name for name, op in registry().items() if op.halves),
    }
)
#: The same, those that a formula cannot call, and those whose results no step goes on from.
STEPS = (
    KEPT | OF_ONE | {name for name, op in registry().items() if op.indexes or op.over == "channel"}
)
#: Methods that change the dtype alone. Between floating dtypes they compute nothing here: kernels compute
#: in float32 (float64 for float64).
CASTS = frozenset({"to", "float", "half", "bfloat16", "double", "type", "type_as"})
#: Pooling, with the number of dims that it reduces. To one value it is a mean.
POOLS: Mapping[str, int] = {f"adaptive_avg_pool{n}d": n for n in (1, 2, 3)}
#: Norms over dim 1.
OF_CHANNELS = frozenset({layer_norm_of_channels, rms_norm_of_channels})
#: Methods and functions whose result is what they are called on, seen in another way.
VIEWS = frozenset(
    {
        *("view", "reshape", "transpose", "permute", "unsqueeze", "squeeze", "expand", "expand_as"),
        *("chunk", "split", "unbind", "narrow", "select", "flatten", "unflatten", "getitem", "t"),
        *(
            "movedim",
            "swapaxes",
            "swapdims",
            "view_as",
            "detach",
            "contiguous",
            "to",
            "type",
            "float",
        ),
        *("half", "bfloat16", "double", "type_as", "diagonal", "unfold", "as_strided", "real", "T"),
        *("tensor_split", "hsplit", "vsplit", "getattr", "mT", "broadcast_to", "split_with_sizes"),
    }
)
#: What puts tensors side by side.
JOINS = frozenset({torch.cat, torch.concat, torch.concatenate, torch.stack})
#: Pooling and other functions of windows and of whole channels, which torch computes.
WINDOWS = frozenset(
    name for name, op in registry().items() if op.source and op.takes_only_x and name not in VIEWS
)
#: What torch computes best.
PRODUCTS = frozenset(
    {
        *(name for name, op in registry().items() if op.source and not op.takes_only_x),
        *("matmul", "mm", "addmm", "baddbmm", "einsum", "scaled_dot_product_attention"),
    }
)


def op_of(node: fx.Node) -> Op | None:
    """Return the op that a node of a captured graph calls."""
    if isinstance(node.target, OfHalves):
        return find("glu")
    op = None
    if node.op == "call_function":
        op = op_of_function(node.target)
    elif node.op == "call_method":
        op = op_of_method(str(node.target))
    second = node.args[1] if len(node.args) > 1 else node.kwargs.get("other")
    if op is not None and op.name in _OF_TWO and isinstance(second, fx.Node):
        return find(_OF_TWO[op.name])
    return op


def op_of_function(function: Any) -> Op | None:
    """Return the op that a torch function or an operator of Python computes."""
    name = _by_function().get(_key(function))
    return find(name) if name else None


def op_of_method(name: str) -> Op | None:
    """Return the op that a method of a tensor computes, in place or not."""
    plain = name[:-1] if name.endswith("_") and not name.endswith("__") else name
    known = _METHODS.get(plain, plain if plain in _method_names() else "")
    return find(known) if known else None


def _key(function: Any) -> int | str:
    """Return what tells functions apart; some have an address of their own at each look."""
    return function if isinstance(function, str) else id(function)


@functools.cache
def _by_function() -> dict[Any, str]:
    """Return each torch function's op, by its key."""
    found: dict[Any, str] = {}
    for name, declared in registry().items():
        if declared.torch and not declared.source:
            function: Any = torch
            for part in declared.torch.split("."):
                function = getattr(function, part)
            found[_key(function)] = name
    for function, name in _FUNCTIONS.items():
        found[_key(function)] = name
    return found


@functools.cache
def _method_names() -> frozenset[str]:
    """Return the methods of a tensor that are called as their op."""
    plain = (name for name, op in registry().items() if op.torch and not (op.source or op.classes))
    return frozenset(name for name in plain if hasattr(torch.Tensor, name))
