"""The numbers of columns with the largest and the smallest values: outputs of int64 without a gradient."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from conftest import DEVICES, dtypes_on_devices
from random_programs.build import EVERY
from shared.chains_of_texts import built_texts, hold_each_shape
from torch import Tensor
from torch.nn import functional as F

from fusegen.base.errors import SpecError, UserError
from fusegen.chain import Chain
from fusegen.spec import parse
from fusegen.tools.bench.subjects import subject
from fusegen.tools.check import verify
from fusegen.tools.tune import tune

ALONE = "chain:\n  - argmin: {dim: -1}\n"
#: A norm's value beside the number of its largest.
BESIDE = """
operands: {bias: col}
outputs: [norm, best]
chain:
  - add: bias
  - layer_norm: {name: norm}
  - argmax: {name: best, dim: -1, keepdim: true}
"""
#: A loss, and what tells how many were right, in one sweep over the classes of each place.
LOSS = """
dims: 3
operands: {target: {kind: row, dtype: int64}}
outputs: [best, loss]
chain:
  - argmax: {name: best, dim: 1, keepdim: true}
  - expr: "input"
  - cross_entropy: {name: loss, target: target}
"""
#: After a product, where a changed submodule has torch run each step.
MODEL = """
arguments: {in_features: int, out_features: int}
outputs: [best, gated]
chain:
  - linear: {name: matmul}
  - argmax: {name: best, dim: 1}
  - expr: {formula: "matmul * sigmoid(matmul)", name: gated}
"""
TEXTS = {"index_alone": ALONE, "index_beside": BESIDE, "index_loss": LOSS, "index_model": MODEL}
DTYPES = {**dict.fromkeys(TEXTS, ("float64", "bfloat16")), "index_alone": EVERY}
MATRICES = [(1, 1), (2, 31), (5, 33), (3, 2, 1023), (2, 70001)]
SHAPES = {
    **dict.fromkeys(TEXTS, MATRICES),
    "index_loss": [(1, 1, 1), (2, 5, 7), (3, 33, 31)],
    "index_model": [(1, 1), (5, 33)],
}


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Chain, ModuleType]]:
    """Gives the chain and the built package of each spec."""
    return built_texts(tmp_path_factory, "indexes", TEXTS, DTYPES)


Indexed = dict[str, tuple[Chain, ModuleType]]


@pytest.mark.parametrize(("name", "dtype", "device"), dtypes_on_devices(TEXTS, DTYPES))
def test_every_shape(name: str, dtype: torch.dtype, device: str, indexed: Indexed) -> None:
    hold_each_shape(indexed[name], SHAPES[name], dtype, device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", TEXTS)
def test_gradcheck(name: str, device: str, indexed: Indexed) -> None:
    chain, package = indexed[name]
    verify.gradcheck(package, chain, training=False, device=device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [getattr(torch, name) for name in EVERY])
def test_ties_infinities_and_nan_are_torchs(
    dtype: torch.dtype, device: str, indexed: Indexed
) -> None:
    """Of all rows of four of these numbers, and at places of a longer row."""
    edges = torch.tensor([-torch.inf, -1.0, -0.0, 0.0, 1.0, torch.inf, torch.nan])
    rows = torch.cartesian_prod(*[edges] * 4)
    long = rows.repeat(1, 40)[:100, :133].flip(1)
    for x in (rows, long, torch.zeros(3, 1023)):
        x = x.to(device, dtype)
        found = indexed["index_alone"][1].apply(x)
        assert found.dtype is torch.int64
        assert torch.equal(found, x.argmin(-1))


def test_the_other_output_has_a_gradient(indexed: Indexed) -> None:
    x = torch.randn(5, 33, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(33, dtype=torch.float64)
    norm, best = indexed["index_beside"][1].apply(x, bias)
    wanted = F.layer_norm(x + bias, (33,))
    assert torch.equal(best, wanted.argmax(-1, keepdim=True))
    assert not best.requires_grad
    got = torch.autograd.grad(norm.square().cos().sum(), x, create_graph=True)[0]
    expected = torch.autograd.grad(wanted.square().cos().sum(), x, create_graph=True)[0]
    torch.testing.assert_close(got, expected)
    seconds = [torch.autograd.grad(g.square().sum(), x)[0] for g in (got, expected)]
    torch.testing.assert_close(*seconds)


def test_a_loss_and_how_many_were_right(indexed: Indexed) -> None:
    x = torch.randn(4, 6, 5, dtype=torch.float64)
    target = torch.randint(6, (4, 5))
    best, loss = indexed["index_loss"][1].apply(x, target)
    assert torch.equal(best.squeeze(1) == target, x.argmax(1) == target)
    torch.testing.assert_close(loss, F.cross_entropy(x, target))


def test_a_module_runs_it_by_torch_if_its_source_is_changed(indexed: Indexed) -> None:
    module = indexed["index_model"][1].Module(5, 7).double()
    x = torch.randn(3, 5, dtype=torch.float64)
    best, gated = module(x)
    module.matmul.register_forward_hook(lambda *_: None)
    again, also = module(x)
    assert torch.equal(best, again)
    torch.testing.assert_close(gated, also)


def test_transforms_and_compilers_see_numbers(indexed: Indexed) -> None:
    package = indexed["index_beside"][1]
    x, bias = torch.randn(4, 3, 8, dtype=torch.float64), torch.randn(8, dtype=torch.float64)

    def best(x: Tensor) -> Tensor:
        found: Tensor = package.apply(x, bias)[1]
        return found

    wanted = (x + bias).argmax(-1, keepdim=True)
    assert torch.equal(torch.func.vmap(best)(x), wanted)
    compiled = torch.compile(lambda x: best(x) + 1, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(x), wanted + 1)
    value, tangent = torch.func.jvp(lambda x: package.apply(x, bias)[0], (x,), (x,))
    assert value.shape == tangent.shape == x.shape


def test_rows_without_columns_have_no_number(indexed: Indexed) -> None:
    package = indexed["index_alone"][1]
    assert package.apply(torch.randn(0, 4)).shape == (0,)
    with pytest.raises(
        ValueError, match="expected rows of 1 to 16,777,216 elements to number, got 0"
    ):
        package.apply(torch.randn(3, 0))
    wide = torch.zeros(1).expand(1, 2**24 + 1)
    with pytest.raises(ValueError, match="got 16,777,217; convert x to float64"):
        package.apply(wide)


def test_it_is_neither_timed_nor_tuned(tmp_path: Path) -> None:
    path = tmp_path / "number.yaml"
    path.write_text(ALONE)
    with pytest.raises(UserError, match="numbers of columns, which have no backward to time"):
        subject(SimpleNamespace(spec=path, number=0), None)  # type: ignore[arg-type] # it reads no more
    with pytest.raises(UserError, match="numbers of columns, which have no backward to tune"):
        tune(path, None, print)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("chain:\n  - argmax\n", "argmax needs 'dim'", 2),
        (
            "chain:\n  - argmax: {dim: -1, keepdim: true}\n  - gelu\n",
            "argmax gives numbers of columns, of int64, and gelu calculates with them: make argmax the last",
            3,
        ),
        (
            "chain:\n  - argmax: {name: best, dim: -1, keepdim: true}\n"
            '  - expr: "input"\n  - add: best\n',
            "best gives numbers of columns, of int64, and add calculates with them",
            4,
        ),
        (
            "outputs: [{name: argmax, dtype: float32}]\nchain:\n  - argmax: {dim: -1}\n",
            "argmax is of int64, which a dtype cannot change",
            1,
        ),
        (
            'chain:\n  - expr: "x * argmax(x)"\n',
            "a formula cannot call argmax, which gives the number of a column",
            2,
        ),
        (
            'chain:\n  - argmax: {name: best, dim: -1}\n  - expr: "2 * input"\n',
            "nothing uses the value of best",
            2,
        ),
    ],
)
def test_a_spec_that_cannot_be_is_refused(text: str, message: str, line: int) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        parse(text, "example")
    assert caught.value.line == line
