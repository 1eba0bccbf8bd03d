"""Losses of x: against a target of the same shape, or against one class per row.

The `target` of `cross_entropy` and `nll_loss` is an operand `{kind: row, dtype: int64}`; int32 is
converted. The classes are dim 1 of x, as in torch: x is [N, C] and the target [N], or, with `dims` of 3
or more, x is [N, C, d1, …] and the target [N, d1, …]. `weight` is an operand of kind `channel`, [C] or
[C, 1, …]; the mean is then weighted by it, as torch's is. A row whose target is not a class gives NaN. A
row whose target is `ignore_index` does not count.

If the `target` of `cross_entropy` is of kind `full`, or an earlier step's value, it is a probability of
each class of each row, as in torch. It gets a gradient, unless it is declared with `gradient: false`.

`reduction: none` keeps the loss of each row. Steps after it weight and add: `- mul: weights`, with
`weights: row`, and `- sum` or `- mean`; both values may be outputs. For a mean weighted by them, pass
weights that add up to 1.
"""

from __future__ import annotations

import math
from typing import Any

import sympy as sp

from fusegen.atoms import (
    COLS,
    ROWS,
    absolute,
    exp,
    let,
    log,
    row_mean,
    row_shift,
    row_sum,
    row_take,
    softplus,
    total,
    undefined,
    where,
)
from fusegen.ops.declare import op
from fusegen.ops.model import Range
from fusegen.program import Kind

_REDUCTIONS = {"reduction": ("none", "mean", "sum")}
_WEIGHT = {"weight": "take reduction: none, and `- mul: weight` and `- sum` after it"}


def _reduced(loss: sp.Expr, reduction: str) -> sp.Expr:
    """Return the loss of each element, or the mean or sum over all elements."""
    if reduction == "none":
        return loss
    return total(loss) / (ROWS * COLS) if reduction == "mean" else total(loss)


@op("nn.functional.mse_loss", choices=_REDUCTIONS, refused=_WEIGHT)
def mse_loss(x: sp.Expr, target: sp.Expr, *, reduction: str = "mean") -> sp.Expr:
    """(x - target)^2. torch.nn.MSELoss."""
    return _reduced((x - target) ** 2, reduction)


@op("nn.functional.l1_loss", choices=_REDUCTIONS, refused=_WEIGHT)
def l1_loss(x: sp.Expr, target: sp.Expr, *, reduction: str = "mean") -> sp.Expr:
    """|x - target|. torch.nn.L1Loss."""
    return _reduced(absolute(x - target), reduction)


@op("nn.functional.smooth_l1_loss", choices=_REDUCTIONS, ranges={"beta": Range(0)})
def smooth_l1_loss(
    x: sp.Expr, target: sp.Expr, *, reduction: str = "mean", beta: float = 1.0
) -> sp.Expr:
    """d^2 / (2 beta) where d = |x - target| < beta, else d - beta / 2. Girshick 2015, arXiv:1504.08083."""
    d = let("difference", x - target)
    far = absolute(d) - beta / 2
    near = d**2 / (2 * beta) if beta != 0 else absolute(d)
    return _reduced(where(absolute(d) >= beta, far, near), reduction)


@op(
    "nn.functional.huber_loss",
    choices=_REDUCTIONS,
    ranges={"delta": Range(0, above=True)},
    refused=_WEIGHT,
)
def huber_loss(
    x: sp.Expr, target: sp.Expr, *, reduction: str = "mean", delta: float = 1.0
) -> sp.Expr:
    """d^2 / 2 where d = |x - target| < delta, else delta (d - delta / 2). Huber 1964; torch.nn.HuberLoss."""
    d = let("difference", x - target)
    near, far = d**2 / 2, delta * (absolute(d) - delta / 2)
    return _reduced(where(absolute(d) >= delta, far, near), reduction)


@op("nn.functional.kl_div", choices={"reduction": ("none", "mean", "sum", "batchmean")})
def kl_div(
    x: sp.Expr, target: sp.Expr, *, reduction: str = "mean", log_target: bool = False
) -> sp.Expr:
    """target (log target - x), of log-probabilities x. Kullback & Leibler 1951; torch.nn.KLDivLoss."""
    entropy = where(sp.Eq(target, 0), 0, target * log(target))
    loss = exp(target) * (target - x) if log_target else entropy - target * x
    return total(loss) / ROWS if reduction == "batchmean" else _reduced(loss, reduction)


@op(
    "nn.functional.binary_cross_entropy_with_logits",
    constant=("weight", "pos_weight"),
    choices=_REDUCTIONS,
)
def binary_cross_entropy_with_logits(
    x: sp.Expr,
    target: sp.Expr,
    weight: sp.Expr | None = None,
    pos_weight: sp.Expr | None = None,
    *,
    reduction: str = "mean",
) -> sp.Expr:
    """weight ((1 - target) softplus(x) + pos_weight target softplus(-x)). torch.nn.BCEWithLogitsLoss."""
    positive = target if pos_weight is None else pos_weight * target
    loss = (1 - target) * softplus(x) + positive * softplus(-x)
    return _reduced(loss if weight is None else weight * loss, reduction)


def _share(weight: sp.Expr | None, target: sp.Expr) -> sp.Expr:
    """Return the weight of a row's class."""
    return sp.Integer(1) if weight is None else let("share", row_take(weight, target))


def _of_rows(
    loss: sp.Expr, share: sp.Expr, target: sp.Expr, ignore: int, reduction: str
) -> sp.Expr:
    """Return the loss of each row, the sum over the rows, or that sum divided by the sum of the rows'
    weights."""

    def counted(value: sp.Expr) -> sp.Expr:
        known = where(target < 0, undefined, where(target < COLS, value, undefined))
        return where(sp.Eq(target, ignore), 0, known)

    losses = counted(let("loss", loss))
    if reduction == "none":
        return losses
    return total(losses) / total(counted(share)) if reduction == "mean" else total(losses)


_ROWS: dict[str, Any] = {
    "classes": "target",
    "constant": ("weight",),
    "kinds": {"weight": Kind.CHANNEL},
    "over": "channel",
    "choices": _REDUCTIONS,
}


@op("nn.functional.nll_loss", **_ROWS)
def nll_loss(
    x: sp.Expr,
    target: sp.Expr,
    weight: sp.Expr | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> sp.Expr:
    """-weight[target] x[target]; NaN where target is no column. torch.nn.NLLLoss."""
    share = _share(weight, target)
    return _of_rows(-share * row_take(x, target), share, target, ignore_index, reduction)


def _of_probabilities(
    x: sp.Expr,
    target: sp.Expr,
    weight: sp.Expr | None = None,
    *,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> sp.Expr:
    """sum weight target (log sum exp(x) - x) over the classes. torch.nn.CrossEntropyLoss."""
    largest = row_shift(x)
    log_sum = let("log_sum", log(row_sum(exp(x - largest))))
    if label_smoothing:
        target = let("smoothed", (1 - label_smoothing) * target + label_smoothing / COLS)
    share = target if weight is None else let("share", weight * target)
    # Nothing cancels: largest - x and log_sum are 0 or more. So all sums of a row are taken at once.
    loss = let("loss", row_sum(share * (largest - x)) + log_sum * row_sum(share))
    if reduction == "none":
        return loss
    return total(loss) / ROWS if reduction == "mean" else total(loss)


@op(
    "nn.functional.cross_entropy",
    ranges={"label_smoothing": Range(-math.inf, 1)},
    by_probabilities=_of_probabilities,
    **_ROWS,
)
def cross_entropy(
    x: sp.Expr,
    target: sp.Expr,
    weight: sp.Expr | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> sp.Expr:
    """weight[target] (log sum exp(x) - x[target]); NaN if target is no column. torch.nn.CrossEntropyLoss.

    With label smoothing s, (1 - s) times that and s mean(weight (log sum exp(x) - x)). With a probability of
    each class as target, sum(weight target (log sum exp(x) - x)) over the classes.
    """
    largest = row_shift(x)
    log_sum = let("log_sum", log(row_sum(exp(x - largest))))
    share = _share(weight, target)
    loss = share * (let("margin", largest - row_take(x, target)) + log_sum)
    if label_smoothing:
        even = _even(largest, x, log_sum, weight)
        loss = (1 - label_smoothing) * loss + label_smoothing * even
    return _of_rows(loss, share, target, ignore_index, reduction)


def _even(largest: sp.Expr, x: sp.Expr, log_sum: sp.Expr, weight: sp.Expr | None) -> sp.Expr:
    """Return a row's loss against a target that is spread evenly over all classes."""
    if weight is None:
        return let("even", (largest - row_mean(x)) + log_sum)
    return let("even", row_mean(weight * ((largest - x) + log_sum)))
