"""A node of a captured graph -> a call of an op, or the reason why it is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from fusegen.models import functions, patterns
from fusegen.models.arguments import (
    Argument,
    UnfitError,
    argument,
    arguments_of,
    attributes_of,
    check_left,
    dims_of,
    listed,
    name_of,
    operands_of,
    size_of,
    tensor_of,
)
from fusegen.models.losses import by_target
from fusegen.ops import Op, find

__all__ = ["Call", "Comparison", "call_of", "call_or_none"]


@dataclass(frozen=True)
class Comparison:
    """A condition that a kernel computes: `left`, one of `< <= > >=`, `right`."""

    left: Argument
    sign: str
    right: Argument


@dataclass(frozen=True)
class Call:
    """What a node computes, in the words of a spec.

    Args:
        op: the op, or None of a cast or a detached tensor, which leave the value as it is.
        x: what the op is called on.
        operands: its operands by name.
        attributes: its attributes by name, those of torch's call that differ from the op's defaults.
        dims: the dims that it reduces or normalises over, counted from the end.
        keepdim: whether a reduced dim is kept, with size 1.
        training: whether it computes as in training.
        features: the number of channels, of an op that is a step of its own.
        condition: what a choice goes by: a comparison, or a tensor of bool.
        ends: whether it is a loss, or the sum or mean of all elements: nothing of its region goes on from it.
        detached: whether it is its x, of which no gradient goes back; it has no op.
        part: which part it is of the sum of its x and its operands; it has no op.
    """

    op: Op | None
    x: Argument
    operands: Mapping[str, Argument] = field(default_factory=dict)
    attributes: Mapping[str, float | int | bool | str] = field(default_factory=dict)
    dims: tuple[int, ...] = ()
    keepdim: bool = True
    training: bool = False
    features: int = 0
    condition: Comparison | fx.Node | None = None
    ends: bool = False
    detached: bool = False
    part: functions.PartOf | None = None

    @property
    def name(self) -> str:
        """The op's name."""
        if self.detached:
            return "detach"
        if self.part is not None:
            return "part"
        return self.op.name if self.op else "cast"

    @property
    def is_step(self) -> bool:
        """Whether a spec has it as a step of its own; of a batch norm in evaluation there is a formula."""
        if (
            self.ends
            or self.part
            or (self.op is not None and (self.op.indexes or self.name in patterns.OF_ONE))
        ):
            return True
        return self.name in patterns.KEPT and (self.training or self.name != "batch_norm")

    @property
    def is_mask(self) -> bool:
        """Whether it is a mask as numbers, 1 or 0."""
        return self.name == "where" and not any(isinstance(n, fx.Node) for n in self._numbers)

    @property
    def of_classes(self) -> bool:
        """Whether it is a loss of classes, whose result lacks their dim, or is one number."""
        return self.op is not None and self.op.over == "channel"

    @property
    def halves(self) -> bool:
        """Whether it takes the two halves of its x, or is a part."""
        return self.part is not None or (self.op is not None and bool(self.op.parts))

    @property
    def inputs(self) -> tuple[fx.Node, ...]:
        """The nodes that it reads, each once."""
        given = self._numbers
        if isinstance(self.condition, Comparison):
            given += [self.condition.left, self.condition.right]
        elif self.condition is not None:
            given.append(self.condition)
        return tuple(dict.fromkeys(a for a in given if isinstance(a, fx.Node)))

    @property
    def _numbers(self) -> list[Argument]:
        """The tensors and numbers that it reads, but for what a choice goes by."""
        return [self.x, *self.operands.values()]


def call_of(node: fx.Node) -> Call:
    """Return what a node computes, in the words of a spec.

    Raises:
        UnfitError: if no op computes it.
    """
    value = tensor_of(node)
    if value is not None and value.is_nested:
        raise UnfitError("a nested tensor, which no kernel reads")
    if node.target is functions.detached and value is not None and value.is_floating_point():
        return Call(None, argument(node.args[0]), detached=True)
    if isinstance(node.target, functions.PartOf):
        x, *terms = map(argument, node.args)
        others = {f"term{number}": term for number, term in enumerate(terms, 2)}
        return Call(None, x, others, {"dim": node.target.dim}, part=node.target)
    if name_of(node) in patterns.VIEWS - patterns.CASTS:
        raise UnfitError("a view or a selection, which computes nothing")
    if name_of(node) in patterns.GRAPHS:
        raise UnfitError(patterns.GRAPHS[name_of(node)])
    if isinstance(node.meta.get("example_value"), tuple):
        raise UnfitError("it gives several tensors")
    op = patterns.op_of(node)
    if value is None or not (value.is_floating_point() or (op is not None and op.indexes)):
        raise UnfitError(
            f"its value is {_kind_of(value)}, and kernels compute floating-point numbers"
        )
    if node.op == "call_method" and node.target in patterns.CASTS:
        return _cast(node, value)
    pooled = _pooled(node)
    if pooled is not None:
        return pooled
    if isinstance(node.target, functions.OfParts):
        return Call(
            op,
            argument(node.args[0]),
            attributes={
                "formula": node.target.formula,
                "parts": node.target.count,
                "alternating": node.target.alternating,
            },
        )
    if op is None and name_of(node) in patterns.PRODUCTS:
        raise UnfitError("a product or a convolution, which torch computes")
    if op is None and name_of(node) in patterns.WINDOWS:
        raise UnfitError("a function of windows or of whole channels, which torch computes")
    if op is None:
        raise UnfitError(f"{name_of(node)} is no op of fusegen")
    given = arguments_of(node, op)
    if node.target in patterns.OF_CHANNELS:
        given["dim"] = 1
    call = _of_op(op, given)
    for used in call.inputs:
        tensor = tensor_of(used)
        classes = call.op is not None and used is call.operands.get(call.op.classes)
        if tensor is None or not (tensor.is_floating_point() or classes or used is call.condition):
            raise UnfitError(
                f"an input is {_kind_of(tensor)}, and kernels read floating-point numbers"
            )
        if tensor.device != value.device:
            raise UnfitError("an input is on another device")
    return call


def _kind_of(value: Tensor | None) -> str:
    """Return what a value is, for a message."""
    return "no tensor" if value is None else f"of {str(value.dtype).removeprefix('torch.')}"


def call_or_none(node: fx.Node) -> Call | None:
    """Return what a node computes, in the words of a spec, or None if no op computes it."""
    try:
        return call_of(node)
    except UnfitError:
        return None


def _pooled(node: fx.Node) -> Call | None:
    """Return a pooling to one value, as of a squeeze-excite block, as the mean that it is."""
    dims = patterns.POOLS.get(name_of(node), 0)
    if not dims or node.op != "call_function":
        return None
    x, size = (*node.args, *node.kwargs.values())[:2]
    if not isinstance(x, fx.Node) or any(s != 1 for s in listed(size)):
        raise UnfitError("a pooling to several values")
    return Call(find("mean"), x, dims=tuple(range(-dims, 0)))


def _cast(node: fx.Node, value: Tensor) -> Call:
    """Return a change of dtype, which of a mask is a choice; a copy to another device or layout is none."""
    before = tensor_of(node.args[0])
    if before is None or before.device != value.device:
        raise UnfitError("a copy to another device")
    extra = {"memory_format", "copy"} & set(node.kwargs)
    if extra or any(isinstance(a, torch.memory_format) for a in node.args):
        raise UnfitError("a copy, or a change of the memory format")
    assert isinstance(node.args[0], fx.Node)
    if before.dtype is torch.bool:
        return Call(find("where"), 1.0, {"other": 0.0}, condition=node.args[0])
    if not before.is_floating_point():
        raise UnfitError(f"a cast of what is {_kind_of(before)}")
    return Call(None, node.args[0])


def _of_op(op: Op, given: dict[str, Any]) -> Call:
    """Return a call of an op with these arguments."""
    x = given.pop("x", None)
    training = bool(given.get("training", given.get("train", False)))
    if op.eval_mode == "identity" and (not training or given.get("p") == 0):
        return Call(None, argument(x))
    if op.name == "batch_norm":
        training = training and given.get("running_mean") is not None
    features = 0
    dims: tuple[int, ...] = ()
    keepdim = bool(given.pop("keepdim", False))
    reads = tensor_of(x)
    if "reduction" in op.attributes:
        return _loss(op, x, given)
    if op.name in ("sum", "mean") and given.get("dim") in (None, [], ()):
        return _of_all(op, x, given, keepdim=keepdim)
    if op.name in patterns.KEPT:
        if reads is None or reads.dim() < 2:
            raise UnfitError(f"{op.name} of fewer than two dims")
        features = size_of(reads.shape[1]) if op.submodule and op.submodule.operands else 0
        given = _of_halves(given, reads) if op.parts else _of_kept(op, given)
    elif op.takes_shape:
        dims = tuple(range(-len(listed(given.pop("normalized_shape", ()))), 0))
        if "dim" in given:  # of channels
            dims = dims_of(given.pop("dim"), reads)
        if op.name == "rms_norm" and given.get("eps") is None:
            if reads is None or reads.dtype not in (torch.float32, torch.float64):
                raise UnfitError("rms_norm of 16 bits without eps")
            given["eps"] = torch.finfo(reads.dtype).eps
    elif op.dims:
        dims = dims_of(given.pop("dim", op.attributes.get("dim")), reads)
    condition = None
    if op.conditions:
        # A step takes a mask; a formula may compare.
        condition = _condition(
            given.pop(op.conditions[0], None), compares=op.name not in patterns.KEPT
        )
    operands, attributes = operands_of(op, given), attributes_of(op, given)
    check_left(op, given)
    if not isinstance(x, fx.Node) and op.name not in (*patterns.INFIX, "where"):
        raise UnfitError(f"{op.name} of a number")
    reduces = op.dims and "keepdim" in op.attributes
    return Call(
        op,
        argument(x),
        operands,
        attributes,
        dims,
        keepdim or not reduces,
        training,
        features,
        condition,
    )


def _loss(op: Op, x: Any, given: dict[str, Any]) -> Call:
    """Return a loss: of each row against its class or the classes' probabilities, or of each element."""
    if not isinstance(x, fx.Node):
        raise UnfitError(f"{op.name} of a number")
    reads = tensor_of(x)
    dims: tuple[int, ...] = ()
    if op.classes:
        op, given = by_target(op, given, reads)
        assert reads is not None
        dims = (1 - reads.dim(),)
    operands, attributes = operands_of(op, given), attributes_of(op, given)
    check_left(op, given)
    reduction = attributes.get("reduction", op.attributes["reduction"])
    if reduction == "batchmean":
        raise UnfitError(f"{op.name} with reduction batchmean")
    ends = bool(dims) or reduction != "none"
    return Call(op, x, operands, attributes, dims, keepdim=not ends, ends=ends)


def _of_all(op: Op, x: Any, given: dict[str, Any], *, keepdim: bool) -> Call:
    """Return the sum or mean of all elements."""
    given.pop("dim", None)
    check_left(op, given)
    if keepdim or not isinstance(x, fx.Node):
        raise UnfitError("a reduction over all dims")
    return Call(op, x, keepdim=False, ends=True)


def _of_halves(given: dict[str, Any], reads: Tensor) -> dict[str, Any]:
    """Return the arguments of a gate of two halves, with their dim counted from the end.

    Raises:
        UnfitError: if they are halves of the rows of a matrix.
    """
    (dim,) = dims_of(given.get("dim", -1), reads)
    if reads.dim() == 2 and dim != -1:
        raise UnfitError("a gate of halves of the first of two dims")
    return {**given, "dim": dim}


def _of_kept(op: Op, given: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of an op with state, in its own words.

    Raises:
        UnfitError: if the op does not do what the arguments say.
    """
    if op.name == "instance_norm":
        if not given.pop("use_input_stats", True) or given.get("running_mean") is not None:
            raise UnfitError("instance_norm with running averages")
        for name in ("running_mean", "running_var", "momentum"):
            given.pop(name, None)
    given.pop("cudnn_enabled", None)
    weights = [given.get(name) is not None for name in ("weight", "bias") if name in op.operands]
    if any(weights) and not all(weights):
        raise UnfitError(f"{op.name} with a weight or a bias alone")
    if op.name == "batch_norm" and (not all(weights) or given.get("running_mean") is None):
        raise UnfitError("batch_norm without a weight, or without running averages")
    return given


def _condition(value: Any, *, compares: bool) -> Comparison | fx.Node:
    """Return what a choice goes by: a comparison if `compares`, else a tensor of bool.

    Raises:
        UnfitError: if it is neither a comparison nor a tensor of bool.
    """
    if not isinstance(value, fx.Node):
        raise UnfitError("a condition that is no tensor")
    sign = patterns.COMPARISONS.get(value.target)
    if compares and sign and len(value.args) == 2 and not value.kwargs:
        left, right = value.args
        tensors = [tensor_of(a) for a in (left, right) if isinstance(a, fx.Node)]
        if all(t is not None and t.is_floating_point() for t in tensors):
            return Comparison(argument(left), sign, argument(right))
    tensor = tensor_of(value)
    if tensor is None or tensor.dtype is not torch.bool:
        raise UnfitError("a condition that is no tensor of bool")
    return value
