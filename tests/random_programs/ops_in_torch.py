"""Each op by torch's own functions: the one that it is declared to equal, or one written out here."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fusegen.ops import Op
from random_programs.formulas import root, variance

Value = Tensor | float | None


def as_dims(dim: Any) -> tuple[int, ...]:
    return tuple(dim) if isinstance(dim, (list, tuple)) else (dim,)


def _in_torch(op: Op) -> Callable[..., Any]:
    return functools.reduce(getattr, op.torch.split("."), torch)


#: torch's functions that take tensors alone in their operands' places.
_TENSORS = ("minimum", "maximum", "lerp", "addcmul", "logaddexp", "hypot", "atan2")


def declared(op: Op, x: Tensor, *operands: Value, **attributes: Any) -> Tensor:
    """Return the torch function that an op is declared to equal."""
    if op.name in _TENSORS:
        operands = tuple(_tensor(v, x) for v in operands)
    # Along another dim than the last torch subtracts the maximum and the logarithm as one number, with the
    # digits of the larger.
    if op.one_in_torch and (len(as_dims(attributes["dim"])) > 1 or op.name == "log_softmax"):
        return _as_one_dim(op, x, **attributes)
    result = _in_torch(op)(x, *operands, **attributes)
    return result if isinstance(result, Tensor) else result.values


def _as_one_dim(op: Op, x: Tensor, *, dim: Any) -> Tensor:
    """Return a function of one dim over several: they are moved after the others, joined, and moved back."""
    dims = sorted(d % x.dim() for d in as_dims(dim))
    last = list(range(-len(dims), 0))
    moved = x.movedim(dims, last)
    found: Tensor = _in_torch(op)(moved.flatten(-len(dims)), dim=-1)
    return found.reshape(moved.shape).movedim(last, dims)


def _tensor(value: Value, x: Tensor) -> Tensor:
    return value if isinstance(value, Tensor) else x.new_tensor(value)


def _where(x: Tensor, condition: Value, other: Value) -> Tensor:
    return torch.where(_tensor(condition, x) != 0, x, other)  # type: ignore[arg-type]


def _masked_fill(x: Tensor, mask: Value, *, value: float) -> Tensor:
    return torch.where(_tensor(mask, x) != 0, value, x)


# Where torch's own function is one operation whose derivative has a root, it is written out here: the noise
# then moves the terms that cancel.


def _swish(x: Tensor, beta: float = 1.0) -> Tensor:
    return x * torch.sigmoid(beta * x)


def _glu(x: Tensor, gate: Tensor) -> Tensor:
    return x * torch.sigmoid(_tensor(gate, x))


def _gelu(x: Tensor, approximate: str = "none") -> Tensor:
    if approximate == "none":
        return x * torch.special.ndtr(
            x
        )  # torch computes 1 + erf, of which nothing is left below -8
    return x * 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def _celu(x: Tensor, alpha: float = 1.0) -> Tensor:
    # torch's derivative has 1 / alpha in float32, in float64 too.
    return torch.where(x > 0, x, alpha * torch.expm1(x.clamp(max=0.0) / alpha))


def _hardsigmoid(x: Tensor) -> Tensor:
    # torch has 1/6 in float32, in float64 too.
    return torch.where(x <= -3, 0.0, torch.where(x >= 3, 1.0, (x + 3) / 6))


def _hardswish(x: Tensor) -> Tensor:
    return torch.where(x <= -3, 0.0, torch.where(x >= 3, x, x * (x + 3) / 6))


def _geglu(x: Tensor, gate: Tensor, approximate: str) -> Tensor:
    return x * _gelu(_tensor(gate, x), approximate)


def _standardised(x: Tensor, dims: Sequence[int], eps: float) -> Tensor:
    """Return (x - mean) / sqrt(var + eps) over some dims, as operations that noise moves one by one."""
    dims = tuple(dims)
    centred = x - x.mean(dims, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(dims, keepdim=True) + eps)


def affine(x: Tensor, weight: Value, bias: Value = None) -> Tensor:
    found = x if weight is None else x * weight
    return found if bias is None else found + bias


def _over(x: Tensor, dim: Any, function: Callable[..., Tensor], eps: float) -> Tensor:
    """Return a norm of torch over any neighbouring dims: they are moved after the others and back."""
    dims = sorted(d % x.dim() for d in as_dims(dim))
    last = list(range(-len(dims), 0))
    sizes = [x.shape[d] for d in dims]
    return function(x.movedim(dims, last), sizes, eps=eps).movedim(last, dims)


def _layer_norm(x: Tensor, weight: Value, bias: Value, *, eps: float, dim: Any) -> Tensor:
    return affine(_over(x, dim, F.layer_norm, eps), weight, bias)


def _exact_layer_norm(x: Tensor, weight: Value, bias: Value, *, eps: float, dim: Any) -> Tensor:
    return affine(_standardised(x, as_dims(dim), eps), weight, bias)


def _rms_norm(x: Tensor, weight: Value, *, eps: float, dim: Any) -> Tensor:
    return affine(_over(x, dim, F.rms_norm, eps), weight)


def _var(x: Tensor, *, dim: Any, correction: int, keepdim: bool) -> Tensor:
    return variance(x, as_dims(dim), correction=correction, keepdim=keepdim)


def _std(x: Tensor, **attributes: Any) -> Tensor:
    return root(_var(x, **attributes))


def _norm(x: Tensor, *, p: Any, dim: Any, keepdim: bool) -> Tensor:
    return torch.norm(x, float(p), dim, keepdim)


def _exact_norm(x: Tensor, *, p: Any, dim: Any, keepdim: bool) -> Tensor:
    """Return the norm by its definition, whose powers may leave the range where torch's own does not."""
    power = float(p)
    if math.isinf(power) or power == 0:
        return _norm(x, p=p, dim=dim, keepdim=keepdim)
    dims = tuple(range(x.dim())) if dim is None else as_dims(dim)
    size = x.abs()
    added = (size * size if power == 2 else size**power).sum(dims, keepdim=keepdim)
    return root(added, power)


def _exact_normalize(x: Tensor, *, p: Any, dim: Any, eps: float) -> Tensor:
    """Return x over its norm by that definition."""
    return x / _exact_norm(x, p=p, dim=dim, keepdim=True).clamp_min(eps)


def _exact_cross_entropy(
    x: Tensor, target: Value, *weights: Value, reduction: str = "mean"
) -> Tensor:
    """Return the binary cross entropy as operations that noise moves one by one: its terms may cancel."""
    aim = _tensor(target, x)
    known = [x.new_tensor(1.0) if w is None else _tensor(w, x).detach() for w in weights]
    weight, positive = (*known, *[x.new_tensor(1.0)] * 2)[:2]
    none = torch.zeros_like(x)
    loss = (1 - aim) * torch.logaddexp(x, none) + positive * aim * torch.logaddexp(-x, none)
    found: Tensor = weight * loss
    return found if reduction == "none" else getattr(found, reduction)()


def _instance_norm(x: Tensor, weight: Value, bias: Value, *, eps: float) -> Tensor:
    return affine(F.instance_norm(x, eps=eps), *_of_channel(x, weight, bias))


def _exact_instance_norm(x: Tensor, weight: Value, bias: Value, *, eps: float) -> Tensor:
    F.instance_norm(x.detach(), eps=eps)  # refuses what has one value a channel
    return affine(_standardised(x, range(2, x.dim()), eps), *_of_channel(x, weight, bias))


def _group_norm(x: Tensor, weight: Value, bias: Value, *, num_groups: int, eps: float) -> Tensor:
    found = F.group_norm(x, int(num_groups), eps=eps)
    return affine(found, *_of_channel(x, weight, bias))


def _exact_group_norm(
    x: Tensor, weight: Value, bias: Value, *, num_groups: int, eps: float
) -> Tensor:
    F.group_norm(x.detach(), int(num_groups), eps=eps)  # refuses what has one value a group
    groups = x.reshape(x.shape[0], int(num_groups), -1)
    found = _standardised(groups, (-1,), eps).reshape(x.shape)
    return affine(found, *_of_channel(x, weight, bias))


def _of_channel(x: Tensor, *values: Value) -> list[Value]:
    wide = (1, -1, *[1] * (x.dim() - 2))
    return [v.reshape(wide) if isinstance(v, Tensor) and v.numel() > 1 else v for v in values]


def _prelu(x: Tensor, weight: Tensor) -> Tensor:
    return F.prelu(x, weight.flatten())


def _elementwise(name: str) -> Callable[..., Tensor]:
    """Return a loss of targets that broadcast."""

    def loss(x: Tensor, target: Value, *more: Value, **attributes: Any) -> Tensor:
        function = getattr(F, name)
        weights = dict(zip(("weight", "pos_weight"), more, strict=False))
        given = {n: _tensor(v, x).detach() for n, v in weights.items() if v is not None}
        both = torch.broadcast_tensors(x, _tensor(target, x), *given.values())[:2]
        return function(*both, **given, **attributes)

    return loss


def _of_classes(name: str) -> Callable[..., Tensor]:
    def loss(x: Tensor, target: Tensor, weight: Value, **attributes: Any) -> Tensor:
        known = None if weight is None else _tensor(weight, x).detach().flatten().expand(x.shape[1])
        # The derivative of an image's loss is refused where that is not contiguous.
        return getattr(F, name)(x.contiguous(), target, weight=known, **attributes)

    return loss


def _causal_mask(x: Tensor, position: Tensor) -> Tensor:
    """Mask along the dim that `position` lacks, the last one that it can be."""
    shape = list(x.shape)
    kept = [n for n in position.shape if n != 1]
    for last in range(x.dim(), 0, -1):
        for first in reversed(range(last)):
            if [n for n in shape[:first] + shape[last:] if n != 1] == kept:
                counts = [1] * first + shape[first:last] + [1] * (x.dim() - last)
                columns = torch.arange(math.prod(counts)).reshape(counts)
                rows = [*shape[:first], *[1] * (last - first), *shape[last:]]
                return x.masked_fill(position.reshape(rows) < columns, -math.inf)
    # An earlier step has dropped the columns.
    return x.masked_fill(position.reshape(x.shape) < 0, -math.inf)


def _rotate_half(x: Tensor, *, interleaved: bool) -> Tensor:
    if interleaved:
        return torch.stack((-x[..., 1::2], x[..., ::2]), -1).flatten(-2)
    first, second = x.chunk(2, -1)
    return torch.cat((-second, first), -1)


def _rope(
    x: Tensor,
    cos: Value,
    sin: Value,
    *,
    interleaved: bool,
    partial_rotary_factor: float,
    per_pair: bool,
) -> Tensor:
    width = round(x.shape[-1] * partial_rotary_factor)
    turned, rest = x[..., :width], x[..., width:]
    tables = [_tensor(t, x).detach() for t in (cos, sin)]
    if per_pair:
        tables = [
            t.repeat_interleave(2, -1) if interleaved else torch.cat((t, t), -1) for t in tables
        ]
    found = turned * tables[0] + _rotate_half(turned, interleaved=interleaved) * tables[1]
    return torch.cat((found, rest), -1)


#: Ops that torch has under another form, or not at all.
OWN: dict[str, Callable[..., Tensor]] = {
    "causal_mask": _causal_mask,
    "celu": _celu,
    "cross_entropy": _of_classes("cross_entropy"),
    "geglu": _geglu,
    "gelu": _gelu,
    "glu": _glu,
    "group_norm": _group_norm,
    "hardsigmoid": _hardsigmoid,
    "hardswish": _hardswish,
    "instance_norm": _instance_norm,
    "layer_norm": _layer_norm,
    "mish": lambda x: x * torch.tanh(F.softplus(x)),
    "nll_loss": _of_classes("nll_loss"),
    "norm": _norm,
    "prelu": _prelu,
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "reglu": lambda x, gate: x * F.relu(_tensor(gate, x)),
    "rms_norm": _rms_norm,
    "rope": _rope,
    "rotate_half": _rotate_half,
    "swiglu": lambda x, gate, beta: x * _swish(_tensor(gate, x), beta),
    "swish": _swish,
    "where": _where,
    "masked_fill": _masked_fill,
    **{
        name: _elementwise(name)
        for name in (
            *("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss", "kl_div"),
            "binary_cross_entropy_with_logits",
        )
    },
}
#: The same where few digits are to stay exact.
WRITTEN_OUT: dict[str, Callable[..., Tensor]] = {
    "binary_cross_entropy_with_logits": _exact_cross_entropy,
    "group_norm": _exact_group_norm,
    "instance_norm": _exact_instance_norm,
    "layer_norm": _exact_layer_norm,
    "norm": _exact_norm,
    "normalize": _exact_normalize,
    "std": _std,
    "var": _var,
}
