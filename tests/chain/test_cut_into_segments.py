"""Where a chain is cut into segments, and which chains cannot be cut."""

from __future__ import annotations

import pytest

from fusegen.base.errors import SpecError
from fusegen.chain import derive
from fusegen.spec import parse


def segments_of(chain: str, head: str = "dims: 4\n") -> list[str]:
    """Return the labels of each segment's steps."""
    if "gate" in chain and "operands" not in head:
        head += "operands: {gate: {kind: channel, init: ones, shape: [8, 1, 1]}}\n"
    derived = derive(parse(f"order: 1\n{head}chain: [{chain}]\n", "example"))
    return [" ".join(step.label for step in segment.steps) for segment in derived.segments]


@pytest.mark.parametrize(
    ("chain", "segments"),
    [
        ("relu, softmax: 1, tanh, softmax: -3, exp", ["relu softmax tanh softmax_2 exp"]),
        ("relu, softmax: 1, tanh, softmax: 2, exp", ["relu softmax tanh", "softmax_2 exp"]),
        ("sum: {dim: [2, 3]}, relu, logsumexp: {dim: 1}, exp", ["sum relu", "logsumexp exp"]),
        ("sum: {dim: 1}, amax: {dim: 1}, amax: {dim: 1}", ["sum", "amax", "amax_2"]),
        ("sum: {dim: 3}, layer_norm, normalize", ["sum", "layer_norm", "normalize"]),
        ('softmax: 1, expr: "x - mean(x)", softmax: 2', ["softmax expr", "softmax_2"]),
        ('softmax: 1, expr: {formula: "x - mean(x)", dim: [2, 3]}', ["softmax", "expr"]),
        (
            'group_norm: {features: 8, num_groups: 2}, expr: {formula: "max(x)", dim: 2}, tanh',
            ["group_norm", "expr tanh"],
        ),
        # what is reduced in a segment becomes larger there by values of its own, else in a segment of its own
        ("relu: {name: a}, mean: {dim: 1, keepdim: true}, mul: a, exp", ["a mean mul exp"]),
        (
            "relu: {name: a}, mean: {dim: [2, 3], keepdim: true}, softmax: 1, mul: a, softmax: 2",
            ["a mean", "softmax", "mul", "softmax_2"],
        ),
        (
            "mean: {dim: 1, keepdim: true}, relu, add: input, amax: {dim: 1, keepdim: true}, mul: input",
            ["mean relu add amax mul"],
        ),
        (
            "amax: {dim: [1, 2], keepdim: true}, mul: gate, softmax: 1, add: input",
            ["amax", "mul softmax", "add"],
        ),
        # [N, C, 1, 1] is neither one a row nor one a column of a softmax over channels
        (
            "expr: {formula: mean(x), dim: [2, 3], name: m}, mul: input, softmax: 1, add: m",
            ["m mul", "softmax", "add"],
        ),
        # so is [N, 1, H, 1]: it is expanded, in rows of whatever the next step needs
        (
            "amax: {dim: 1, keepdim: true}, amax: {dim: 3, keepdim: true, name: m}, add: input, exp, "
            "softmax: 2, mul: m",
            ["amax", "m", "add exp", "softmax mul"],
        ),
        (
            "expr: {formula: mean(x), dim: [2, 3], name: m}, mul: input, "
            "expr: {formula: softmax(x) * m, dim: 2}",
            ["m mul", "expr"],
        ),
    ],
)
def test_a_chain_is_cut_where_its_dims_change(chain: str, segments: list[str]) -> None:
    assert segments_of(chain) == segments


@pytest.mark.parametrize(
    ("chain", "head", "message"),
    [
        (
            "sum: {dim: 1, keepdim: true}, mul: gate, softmax: 2, mul: gate",
            "dims: 4\noperands: {gate: row}\n",
            "'gate' is of kind row, which is another shape for softmax and the steps after it than for sum",
        ),
        (
            "sum: {dim: [2, 3]}, amax: {dim: 1}, softmax",
            "dims: 4\n",
            "softmax: an earlier step has reduced",
        ),
        (
            "mean, softmax: 1",
            "dims: 4\n",
            "softmax: dim 1 does not exist: an earlier step has reduced",
        ),
        ("softmax: 1, sum, softmax: 2", "dims: 4\n", "softmax_2: dim 2 does not exist: an earlier"),
        (
            "sum: {dim: 1}, softmax: 3",
            "dims: 4\n",
            "dim 3 does not exist: the activation has 3 dims",
        ),
        (
            "relu: {name: a}, sum: {dim: 2}, add: a",
            "dims: 4\n",
            "add: a has 4 dims, and what reaches this step has 3: reduce with keepdim: true",
        ),
        (
            'sum: {dim: 1, keepdim: true}, expr: {formula: "x * gate - mean(x)", dim: 2}',
            "dims: 4\noperands: {gate: full}\n",
            "expr: it reduces, and needs other rows for what it names: make two steps of it",
        ),
        ('expr: {formula: "x - 1", dim: 2}', "dims: 4\n", "its formula reduces nothing; leave the"),
        ('expr: {formula: "mean(x)", dim: 4}', "dims: 4\n", "dim 4 does not exist"),
        ('expr: {formula: "mean(x)", dim: [1, 1]}', "dims: 4\n", "have one twice"),
        (
            'expr: {formula: "mean(x)", dim: x}',
            "dims: 4\n",
            "'dim' of expr must be a dim, or a list",
        ),
        ('expr: {formula: "mean(x)", dims: 1}', "", "expr has no 'dims'; did you mean 'dim'"),
        ("expr: {dim: 1}", "", "expr takes a formula in quotes"),
        ("sum: {dim: -1}, layer_norm", "", "layer_norm: an earlier step has reduced the columns"),
        *(
            (
                f"{op}: {{keepdim: true}}",
                "",
                f"{op}.* gives one number without a dim; leave keepdim out",
            )
            for op in ("sum", "mean", "norm")
        ),
        *(
            (f"{reduced}, dropout: 0.5", "", "dropout: an earlier step has reduced the columns")
            for reduced in ("amax: {dim: -1}", "amax: {dim: -1, keepdim: true}", "sum, tanh")
        ),
        (
            "amin: {dim: -1}, gelu, group_norm: {features: 6, num_groups: 2}",
            "",
            "group_norm: an earlier step has reduced the columns, and it needs 2 dims",
        ),
        (
            "sum: {dim: [0, 1, 2, 3]}, max: {dim: -1, keepdim: true}",
            "dims: 4\n",
            "max: an earlier step has reduced the columns",
        ),
        ("sum: {dim: [1, 2]}, normalize: {dim: 2}", "dims: 4\n", "dim 2 does not exist"),
        (
            "sum: {dim: [0, 1]}, normalize",
            "dims: 3\n",
            "normalize: dim 1 does not exist: an earlier step has reduced to 1 dim",
        ),
        (
            "sum: {dim: 0}, prelu: {num_parameters: 2}",
            "dims: 3\n",
            "prelu: its weight holds a number for each channel, and an earlier step has dropped dims",
        ),
        (
            "amax: {dim: 1, keepdim: true}, nll_loss: {target: t, weight: w}",
            "operands: {t: {kind: row, dtype: int64}, w: channel}\n",
            "nll_loss: its w holds a number for each channel, and an earlier step has reduced them",
        ),
        (
            "amax: {dim: 1, keepdim: true}, prelu: {num_parameters: 40}",
            "dims: 2\n",
            "prelu: its weight holds a number for each channel, and an earlier step has reduced",
        ),
        (
            "sum: {dim: 1, keepdim: true}, batch_norm: {features: 6}",
            "dims: 4\n",
            "batch_norm: its running_mean holds a number for each channel",
        ),
        (
            "amin: {dim: -1, keepdim: true}, rms_norm: {dim: -1, weight: w, eps: 0.1}",
            "dims: 3\noperands: {w: col}\n",
            "rms_norm: its weight has a number for each column, and an earlier step has reduced these",
        ),
        (
            "sum: {dim: [2, 3]}, instance_norm: {features: 3}",
            "dims: 4\n",
            "instance_norm needs dims after the channel",
        ),
    ],
)
def test_what_cannot_be_is_refused(chain: str, head: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        segments_of(chain, head)
