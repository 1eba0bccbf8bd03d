"""Specs with several products and functions of windows: torch computes these, and one Module holds all."""

from __future__ import annotations

import copy
import doctest
import re
import runpy
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import once, shared
from random_programs.build import build_specs
from shared.command import fusegen_here, python_in
from torch import Tensor, nn

import fusegen
from fusegen import chain
from fusegen.base.errors import SpecError, UserError
from fusegen.spec import parse
from fusegen.spec.chains import chains_of
from fusegen.spec.model import Ref
from fusegen.toolchain import pipeline
from fusegen.tools.check import verify
from fusegen.tools.shipping.layers import layers_code
from fusegen.tools.single_file import single_file

MLP = """
arguments: {in_features: int, hidden: int, out_features: int}
dtypes: [float64]
chain:
  - linear: {name: net.0, out_features: hidden}
  - relu
  - linear: {name: net.2}
  - gelu
  - softmax
"""
BLOCK = """
arguments: {in_channels: int, out_channels: int, kernel_size: int, slope: {type: float, default: 0.1}}
dtypes: [float64]
order: 1
outputs: [pooled, logits]
chain:
  - conv2d: {padding: 1, bias: false}
  - batch_norm: {name: bn1}
  - leaky_relu: {negative_slope: slope}
  - max_pool2d: 2
  - conv2d: {name: conv2, out_channels: out_channels, kernel_size: 3, padding: 1}
  - add: max_pool2d                       # a value of an earlier chain
  - leaky_relu: {name: wide, negative_slope: slope}
  - adaptive_avg_pool2d: {name: pooled, output_size: 1}
  - conv2d: {name: excite, out_channels: out_channels, kernel_size: 1}
  - sigmoid
  - mul: wide                             # larger than what reaches it
  - softmax: {dim: [2, 3]}
  - dropout2d: 0.25
  - flatten
  - linear: {in_features: 4 * out_channels, out_features: 10}
  - log_softmax: {name: logits}
"""


ATTENTION = """
arguments: {width: int}
dtypes: [float64]
order: 1
operands:
  weight: {kind: factor, init: randn, shape: [width, width], name: proj.query.weight}
  gamma: {kind: scalar, init: 2, name: layers.0}
  keys: factor
chain:
  - matmul: {name: query, other: weight.T}
  - linear: {name: proj.value, of: input, in_features: width, out_features: width}
  - tanh: {name: value}
  - matmul: {of: query, other: keys.mT}
  - div: 2
  - softmax
  - matmul: {name: read, other: value}
  - add: input
  - mul: gamma
  - gelu
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = shared(tmp_path_factory) / "several_products"

    def build() -> None:
        made.mkdir()
        for name, text in {"mlp": MLP, "block": BLOCK, "attention": ATTENTION}.items():
            (made / f"{name}.yaml").write_text(text.lstrip())
        build_specs(sorted(made.glob("*.yaml")), made, dtypes=["float64"])

    once(tmp_path_factory, "several_products", build)
    return made


@pytest.fixture(scope="module")
def mlp(folder: Path) -> ModuleType:
    return fusegen.load("mlp", folder)


@pytest.fixture(scope="module")
def block(folder: Path) -> ModuleType:
    return fusegen.load("block", folder)


class Original(nn.Module):
    """What BLOCK says, in torch."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__()
        self.conv2d = nn.Conv2d(in_channels, out_channels, kernel_size, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.excite = nn.Conv2d(out_channels, out_channels, 1)
        self.linear = nn.Linear(4 * out_channels, 10)
        self.drop = nn.Dropout2d(0.25)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first = F.max_pool2d(F.leaky_relu(self.bn1(self.conv2d(x)), 0.1), 2)
        wide = F.leaky_relu(self.conv2(first) + first, 0.1)
        pooled = F.adaptive_avg_pool2d(wide, 1)
        gated = torch.sigmoid(self.excite(pooled)) * wide
        gated = gated.flatten(2).softmax(-1).view_as(gated)
        return pooled, F.log_softmax(self.linear(self.drop(gated).flatten(1)), -1)


def _pair(block: Any) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    original = Original(3, 5, 3).double()
    made = block.Module(3, 5, 3).double()
    made.load_state_dict(original.state_dict())
    return original, made


def _step(model: nn.Module, x: Tensor) -> list[Tensor]:
    """Return the outputs, gradients and buffers of a step."""
    leaf = x.clone().requires_grad_()
    torch.manual_seed(3)
    outputs = model(leaf)
    sum(value.sin().sum() for value in outputs).backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return [*outputs, leaf.grad, *gradients, *model.buffers()]  # type: ignore[list-item]


@pytest.mark.parametrize("training", [True, False])
def test_a_model_of_several_products_is_a_drop_in(block: Any, training: bool) -> None:
    original, made = (model.train(training) for model in _pair(block))
    x = torch.randn(7, 3, 4, 5, dtype=torch.float64)
    for got, wanted in zip(_step(made, x), _step(original, x), strict=True):
        torch.testing.assert_close(got, wanted)


def test_a_chain_with_a_hook_runs_in_torch(block: Any) -> None:
    original, made = _pair(block)
    for model in (original, made):
        model.eval()
        model.get_submodule("bn1").register_forward_hook(lambda *given: given[2] + 1)
        model.get_submodule("conv2").register_forward_hook(lambda *given: given[2] * 2)
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    for got, wanted in zip(made(x), original(x), strict=True):
        torch.testing.assert_close(got, wanted)


def test_derivatives_run_through_the_products(mlp: Any) -> None:
    model = mlp.Module(3, 4, 5).double()
    assert [*model.state_dict()] == ["net.0.weight", "net.0.bias", "net.2.weight", "net.2.bias"]
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(model, x)
    assert torch.autograd.gradgradcheck(model, x)
    compiled = torch.compile(copy.deepcopy(model), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), model(x))


def test_a_source_may_start_from_an_earlier_value(folder: Path) -> None:
    model = fusegen.load("attention", folder).Module(4).double()
    assert [*model.state_dict()] == [
        *("proj.query.weight", "proj.value.weight", "proj.value.bias", "layers.0")
    ]
    x, keys = (torch.randn(2, n, 4, dtype=torch.float64, requires_grad=True) for n in (3, 5))
    with pytest.raises(RuntimeError):  # as many values as x has rows, and not keys
        model(x, keys)
    keys = keys[:, :3]
    value = torch.tanh(model.get_submodule("proj.value")(x))
    weight = model.get_parameter("proj.query.weight")
    scores = torch.softmax(x @ weight.T @ keys.mT / 2, -1)
    wanted = F.gelu((scores @ value + x) * 2)
    torch.testing.assert_close(model(x, keys), wanted)
    for got, gradient in zip(
        torch.autograd.grad(model(x, keys).sum(), [x, weight]),
        torch.autograd.grad(wanted.sum(), [x, weight]),
        strict=True,
    ):
        torch.testing.assert_close(got, gradient)


def test_the_examples_of_each_function_run(mlp: Any) -> None:
    assert (mlp.__doc__ or "").index(">>> y = apply_1(") < mlp.__doc__.index(" Module(")
    for text in (mlp.__doc__, mlp.apply_1.__doc__, mlp.apply_2.__doc__):
        case = doctest.DocTestParser().get_doctest(text, vars(mlp).copy(), "mlp", None, 0)
        assert doctest.DocTestRunner().run(case) == (0, 4), text


def test_each_chain_is_checked(mlp: Any, folder: Path) -> None:
    assert not hasattr(mlp, "apply")
    verdicts = verify.check([folder / "mlp.yaml"], folder)
    assert {v.package for v in verdicts} == {"mlp.apply_1", "mlp.apply_2"}
    assert all(v.passed for v in verdicts)
    derived = pipeline.derive_all(folder / "mlp.yaml")
    assert "# torch: linear" in derived.describe()


def test_what_each_chain_takes_and_returns() -> None:
    specs = chains_of(parse(BLOCK, "block"))
    assert [[s.label for s in spec.steps] for spec in specs] == [
        ["conv2d", "bn1", "leaky_relu"],
        ["max_pool2d"],
        ["conv2", "add", "wide"],
        ["pooled"],
        ["excite", "sigmoid", "mul", "softmax"],
        ["dropout2d"],
        ["flatten"],
        ["linear", "logits"],
    ]
    assert [[o.name for o in spec.operands] for spec in specs if spec.operands] == [
        ["max_pool2d"],
        ["wide"],
    ]
    assert [spec.dims for spec in specs] == [4, 4, 4, 4, 4, 4, 0, 0]


ARGUMENTS = "arguments: {in_channels: int, out_channels: int, kernel_size: int, padding: int}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            ARGUMENTS + "chain: [conv2d, {max_pool2d: {kernel_size: 2, padding: padding}}, relu]",
            "the argument 'padding' is taken by another step, and conv2d",
        ),
        (
            ARGUMENTS + "chain: [conv2d, {conv2d: {name: b, out_channels: 3, kernel_size: 1}}]",
            "the argument 'padding' is taken by another step, and conv2d",
        ),
        (
            ARGUMENTS + "chain: [conv2d, relu, {max_pool2d: {padding: 0}}]",
            "the argument 'kernel_size' is taken by another step",
        ),
        (ARGUMENTS + "chain: [conv2d, {max_pool1d: {kernel_size: 2, padding: 0}}]", "takes 3 dims"),
        ("chain: [{max_pool2d: 2}, flatten]", "there is nothing to fuse"),
        ("operands: {w: col}\nchain: [{matmul: w}, relu]", "declare it of kind factor"),
        (
            "operands: {w: {kind: scalar, init: ones, name: a.b}}\nchain: [{mul: w}, {linear: "
            "{name: a, in_features: 2, out_features: 2}}, relu]",
            "'a.b' cannot be a name here: 'a' is something else",
        ),
        ("operands: {w: {kind: col, name: a}}\nchain: [{mul: w}]", "'w' is an input"),
        ("operands: {w: factor}\nchain: [{matmul: w}, {add: w}]", "which only products take"),
        ("chain: [relu, matmul, gelu, bmm, tanh, matmul, tanh]", "takes the input 'other'"),
        ("chain: [{relu: {name: a}}, {matmul: {other: b}}]", "unknown operand 'b'"),
        ("chain: [relu, {matmul: {of: input}}, tanh]", "nothing uses the value of relu"),
        (
            "outputs: [{name: loss, dtype: float32}, y]\nchain: [{logsumexp: {dim: -1, keepdim: true, "
            "name: loss}}, {linear: {in_features: 1, out_features: 2}}, {relu: {name: y}}]",
            "a later product takes it",
        ),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        chain.derive_all(parse(text, "refused"))


@pytest.mark.parametrize("text", ["conv2d, {max_pool2d: 2}", "{avg_pool2d: 2}, conv2d"])
def test_a_pooling_leaves_the_arguments_of_a_convolution(text: str) -> None:
    """It has torch's defaults, as in a model that gives its stride and padding to the convolution alone."""
    spec = parse(f"{ARGUMENTS}chain: [{text}, relu]", "pooled")
    padded = {step.label: "padding" in step.settings for step in spec.steps}
    assert padded == {step.label: step.label == "conv2d" for step in spec.steps}
    alone = parse("arguments: {padding: int}\nchain: [{max_pool2d: 3}, relu]", "alone")
    assert alone.steps[0].settings["padding"] == Ref("padding", is_argument=True)


def test_tools_of_one_chain_say_so() -> None:
    with pytest.raises(SpecError, match="`fusegen tune` takes a spec of one chain, and net_2"):
        chain.derive(parse(MLP, "mlp"), "`fusegen tune`")


def test_each_chain_is_timed_and_reported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of these returns several values, to later chains and to the caller."""
    derived, derive_all = [], pipeline.derive_all
    monkeypatch.setattr(
        pipeline, "derive_all", lambda path: derived.append(path.stem) or derive_all(path)
    )
    options = (
        "--out",
        ".",
        "--device",
        "cpu",
        "--dtype",
        "float64",
        "--no-compile",
        "--rounds",
        "1",
    )
    shapes = ("--shape", "2x4x6x6", "--shape", "2x6")  # each for the chains that it fits
    done = fusegen_here("bench", "block", "mlp", *options, *shapes, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert derived == ["block", "mlp"], "each is derived once, not for each chain and shape"
    timed = [f"block.apply_{n}" for n in (1, 3, 5)] + ["mlp.apply_1", "mlp.apply_2"]
    for name in timed:
        assert f" {name} " in done.stdout, done.stdout
    done = fusegen_here("report", "block", "mlp", "--out", ".", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"report.html: {len(timed) + 1} chains, ")
    text = (folder / "report.html").read_text()
    assert all(f'<article id="{name}">' in text for name in timed)
    assert "fusegen report mlp --time" in text


def test_a_layer_of_the_hub_calls_each_chain(folder: Path) -> None:
    code = (folder / "mlp" / "__init__.py").read_text()
    layers = layers_code(code, "mlp")
    assert "Module._chain_1(self, x)" in layers
    assert (
        "self._"
        not in layers + (folder / "block" / "__init__.py").read_text().split("def _chain_1")[1]
    )


@pytest.mark.parametrize("name", ["mlp", "attention"])
def test_a_single_file_has_all_chains(name: str, folder: Path, tmp_path: Path) -> None:
    """Its original, in torch, computes what the package does."""
    (tmp_path / "single.py").write_text(single_file(folder / f"{name}.yaml", ("float64",), {}))
    single = runpy.run_path(str(tmp_path / "single.py"))
    arguments, given = single["get_init_inputs"](), single["get_inputs"]()
    torch.manual_seed(0)
    original, made = (kind(*arguments).double() for kind in (single["Model"], single["ModelNew"]))
    package = fusegen.load(name, folder).Module(*arguments).double()
    assert [*made.state_dict()] == [*original.state_dict()]
    package.load_state_dict(original.state_dict())
    given = [tensor.double() for tensor in given]
    torch.testing.assert_close(package(*given), original(*given))


@pytest.mark.slow
def test_a_single_file_of_several_products_runs(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    with pytest.raises(UserError, match=r"linear does not take \[16, 16384\].*--sizes image="):
        single_file(folder / "block.yaml", ("float64",), {"image": 32})
    assert "torch.randn([16, 64, " in single_file(folder / "block.yaml", ("float64",), {})
    sizes = {"rows": 2, "image": 4}
    (tmp_path / "single.py").write_text(single_file(folder / "block.yaml", ("float64",), sizes))
    text = python_in(tmp_path, "single.py")
    assert text.count("result") == 2 and "gradient of excite.weight [64, 64, 1, 1]" in text
    assert all(float(error) < 1e-9 for error in re.findall(r"differs by (\S+) of", text))
