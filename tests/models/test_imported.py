"""Specs that people own: what they compute, in a model, and what they are called."""

from __future__ import annotations

import copy
import functools
import inspect
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from conftest import ROOT
from shared.by_torch import reference, seen
from shared.model_zoo import ZOO
from torch import Tensor, fx, nn
from torch.nn import functional

from fusegen.base.errors import UserError
from fusegen.models.fusion_report import Report
from fusegen.models.imported import ImportedSpec, import_model
from fusegen.models.model_names import ModelNames, words
from fusegen.models.plan import plan_of
from fusegen.models.put_back import put_back
from fusegen.models.readable_spec import as_people_write, readable_spec_of
from fusegen.models.spec_text import Step

X = torch.linspace(-2, 2, 48).reshape(2, 3, 8)


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def imported(model: Any, *inputs: Any) -> dict[str, ImportedSpec]:
    forward = model.forward if isinstance(model, nn.Module) else model
    bound = inspect.signature(forward).bind(*inputs)
    return {spec.name: spec for spec in import_model(model, bound, title="m.py:Model")[0]}


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up, self.act, self.norm = nn.Linear(8, 8), nn.GELU(), nn.LayerNorm(8)
        self.scale = nn.Parameter(torch.ones(8))

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        total = self.act(self.up(x)) * self.scale + residual
        return self.norm(total)


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Mlp(), Mlp(), Mlp()])
        self.head = nn.Sequential(nn.Softmax(-1), nn.Tanh())

    def forward(self, x: Tensor, input: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, input)
        return self.head(x)


def test_a_spec_has_the_names_of_the_model_and_regions_alike_have_one() -> None:
    specs = imported(Model(), X, X[0])
    first, last = specs.values()
    assert first.name == "model_layers_0_act_mul_total_norm"
    assert first.places == ("layers.0", "layers.1")
    assert last.places == ("",)  # the third is one region with the head
    assert first.text.splitlines() == [
        "# x is what layers.0.up gives, [2, 3, 8].",
        'description: "act, mul, total, norm in layers.0 of m.py:Model"',
        "order: 1",
        "dtypes: [float32]",
        "operands:",
        "  scale: col             # layers.0.scale",
        "  input_: full           # the input input",
        "  norm_weight: col       # layers.0.norm.weight",
        "  norm_bias: col         # layers.0.norm.bias",
        "chain:",
        "  - gelu",
        "  - mul: scale",
        "  - add: input_",
        "  - layer_norm: {weight: norm_weight, bias: norm_bias}",
    ]


class Block(nn.Module):
    """That of docs/models.md."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attend = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.mlp = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm1(x)
        total = x + self.attend(h, h, h)[0]
        return total + self.mlp(self.norm2(total))


def test_the_docs_show_what_is_written() -> None:
    page = (ROOT / "docs" / "models.md").read_text()
    (shown,) = re.findall(r"```yaml\n(# x is.*?)```", page, re.DOTALL)
    (spec,) = imported(Block(512, 4), torch.randn(4, 128, 512)).values()
    assert spec.name == "block_total_norm2"
    assert spec.text == shown.replace("block.py:Block(dim=512, heads=4)", "m.py:Model")


def test_a_name_is_taken_once() -> None:
    def twice(x: Tensor, tanh: Tensor) -> Any:
        y = torch.tanh(x) * tanh
        y = torch.tanh(y) + y
        return y.exp() * y

    (spec,) = imported(twice, X, X).values()
    assert "outputs" not in spec.text
    assert seen_in(spec, X.double(), tanh=X.double()).equal(twice(X.double(), X.double()))


def test_a_step_that_is_read_later_has_its_name() -> None:
    """Also where that is the name of its op: a formula knows no other."""

    def centred(x: Tensor) -> Tensor:
        return x - x.mean(-1, keepdim=True)

    (spec,) = imported(lambda x: centred(x * 3), X).values()
    assert spec.text.splitlines()[-3:] == [
        "  - mul: {name: mul, other: 3}",
        "  - mean: {dim: -1, keepdim: true}",
        '  - expr: "mul - x"',
    ]
    torch.testing.assert_close(seen_in(spec, X.double()), centred(X.double() * 3))


def seen_in(spec: ImportedSpec, x: Tensor, **operands: Tensor) -> Any:
    return reference(spec.text)(x, **operands)


def test_what_drops_a_dim_says_so() -> None:
    def size(x: Tensor) -> Tensor:
        return (x * x).mean(-1)

    (spec,) = imported(size, X).values()
    assert "keeps dims (-1,); the model drops them" in spec.text
    assert seen_in(spec, X.double()).shape == (2, 3, 1)


def test_several_dtypes_are_said() -> None:
    def mixed(x: Tensor, y: Tensor) -> Tensor:
        return (x + y).tanh()

    (spec,) = imported(mixed, X, X.bfloat16()).values()
    assert "Convert the tensors to float32" in spec.text


def test_a_step_that_changes_nothing_is_not_written() -> None:
    """Dropout in evaluation; two results of one value have a step each."""

    def dropped(x: Tensor) -> Tensor:
        return functional.dropout(torch.softmax(x * 2, -1), 0.5, training=False)

    (spec,) = imported(dropped, X).values()
    assert spec.text.splitlines()[-3:] == ["chain:", "  - mul: 2", "  - softmax: {dim: -1}"]

    def both(x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.softmax(x * 2, -1)
        return functional.dropout(y, training=False) @ X[0].mT, functional.dropout(
            y, training=False
        )

    (spec,) = imported(both, X).values()
    first, second = seen_in(spec, X.double())
    assert first.equal(second)


class Gated(nn.Module):
    """Calls submodules through a function that it keeps."""

    def __init__(self) -> None:
        super().__init__()
        up, act = nn.Linear(8, 8), nn.Sequential(nn.Sigmoid(), nn.Tanh())
        self.layers = nn.ModuleDict({"up": up, "act": act})
        self.run = lambda x: act(up(x)) * x

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x)


def test_a_module_in_a_closure_has_its_own_name() -> None:
    (spec,) = imported(Gated(), X).values()
    assert spec.name == "gated_sigmoid_tanh_mul"
    assert spec.text.startswith("# x is what layers.up gives")


def test_a_model_that_fails_is_one_message() -> None:
    with pytest.raises(UserError, match=r"m.py:Model fails on the inputs \(x: 2x3x8 float32.*size"):
        imported(Model(), X, X[:, :, :3])


def test_averages_and_inputs_stay_as_they_were() -> None:
    model = nn.Sequential(nn.BatchNorm1d(8), nn.ReLU(inplace=True))
    before, x = copy.deepcopy(model.state_dict()), X[0].clone()
    assert imported(model, x)
    assert torch.equal(x, X[0])
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobile", "cell"])
def test_the_specs_of_a_model_compute_it(name: str) -> None:
    """In evaluation, by torch, in float64: values and gradients of the model with its own specs in place."""
    torch.manual_seed(0)
    made, shapes = ZOO[name]
    model = made().double().eval()
    inputs = tuple(torch.randn(shape, dtype=torch.float64) for shape in shapes)
    other, count = copy.deepcopy(model), 0

    def with_specs(module: fx.GraphModule, given: list[Any]) -> Callable[..., Any]:
        nonlocal count
        names = ModelNames(module.graph, given, {}, other)
        plan = plan_of(module.graph, given, 1, Report(), everything=True)
        write = functools.partial(
            readable_spec_of, order=1, effects=plan.effects, names=names, description="it"
        )
        specs = [(region, write(region)) for region, _ in plan.specs]
        count += len(specs)
        fused = [(region, spec, reference(spec.text)) for region, spec in specs]
        return put_back(module, fused, plan.effects).forward

    wanted = seen(model, inputs, model)
    found = seen(other, inputs, torch.compile(other, backend=with_specs))
    for got, truth in zip(found, wanted, strict=True):
        got, truth = (t[0] if isinstance(t, tuple) else t for t in (got, truth))
        torch.testing.assert_close(got, truth, rtol=1e-9, atol=1e-11)
    assert count


def test_a_formula_stays_where_a_step_takes_less() -> None:
    """The weight of rms_norm is one number for each column as a step, and any value in a formula."""

    def scaled(x: Tensor, y: Tensor) -> Tensor:
        return functional.softmax(x * 2, 1) * y

    (spec,) = imported(scaled, X, X).values()
    truth = scaled(X.double(), X.double())
    torch.testing.assert_close(seen_in(spec, X.double(), y=X.double()), truth)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        *(
            ("ReLU", "relu"),
            ("SwiGLU", "swiglu"),
            ("ViTBlock", "vit_block"),
            ("MoE.NeRF", "moe_nerf"),
        ),
        *(("LayerNorm", "layer_norm"), ("RMSNorm", "rms_norm"), ("DeepFM", "deep_fm")),
        *(("BatchNorm1d", "batch_norm1d"), ("GELU", "gelu"), ("MyBlock", "my_block")),
    ],
)
def test_words_of_mixed_letters(name: str, wanted: str) -> None:
    assert words(name) == wanted


def test_a_formula_has_no_more_parentheses_than_it_needs() -> None:
    written = Step(
        "expr", {"formula": '"(x + (sigmoid((a + b)) * (h + (-3e-05))))"', "dim": "1"}, "y"
    )
    text = '"x + sigmoid(a + b) * (h + -3e-05)"'
    assert as_people_write(written) == Step("expr", {"formula": text, "dim": "1"}, "y")


def test_a_view_of_a_view_is_a_view() -> None:
    def viewed(x: Tensor) -> Tensor:
        return x.chunk(2, -1)[1].exp() * 2

    (spec,) = imported(viewed, X[0]).values()
    assert "# x is a view of the input x, [3, 4]." in spec.text
