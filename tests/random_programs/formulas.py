"""A formula of a spec by torch's own functions, from its text: Python's grammar, walked by Python's `ast`."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

_BINARY = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_COMPARE = {ast.Lt: torch.lt, ast.LtE: torch.le, ast.Gt: torch.gt, ast.GtE: torch.ge}
_POINTWISE: dict[str, Callable[[Tensor], Tensor]] = {
    "normcdf": torch.special.ndtr,
    "normpdf": lambda x: torch.exp(-x * x / 2) / math.sqrt(2 * math.pi),
    # By logaddexp the derivative would be 0 where an exponential overflows.
    "softplus": lambda x: -torch.nn.functional.logsigmoid(-x),
    **{
        name: getattr(torch, name)
        for name in (
            *(
                "abs",
                "cos",
                "erf",
                "exp",
                "expm1",
                "log",
                "log1p",
                "rsqrt",
                "sigmoid",
                "sign",
                "sin",
            ),
            *(
                "sqrt",
                "tanh",
                "asinh",
                "atan",
                "ceil",
                "cosh",
                "erfc",
                "exp2",
                "floor",
                "log2",
                "round",
            ),
            *("sinh", "tan"),
        )
    },
}


def _sech2(x: Tensor) -> Tensor:
    e = torch.exp(-2 * x.abs())  # 1 / cosh(x)^2 without its overflow
    return 4 * e / (1 + e).square()


_POINTWISE["sech2"] = _sech2


def variance(
    x: Tensor, dims: tuple[int, ...], *, correction: int = 1, keepdim: bool = True
) -> Tensor:
    """Return the variance as operations that noise moves one by one."""
    left = math.prod(x.shape[d] for d in dims) - correction if x.dim() else 0
    if left <= 0:  # a division by 0, but not in the derivative
        return torch.var(x, dims, correction=correction, keepdim=keepdim)
    return (x - x.mean(dims, keepdim=True)).square().sum(dims, keepdim=keepdim) / left


def root(value: Tensor, power: float = 2.0) -> Tensor:
    """Return the root of what is not below 0; its derivative at 0 is 0."""
    flat = value == 0
    return torch.where(flat, 0.0 * value, torch.where(flat, 1.0, value) ** (1 / power))


_OF_ROWS: dict[str, Callable[[Tensor, tuple[int, ...]], Tensor]] = {
    "amax": lambda x, dims: x.amax(dims, keepdim=True),
    "amin": lambda x, dims: x.amin(dims, keepdim=True),
    "max": lambda x, dims: x.amax(dims, keepdim=True),
    "min": lambda x, dims: x.amin(dims, keepdim=True),
    "mean": lambda x, dims: x.mean(dims, keepdim=True),
    "sum": lambda x, dims: x.sum(dims, keepdim=True),
    "var": variance,
    "std": lambda x, dims: root(variance(x, dims)),
    "norm": lambda x, dims: torch.norm(x, 2.0, dims, keepdim=True),
    "logsumexp": lambda x, dims: torch.logsumexp(x, dims, keepdim=True),
    "softmax": lambda x, dims: (
        torch.exp(x - torch.logsumexp(x, dims, keepdim=True))
        if len(dims) > 1
        else torch.softmax(x, dims[0])
    ),
    "log_softmax": lambda x, dims: (
        x - torch.logsumexp(x, dims, keepdim=True)
        if len(dims) > 1
        else torch.log_softmax(x.movedim(dims[0], -1), -1).movedim(-1, dims[0])
    ),
}


def names_of(text: str) -> set[str]:
    """Return the names in a formula, those of functions included."""
    nodes = ast.walk(ast.parse(text, mode="eval"))
    return {node.id for node in nodes if isinstance(node, ast.Name)}


#: Computes a call of an op, given its name, its arguments, its keywords, and the dims of a row.
Called = Callable[[str, list[Any], dict[str, Any], tuple[int, ...]], Tensor]


def _refused(name: str, *_: Any) -> Tensor:
    raise NotImplementedError(name)


def evaluate(
    text: str, values: Mapping[str, Any], dims: tuple[int, ...], called: Called = _refused
) -> Tensor:
    """Return a formula's value.

    Args:
        text: the formula.
        values: what its names stand for, x among them: tensors that broadcast with one another, and numbers.
        dims: the dims that its functions of a row reduce over.
        called: computes its calls of ops.
    """
    like = values["x"]

    def tensor(value: Any) -> Tensor:
        return value if isinstance(value, Tensor) else like.new_tensor(value)

    def walk(node: ast.AST) -> Any:
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            return math.pi if node.id == "pi" else values[node.id]
        if isinstance(node, ast.BinOp):
            return _BINARY[type(node.op)](walk(node.left), walk(node.right))
        if isinstance(node, ast.UnaryOp):
            return -walk(node.operand) if isinstance(node.op, ast.USub) else walk(node.operand)
        assert isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        name = node.func.id
        if name == "where":
            condition, *branches = node.args
            if isinstance(condition, ast.Compare):
                left, right = (tensor(walk(s)) for s in (condition.left, condition.comparators[0]))
                holds = _COMPARE[type(condition.ops[0])](left, right)
            else:
                holds = walk(condition) != 0
            return torch.where(holds, *(tensor(walk(branch)) for branch in branches))
        argument = tensor(walk(node.args[0]))
        if node.keywords or not (name in _POINTWISE or name in _OF_ROWS):
            keywords = {k.arg: _word_or(k.value, walk) for k in node.keywords if k.arg}
            return called(name, [argument, *map(walk, node.args[1:])], keywords, dims)
        if name in _POINTWISE:
            return _POINTWISE[name](argument)
        aligned = argument.reshape([1] * (like.dim() - argument.dim()) + list(argument.shape))
        return _OF_ROWS[name](aligned, dims)

    return tensor(walk(ast.parse(text, mode="eval").body))


def _word_or(node: ast.AST, walk: Callable[[ast.AST], Any]) -> Any:
    """Return an attribute's value: a flag, which is a name in a formula, or else a value."""
    flags = {"true": True, "false": False}
    return flags[node.id] if isinstance(node, ast.Name) and node.id in flags else walk(node)
