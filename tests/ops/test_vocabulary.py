"""Every op, compiled by itself: both gradchecks, and each of its dtypes against float64 truth."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from _pytest.mark import ParameterSet
from conftest import DTYPES, derive, dtype_name
from shared.vocabulary import ALL, lone_ops, packages, vocabulary_dtypes, where_defined

from fusegen import load
from fusegen.chain import Chain
from fusegen.tools.check import verify

#: Where torch's value in float64 is no truth: hardswish(-inf) is -inf * 0 there.
VALUES: dict[str, Callable[[float], bool]] = {"hardswish": lambda x: x == -math.inf}
#: Nor its gradient: that of x^0.5 at -0 is -inf there, and at -inf NaN. Or it drops one of two infinities
#: whose difference the gradient of an infinite row or logit is.
GRADIENTS: dict[str, Callable[[float], bool]] = {
    "gelu": math.isinf,  # of the tanh form NaN, where 1 and 0 are the limits
    "softsign": math.isinf,  # NaN, where 0 is the limit
    "pow": lambda x: math.copysign(1, x) < 0,
    "var": math.isinf,
    "binary_cross_entropy_with_logits": lambda x: x == -math.inf,
}


def make_case(op: str, chain: Chain, shape: tuple[int, ...], *, training: bool) -> verify.Case:
    case = verify.make_case(chain, shape, training=training, seed=1)
    return dataclasses.replace(case, x=where_defined(op, case.x))


@pytest.mark.parametrize("op", [op for op in ALL if op != "causal_mask"])  # -inf has no differences
def test_gradcheck(op: str, vocabulary: Path) -> None:
    for name in packages(op):
        chain = derive(vocabulary / "specs" / f"{name}.yaml")
        built = load(name, vocabulary / "generated")
        for training in (False, True) if len(chain.modes) == 2 else (False,):
            case = make_case(op, chain, (3, 5), training=training)
            verify.gradcheck(built, chain, training=training, case=case)


def with_dtypes(ops: list[str]) -> list[ParameterSet]:
    """Return each op with each dtype that a package of it is compiled for."""
    return [
        pytest.param(op, dtype, id=f"{op}-{dtype_name(dtype)}")
        for op in ops
        for dtype in DTYPES
        if any(dtype_name(dtype) in vocabulary_dtypes()[name] for name in packages(op))
    ]


def packages_of(op: str, dtype: torch.dtype) -> list[str]:
    """Return the packages of an op that are compiled for a dtype."""
    return [name for name in packages(op) if dtype_name(dtype) in vocabulary_dtypes()[name]]


@pytest.mark.parametrize(("op", "dtype"), with_dtypes(ALL))
def test_against_truth(op: str, dtype: torch.dtype, vocabulary: Path) -> None:
    for name in packages_of(op, dtype):
        chain = derive(vocabulary / "specs" / f"{name}.yaml")
        built = load(name, vocabulary / "generated")
        for training in (False, True) if len(chain.modes) == 2 else (False,):
            case = make_case(op, chain, (5, 67), training=training)
            for error in verify.compare(built, chain, case, dtype):
                assert error.within, f"{name}, {dtype}: {error}"


def extremes(dtype: torch.dtype) -> list[float]:
    """Return zeros, numbers whose exponential overflows, the smallest numbers of a dtype, infinities."""
    info = torch.finfo(dtype)
    found = [0.0, 88.0, 1e4, info.tiny, info.smallest_normal * info.eps, math.inf]
    return [sign * value for value in found for sign in (1, -1)]


@pytest.mark.parametrize(("op", "dtype"), with_dtypes(lone_ops()))
def test_extremes(op: str, dtype: torch.dtype, vocabulary: Path) -> None:
    """A row for each extreme, among plain numbers: values and gradients, in every dtype.

    Where x is NaN so is the value; its gradient is nobody's.
    """
    points = [v for v in extremes(dtype) if op not in VALUES or not VALUES[op](v)]
    slopes = [v for v in points if op not in GRADIENTS or not GRADIENTS[op](v)]
    for name in packages_of(op, dtype):
        chain = derive(vocabulary / "specs" / f"{name}.yaml")
        built = load(name, vocabulary / "generated")
        for given, gradients in (([*points, math.nan], False), (slopes, True)):
            case = make_case(op, chain, (len(given), 5), training=False)
            case.x[:, 2] = torch.tensor(given, dtype=torch.float64)
            for error in verify.compare(built, chain, case, dtype):
                if gradients or error.name == "output":
                    assert error.within, f"{name}, {dtype}: {error}"
