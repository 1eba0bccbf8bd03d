"""A chain by its own programs, in float64, is the chain by torch's functions: value and gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from conftest import ROOT
from shared.segment_originals import SEGMENTS
from shared.shaped_originals import doubled

from fusegen.toolchain import pipeline
from fusegen.tools.bench import plain
from fusegen.tools.check.compare import Comparison
from fusegen.tools.check.rounding import EXACT, RandomRounding, StoredRounding
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


@pytest.mark.parametrize("norm", ["layer_norm: {dim: 1}", "rms_norm: {dim: 1, eps: 1e-6}"])
def test_a_norm_of_channels_without_weights(norm: str, tmp_path: Path) -> None:
    """Torch has no function for it, so its own formula is computed, with the defaults of its operands."""
    path = tmp_path / "weightless.yaml"
    path.write_text(f"dims: 3\nchain:\n  - {norm}\n  - tanh\n")
    assert_same(path)
    x = torch.randn(3, 6, 31, dtype=torch.float64)
    of_rows = torch.nn.functional.layer_norm if "layer" in norm else torch.nn.functional.rms_norm
    eps = 1e-5 if "layer" in norm else 1e-6
    wanted = of_rows(x.movedim(1, -1), (6,), eps=eps).movedim(-1, 1).tanh()
    torch.testing.assert_close(plain.tail(pipeline.derive(path), {})(x), wanted)


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


def test_an_example_has_channels_that_the_groups_divide() -> None:
    """So that `fusegen check` can call a group norm whose groups stand in the spec."""
    chain = pipeline.derive(ROOT / "benchmarks" / "specs" / "group_norm.yaml")
    shape = chain.example_shape(33, 257)
    assert shape[1] == 32
    assert make_case(chain, shape, training=False).x.shape == shape


def test_a_sum_of_gradients_is_rounded_where_autograd_adds_them(tmp_path: Path) -> None:
    """A value is an output, and a later segment's x: its gradient is the sum of two of 16 bits."""
    path = tmp_path / "shared.yaml"
    path.write_text(
        "dims: 3\norder: 1\noutputs: [p, m]\nchain:\n"
        "  - softmax: {dim: 1, name: p}\n  - mean: {dim: 0, name: m}\n"
    )
    chain = pipeline.derive(path)
    comparison = Comparison(chain, make_case(chain, (32, 4, 8), training=False), torch.float32)
    rounding = RandomRounding(2**-40, 2**-40, 2**-8, least=0.0, seed=0)
    *_, exact = comparison.programs(EXACT)
    *_, rounded = comparison.programs(rounding)
    # The gradient of the mean is a thirtieth of the other one, and its error is too.
    assert ((rounded - exact).std() / exact.std()).item() > 2**-10


def test_what_is_rounded_alike_between_two_kernels_counts(tmp_path: Path) -> None:
    """The gradient of the bias is a sum of g - mean(g): in 16 bits, g less a small number is g again."""
    path = tmp_path / "centred.yaml"
    path.write_text(
        "dims: 3\norder: 1\noperands: {bias: col}\nchain:\n  - layer_norm: {dim: 2, bias: bias}\n"
        '  - expr: {formula: "x - mean(x)", dim: 1}\n'
    )
    chain = pipeline.derive(path)
    case = make_case(chain, (4, 1024, 3), training=False)
    comparison = Comparison(chain, case, torch.bfloat16)
    *_, truth = comparison.programs(EXACT)
    *_, found = comparison.programs(StoredRounding(torch.bfloat16))
    *_, spread = comparison.spread()
    assert truth.abs().max() < 1e-9 < found.abs().max()
    assert comparison.error("grad_bias", found.bfloat16(), truth, spread).within
