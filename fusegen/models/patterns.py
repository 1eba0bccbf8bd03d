"""Which torch functions are which op: tables that are data.

Most rows follow from the ops themselves: each names the torch function that it equals. What stands here is
what torch spells in another way: Python's operators, methods, casts, and functions in other modules.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx
from torch.nn import functional

from fusegen.models import functions
from fusegen.ops import Op, find, registry

__all__ = [
    "CASTS",
    "COMPARISONS",
    "GATES",
    "GRAPHS",
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
    "op_of",
    "op_of_function",
    "op_of_method",
]

#: The gates of two halves that models write out.
GATES = frozenset({functions.glu, functions.swiglu, functions.geglu, functions.reglu})
#: Python's operators and what torch calls otherwise, each with its op. An in-place operator is named as the
#: one that it is the in-place form of; `out_of_place.py` decides whether it may be computed out of place.
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
    torch.special.erfc: "erfc",
    torch.special.exp2: "exp2",
    torch.special.expm1: "expm1",
    torch.special.log1p: "log1p",
    torch.special.log_softmax: "log_softmax",
    torch.special.round: "round",
    torch.special.softmax: "softmax",
    torch.special.xlogy: "xlogy",
    torch.arccos: "acos",
    torch.arccosh: "acosh",
    torch.arcsin: "asin",
    torch.arcsinh: "asinh",
    torch.arctan: "atan",
    torch.arctan2: "atan2",
    torch.arctanh: "atanh",
    torch.fix: "trunc",
    torch.sgn: "sign",
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
    functions.rotate_half: "rotate_half",
    functions.rope: "rope",
    functions.layer_norm_of_channels: "layer_norm",
    functions.rms_norm_of_channels: "rms_norm",
    functions.max_values: "max",
    functions.min_values: "min",
    functions.at_least: "maximum",
    functions.at_most: "minimum",
    functional.glu: "glu",
    torch._C._nn.glu: "glu",
    **{
        functions.glu: "glu",
        functions.swiglu: "swiglu",
        functions.geglu: "geglu",
        functions.reglu: "reglu",
    },
}
#: The same for methods of a tensor. `sub` and the like are found under their own names.
_METHODS: Mapping[str, str] = {
    "true_divide": "div",
    "negative": "neg",
    "absolute": "abs",
    "arccos": "acos",
    "arccosh": "acosh",
    "arcsin": "asin",
    "arcsinh": "asinh",
    "arctan": "atan",
    "arctan2": "atan2",
    "arctanh": "atanh",
    "fix": "trunc",
    "sgn": "sign",
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
    functions.max_values: "max",
    functions.min_values: "min",
    functions.at_least: "maximum",
    functions.at_most: "minimum",
    functions.detached: "detach",
    functions.layer_norm_of_channels: "layer_norm",
    functions.rms_norm_of_channels: "rms_norm",
}
#: Ops that a formula writes with a sign between the two.
INFIX: Mapping[str, str] = {"add": "+", "sub": "-", "mul": "*", "div": "/", "pow": "**"}
#: Ops that are steps of their own, since they keep state, draw numbers, set the layout of rows, or take the
#: halves of a tensor.
KEPT = frozenset(
    {
        *("batch_norm", "instance_norm", "group_norm", "dropout", "alpha_dropout", "masked_fill"),
        *(name for name, op in registry().items() if op.parts),
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
OF_CHANNELS = frozenset({functions.layer_norm_of_channels, functions.rms_norm_of_channels})
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
#: Calls of a graph of its own, with what becomes of it.
GRAPHS: Mapping[str, str] = {
    "checkpoint": "a graph of its own, which is fused by itself",
    "tag_activation_checkpoint": "a graph of its own, which Inductor computes",
}
#: What torch computes best.
PRODUCTS = frozenset(
    {
        *(name for name, op in registry().items() if op.source and not op.takes_only_x),
        *("matmul", "mm", "addmm", "baddbmm", "einsum", "scaled_dot_product_attention"),
    }
)


def op_of(node: fx.Node) -> Op | None:
    """Return the op that a node of a captured graph calls."""
    if isinstance(node.target, functions.OfParts):
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
