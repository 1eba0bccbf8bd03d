"""Every op, compiled by itself: both gradchecks, and every dtype against float64 truth."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from conftest import DTYPES, dtype_name
from vocabulary import CHAINS, POSITIVE, lone_ops, names_of

from fusegen import load, pipeline, verify
from fusegen.chain import Chain

#: Ops whose backward in torch holds constants in float32, so that it is no truth for float64.
COARSE = ("celu", "hardsigmoid")


def make_case(op: str, chain: Chain, shape: tuple[int, ...], *, training: bool) -> verify.Case:
    case = verify.make_case(chain, shape, training=training, seed=1)
    return dataclasses.replace(case, x=case.x.abs() + 0.1) if op in POSITIVE else case


def packages(op: str) -> list[str]:
    """Return the packages of an op; a chain is its own."""
    return [op] if op in CHAINS else names_of(op)


ALL = [*lone_ops(), *CHAINS]


@pytest.mark.parametrize("op", ALL)
def test_gradcheck(op: str, vocabulary: Path) -> None:
    for name in packages(op):
        chain = pipeline.derive(vocabulary / "specs" / f"{name}.yaml")
        built = load(name, vocabulary / "generated")
        for training in (False, True) if len(chain.modes) == 2 else (False,):
            case = make_case(op, chain, (3, 5), training=training)
            verify.gradcheck(built, chain, training=training, case=case)


@pytest.mark.parametrize("dtype", DTYPES, ids=dtype_name)
@pytest.mark.parametrize("op", ALL)
def test_against_truth(op: str, dtype: torch.dtype, vocabulary: Path) -> None:
    for name in packages(op):
        chain = pipeline.derive(vocabulary / "specs" / f"{name}.yaml")
        built = load(name, vocabulary / "generated")
        for training in (False, True) if len(chain.modes) == 2 else (False,):
            case = make_case(op, chain, (5, 67), training=training)
            for error in verify.compare(built, chain, case, dtype):
                if op in COARSE and dtype == torch.float64 and error.name == "grad_x":
                    assert error.ulp * torch.finfo(dtype).eps < 1e-7, f"{name}: {error}"
                    continue
                assert error.within, f"{name}, {dtype}: {error}"
