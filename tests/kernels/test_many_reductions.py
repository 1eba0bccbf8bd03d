"""A stage may reduce more than the CPU's vector loop has names for (forms/cpu_sweep.h)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fusegen import load
from fusegen.toolchain import builder, pipeline
from fusegen.tools.check import verify

SUMS = " + ".join(f"mean(x * abs(x + {k}))" for k in range(1, 10))
MAXIMA = " + ".join(f"amax({k} - abs(x - {k}))" for k in range(1, 6))


@pytest.mark.slow
@pytest.mark.usefixtures("native")
@pytest.mark.parametrize(("name", "formula"), [("sums", SUMS), ("maxima", MAXIMA)])
def test_a_formula_with_many(name: str, formula: str, tmp_path: Path) -> None:
    path = tmp_path / f"many_{name}.yaml"
    path.write_text(f'order: 1\nchain:\n  - expr: "x * ({formula})"\n')
    builder.build([path], out=tmp_path / "out", backend="cpu", dtypes=["float64", "float32"])
    chain, package = pipeline.derive(path), load(path.stem, tmp_path / "out")
    for shape in ((3, 33), (5, 1023)):
        case = verify.make_case(chain, shape, training=False, seed=2)
        for dtype in (torch.float64, torch.float32):
            for error in verify.compare(package, chain, case, dtype):
                assert error.within, f"{shape} {dtype}: {error}"
