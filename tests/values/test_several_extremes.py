"""Extremes of a row that one stage finds together: as many as a loop has variables for, and more."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import built_alone


@pytest.mark.parametrize("count", [3, 4, 5])
def test_several_extremes_of_a_row(count: int, tmp_path: Path) -> None:
    terms = ["max(x)", "2 * max(-x)", "3 * max(x**2 - x)", "5 * max(sin(x))", "7 * max(x**3)"]
    formula = " + ".join(["x", *terms[:count]])
    text = f'order: 1\ndtypes: [float64]\nchain: [expr: "{formula}"]\n'
    apply = built_alone(tmp_path, f"extremes_{count}", text, [torch.float64]).apply
    for cols in (7, 33, 1023):
        x = torch.randn(4, cols, dtype=torch.float64, requires_grad=True)
        values = [x, -x, x**2 - x, x.sin(), x**3]
        factors = [1.0, 2.0, 3.0, 5.0, 7.0]
        wanted = x + sum(
            factor * value.amax(-1, keepdim=True)
            for factor, value in zip(factors[:count], values[:count], strict=True)
        )
        cotangent = torch.randn(4, cols, dtype=torch.float64)
        found = apply(x)
        torch.testing.assert_close(found, wanted)
        torch.testing.assert_close(
            torch.autograd.grad(found, x, cotangent), torch.autograd.grad(wanted, x, cotangent)
        )
