"""A chain by its own programs, in float64, is the chain by torch's functions: value and gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import ROOT
from shared.segment_originals import SEGMENTS
from shared.shaped_originals import doubled

from fusegen.toolchain import pipeline
from fusegen.tools.check.compare import Comparison
from fusegen.tools.check.rounding import EXACT, RandomRounding
from fusegen.tools.check.verify import make_case

CHAINS = sorted((ROOT / "tests" / "chains").glob("*.yaml"))
#: An activation for each number of dims.
SHAPES = {2: (3, 34), 3: (3, 6, 31), 4: (2, 6, 3, 7), 5: (2, 4, 2, 3, 5)}


def assert_same(path: Path, shape: tuple[int, ...] | None = None) -> None:
    chain = pipeline.derive(path)
    shape = shape or doubled(chain, SHAPES[chain.layout.rank or 2])
    for training in (False, True) if chain.moded else (False,):
        case = make_case(chain, shape, training=training)
        comparison = Comparison(chain, case, torch.float32)  # whose truth is torch's
        found, wanted = comparison.programs(EXACT), comparison.truth()
        for name, got, want in zip(comparison.names, found, wanted, strict=True):
            torch.testing.assert_close(
                got, want, rtol=1e-7, atol=1e-9, msg=f"{name}, training={training}: {{}}".format
            )


@pytest.mark.parametrize("path", CHAINS, ids=lambda path: path.stem)
def test_a_chain_of_any_layout(path: Path) -> None:
    assert_same(path)


@pytest.mark.parametrize("name", SEGMENTS)
def test_segments(name: str) -> None:
    assert_same(ROOT / "tests" / "segments" / f"{name}.yaml", SEGMENTS[name][3][0])


def test_an_error_is_of_the_size_that_it_is_drawn_with(tmp_path: Path) -> None:
    """Of a product of three one rounding, of a sum one relative to the magnitudes of its terms."""
    (tmp_path / "erring.yaml").write_text("chain: [{mul: 3}, {sum: {dim: -1}}]")
    chain = pipeline.derive(tmp_path / "erring.yaml")
    case = make_case(chain, (2000, 64), training=False)
    comparison = Comparison(chain, case, torch.float32)
    unit = 2.0**-23
    errors = RandomRounding(unit, unit, 0.0, least=0.0, seed=3)
    off = (comparison.programs(errors)[0] - comparison.programs(EXACT)[0]).double()
    terms = 3 * comparison.given["x"].double()
    size = unit / 2 * (terms.abs().sum(-1).square() + terms.square().sum(-1)).sqrt()
    assert 0.9 < float((off / size).square().mean().sqrt()) < 1.1
