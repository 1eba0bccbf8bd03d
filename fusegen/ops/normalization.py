"""Norms: of a row by its own statistics, or of a column by statistics of the batch or running ones.

`batch_norm`, `instance_norm` and `group_norm` are as wide as the source before them. Without a source,
give `features`. `affine: true` gives `instance_norm` a weight and a bias; `affine: false` leaves
`group_norm` without, as in torch. `dtype: float32` says that their parameters, and running averages, are
of float32 beside an x of 16 bits.

`batch_norm` in training uses the statistics of the batch, per column. With `dims` of 3 or more a row then
is the channels, so the steps of its segment reduce over dim 1 or not at all. In training `apply` updates
the running averages that it is given, as torch's function does. `num_groups` of `group_norm` is a number
or an int argument. A row then is the channels of one group with all dims after them. A step that reduces
over anything else starts another segment.

`layer_norm` and `rms_norm` have no parameters, or operands as `weight` and `bias`. With
`elementwise_affine: true` `Module` keeps a `torch.nn.LayerNorm` or `torch.nn.RMSNorm` for the last dim,
with the step's name. They are as wide as a `linear` before them; otherwise give `features`. For several
dims it is a list, `features: [channels, 32, 32]`, or a shape argument beside `dim: [2, 3]`. For a
shape of another length the `Module` runs in torch.
"""

from __future__ import annotations

import sympy as sp

from fusegen.atoms import ROWS, SAMPLE, column_sum, let, row_mean, rsqrt, sample_sum, where
from fusegen.ops.declare import op
from fusegen.ops.model import Submodule
from fusegen.ops.reductions import norm
from fusegen.program import Kind

_SHAPE = {
    "normalized_shape": "give the dims that it is of, dim: [2, 3]; by default the last",
}
_STATISTICS = "an instance is normalised by its own statistics; for running ones take batch_norm"
_HELD = ("running_mean", "running_var", "weight", "bias")


def _of_the_batch(
    x: sp.Expr,
    running_mean: sp.Expr,
    running_var: sp.Expr,
    weight: sp.Expr,
    bias: sp.Expr,
    *,
    eps: float,
    momentum: float,
) -> sp.Expr:
    """(x - mean) rsqrt(var + eps) weight + bias, of the batch.

    The sums are relative to the mean of a sixteenth of the rows, at most sqrt(15) standard deviations from
    that of all: four bits of the variance are lost at most, and one pass finds both. (Shifted data: Chan,
    Golub & LeVeque 1983, "Algorithms for computing the sample variance".)
    """
    near = let("near", x - sample_sum(x) / SAMPLE)
    offset = let("offset", column_sum(near) / ROWS)
    mean = let("mean", sample_sum(x) / SAMPLE + offset)
    var = let("var", column_sum(near**2) / ROWS - offset**2)
    return (x - mean) * (rsqrt(var + eps) * weight) + bias


@op(
    "nn.functional.batch_norm",
    kinds=dict.fromkeys(_HELD, Kind.CHANNEL),
    trained=_of_the_batch,
    tracked={"running_mean": "mean", "running_var": "var"},
    submodule=Submodule(
        "nn.BatchNorm{n}d",
        sized_by=("features",),
        keywords=("eps", "momentum"),
        operands=_HELD,
        buffers=("running_mean", "running_var"),
        fixed={"track_running_stats": True},
    ),
    refused={
        "affine": "it has a weight and a bias; fill them with 1 and 0",
        "track_running_stats": "it has running averages, which evaluation takes",
    },
)
def batch_norm(
    x: sp.Expr,
    running_mean: sp.Expr,
    running_var: sp.Expr,
    weight: sp.Expr,
    bias: sp.Expr,
    *,
    eps: float = 1e-5,
    momentum: float = 0.1,
) -> sp.Expr:
    """(x - running_mean) rsqrt(running_var + eps) weight + bias. Ioffe & Szegedy 2015, arXiv:1502.03167."""
    return (x - running_mean) * (rsqrt(running_var + eps) * weight) + bias


def _standardised(x: sp.Expr, eps: float) -> sp.Expr:
    """(x - mean) rsqrt(var + eps) over a row."""
    centred = let("centred", x - row_mean(x))
    return centred * let("rstd", rsqrt(row_mean(centred**2) + eps))


@op(
    "nn.functional.instance_norm",
    over="inner",
    several_values=True,
    kinds=dict.fromkeys(("weight", "bias"), Kind.CHANNEL),
    submodule=Submodule(
        "nn.InstanceNorm{n}d",
        sized_by=("features",),
        keywords=("eps",),
        operands=("weight", "bias"),
        flag="affine",
        flagged=False,
        fixed={"track_running_stats": False, "running_mean": None},
    ),
    refused=dict.fromkeys(
        ("momentum", "running_mean", "running_var", "use_input_stats", "track_running_stats"),
        _STATISTICS,
    ),
)
def instance_norm(
    x: sp.Expr, weight: sp.Expr = 1, bias: sp.Expr = 0, *, eps: float = 1e-5
) -> sp.Expr:
    """(x - mean) rsqrt(var + eps) weight + bias of each channel. Ulyanov et al. 2016, arXiv:1607.08022."""
    return _standardised(x, eps) * weight + bias


@op(
    "nn.functional.group_norm",
    groups="num_groups",
    several_values=True,
    kinds=dict.fromkeys(("weight", "bias"), Kind.CHANNEL),
    submodule=Submodule(
        "nn.GroupNorm",
        sized_by=("num_groups", "features"),
        keywords=("eps",),
        operands=("weight", "bias"),
        flag="affine",
    ),
)
def group_norm(
    x: sp.Expr, weight: sp.Expr = 1, bias: sp.Expr = 0, *, num_groups: int, eps: float = 1e-5
) -> sp.Expr:
    """(x - mean) rsqrt(var + eps) weight + bias of each group of channels. Wu & He 2018, arXiv:1803.08494."""
    return _standardised(x, eps) * weight + bias


def _owned(module: str, *operands: str) -> Submodule:
    """Return the module of a norm of the last dims with parameters of its own."""
    return Submodule(
        module,
        sized_by=("features",),
        keywords=("eps",),
        operands=operands,
        flag="elementwise_affine",
        row_shape="normalized_shape",
    )


@op(
    "nn.functional.layer_norm",
    own=("dim",),
    dims=("dim",),
    several=True,
    kinds={"weight": Kind.COL, "bias": Kind.COL},
    owned=_owned("nn.LayerNorm", "weight", "bias"),
    refused=_SHAPE,
)
def layer_norm(
    x: sp.Expr, weight: sp.Expr = 1, bias: sp.Expr = 0, *, eps: float = 1e-5, dim: int = -1
) -> sp.Expr:
    """(x - mean) rsqrt(var + eps) weight + bias over a row. Ba et al. 2016, arXiv:1607.06450."""
    return _standardised(x, eps) * weight + bias


@op(
    "nn.functional.rms_norm",
    own=("dim",),
    dims=("dim",),
    several=True,
    kinds={"weight": Kind.COL},
    owned=_owned("nn.RMSNorm", "weight"),
    refused=_SHAPE,
)
def rms_norm(x: sp.Expr, weight: sp.Expr = 1, *, eps: float, dim: int = -1) -> sp.Expr:
    """x rsqrt(mean(x^2) + eps) weight over a row. Zhang & Sennrich 2019, arXiv:1910.07467."""
    return x * let("rstd", rsqrt(row_mean(x**2) + eps)) * weight


@op("nn.functional.normalize", dims=("dim",), several=True)
def normalize(x: sp.Expr, *, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> sp.Expr:
    """x / max(norm, eps), norm = (sum |x|^p)^(1/p). torch.nn.functional.normalize."""
    size = let("norm", norm.formula(x, p=p, dim=dim))
    return x / let("length", where(size < eps, eps, size))
