"""Models with fused regions against the same models in float64, with eager's own error beside it."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from shared.model_zoo import ZOO
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import fusegen
from fusegen.base.errors import UserError
from fusegen.models import FusegenBackend

pytestmark = pytest.mark.slow

#: How much larger than eager's an error may be. Both are a few roundings of float32; another order of
#: summation moves either by that much.
FACTOR, FLOOR = 4.0, 2e-7


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def made(name: str, *, train: bool) -> tuple[nn.Module, list[Tensor]]:
    torch.manual_seed(0)
    model, shapes = ZOO[name]
    made = model().train(train)
    for module in made.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return made, [torch.randn(shape) for shape in shapes]


def results(model: nn.Module, inputs: list[Tensor]) -> dict[str, Tensor]:
    """Return all that a training step gives: values, gradients and buffers."""
    given = [t.clone().requires_grad_() for t in inputs]
    out = model(*given)
    outs = [out] if isinstance(out, Tensor) else list(out)
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(o.shape, generator=generator).to(o.dtype) for o in outs]
    model.zero_grad()
    torch.autograd.backward(outs, weights)
    found = {f"output {n}": o.detach() for n, o in enumerate(outs)}
    found |= {f"gradient {n}": t.grad for n, t in enumerate(given) if t.grad is not None}
    found |= {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    return found | {n: b.clone() for n, b in model.named_buffers()}


def error(value: Tensor, truth: Tensor) -> float:
    """Return the error of a tensor relative to its size."""
    difference = (value.double() - truth.double()).norm()
    return float(difference / truth.double().norm().clamp(min=1e-30))


def check(fused: dict[str, Tensor], eager: dict[str, Tensor], truth: dict[str, Tensor]) -> None:
    assert fused.keys() == eager.keys()
    for name, value in fused.items():
        assert value.dtype == eager[name].dtype
        assert value.shape == eager[name].shape
        own = error(value, truth[name])
        assert own <= FACTOR * error(eager[name], truth[name]) + FLOOR, f"{name}: {own:.1e}"


#: Rows, rotations, batch norm, several outputs. test_graphs.py has all models, without a build.
CASES = [("decoder", True), ("residual", True), ("cell", True)]


@pytest.mark.parametrize(("name", "train"), CASES)
def test_a_model_is_as_exact_as_eager(name: str, train: bool, folder: Path) -> None:
    model, inputs = made(name, train=train)
    truth = results(copy.deepcopy(model).double(), [t.double() for t in inputs])
    eager = results(copy.deepcopy(model), inputs)
    backend = FusegenBackend(folder, everything=True)
    fused = copy.deepcopy(model)
    fused.compile(backend=backend)
    check(results(fused, inputs), eager, truth)
    assert backend.report.fused
    assert not [r.reason for r in backend.report.regions if r.reason]


def test_fuse_shares_all_with_the_model(folder: Path) -> None:
    model, inputs = made("residual", train=True)
    before = copy.deepcopy(model.state_dict())
    seed = torch.get_rng_state()
    fused = fusegen.fuse(model, inputs, folder=folder, everything=True)
    assert type(fused) is type(model)
    assert fused.state_dict().keys() == before.keys()
    assert all(a is b for a, b in zip(fused.parameters(), model.parameters(), strict=True))
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert torch.equal(torch.get_rng_state(), seed)
    assert "batch_norm" in str(fusegen.report(fused))
    assert f"specs: {folder}/specs;" in str(fusegen.report(fused))
    assert str(fusegen.models.Report(graphs=1)) == "nothing to fuse, in 1 graph"
    assert "graph_breaks" in str(fusegen.models.Report())
    with pytest.raises(UserError, match=r"call fusegen.report\(\) after"):
        fusegen.report(model)


def test_a_folder_needs_no_compiler(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = made("cell", train=False)
    expected = fusegen.fuse(model, inputs, folder=folder, everything=True)(*inputs)
    torch._dynamo.reset()
    monkeypatch.setenv("PATH", "/nowhere")
    loaded = fusegen.load_fused(copy.deepcopy(model), folder)
    for value, other in zip(loaded(*inputs), expected, strict=True):
        assert torch.equal(value, other)
    with pytest.raises(UserError, match="holds no packages"):
        fusegen.load_fused(model, folder / "nothing")


def test_shapes_that_change_build_nothing_new(folder: Path) -> None:
    model, inputs = made("cell", train=False)
    backend = FusegenBackend(folder, everything=True)
    fused = copy.deepcopy(model)
    fused.compile(backend=backend, dynamic=True)
    for rows in (2, 3, 11):
        given = [torch.randn(rows, t.shape[1]) for t in inputs]
        torch.testing.assert_close(fused(*given), model(*given))
    packages = {region.package for region in backend.report.fused}
    assert len(list((folder / "specs").glob("*.yaml"))) >= len(packages) > 0
    assert backend.report.graphs == 1


def test_checkpoints_and_double_backward(folder: Path) -> None:
    model, (x, *rest) = made("cell", train=True)
    fused = copy.deepcopy(model)
    fused.compile(backend=FusegenBackend(folder, order=2, everything=True))

    def second(of: nn.Module) -> Tensor:
        given = x.clone().requires_grad_()
        h, _ = checkpoint(of, given, *rest, use_reentrant=False)
        (first,) = torch.autograd.grad(h.square().sum(), given, create_graph=True)
        (twice,) = torch.autograd.grad(first.square().sum(), given)
        return twice

    torch.testing.assert_close(second(fused), second(model))


def test_autocast(folder: Path) -> None:
    model, inputs = made("cell", train=True)
    truth = results(copy.deepcopy(model).double(), [t.double() for t in inputs])
    with torch.autocast("cpu", torch.bfloat16):
        eager = results(copy.deepcopy(model), inputs)
        fused = copy.deepcopy(model)
        fused.compile(backend=FusegenBackend(folder, everything=True))
        check(results(fused, inputs), eager, truth)


def test_a_model_of_16_bits(folder: Path) -> None:
    model, inputs = made("cell", train=True)
    truth = results(copy.deepcopy(model).double(), [t.double() for t in inputs])
    half = copy.deepcopy(model).to(torch.bfloat16)
    eager = results(copy.deepcopy(half), [t.bfloat16() for t in inputs])
    half.compile(backend=FusegenBackend(folder, everything=True))
    check(results(half, [t.bfloat16() for t in inputs]), eager, truth)


def test_dropout_drops_as_often_as_torch(folder: Path) -> None:
    drop = nn.Sequential(nn.Dropout(0.25), nn.GELU(), nn.Softplus()).train()
    fused = copy.deepcopy(drop)
    fused.compile(backend=FusegenBackend(folder, everything=True))
    x = torch.full((64, 1024), 3.0, requires_grad=True)
    out = fused(x)
    share = float((out < 1).double().mean())
    assert abs(share - 0.25) < 0.01
    (gradient,) = torch.autograd.grad(out.sum(), x)
    assert torch.equal(gradient == 0, out < 1)


def test_a_formula_a_chain_and_a_function(folder: Path) -> None:
    x = torch.randn(31, 33, dtype=torch.float64)
    mish = fusegen.fuse("x * tanh(softplus(x))", x, folder=folder)
    torch.testing.assert_close(mish(x), nn.functional.mish(x))
    chain = fusegen.fuse(["gelu", {"softmax": {"dim": -1}}], x, folder=folder)
    torch.testing.assert_close(chain(x), nn.functional.gelu(x).softmax(-1))

    def both(a: Tensor, b: Tensor) -> Tensor:
        return (a + b).tanh()

    function = fusegen.fuse(both, [x, x], folder=folder, everything=True)
    torch.testing.assert_close(function(x, 2 * x), both(x, 2 * x))
    with pytest.raises(UserError, match="unknown function 'tanhh'"):
        fusegen.fuse("tanhh(x)", folder=folder)
    with pytest.raises(UserError, match="example inputs"):
        fusegen.fuse(both, folder=folder)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script")
def test_what_is_no_model_is_refused_by_what_it_is() -> None:
    x = torch.randn(2, 3)
    scripted: Any = torch.jit.script(nn.Linear(3, 3))
    number: Any = 3
    for model, said in (
        (number, "a list of steps, not int"),
        (nn.Linear, r"not its class: make one, Linear\("),
        (scripted, "a model in Python"),
    ):
        with pytest.raises(UserError, match=said):
            fusegen.fuse(model, x)


def test_what_the_docs_show_runs(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FUSEGEN_MODELS", str(folder))
    monkeypatch.chdir(tmp_path)  # where the page keeps a folder
    found = 0
    for page in (ROOT / "README.md", ROOT / "docs" / "models.md"):
        for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
            if "fusegen.fuse(" in block:
                names: dict[str, Any] = {}
                exec(block, names)  # noqa: S102
                fused = names.get("fused", names.get("loaded"))
                assert fusegen.report(fused).fused or "loaded" in names
                found += 1
    assert found == 3


def test_the_back_end_is_registered(folder: Path) -> None:
    assert "fusegen" in torch._dynamo.list_backends()
    model, inputs = made("cell", train=False)
    options: dict[str, Any] = {"folder": str(folder), "everything": True}
    compiled = torch.compile(model, backend="fusegen", options=options)
    torch.testing.assert_close(compiled(*inputs), model(*inputs))
    assert fusegen.report().fused
