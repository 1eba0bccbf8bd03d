"""How a package is called: operands in the order in which the spec declares them, or by keyword."""

from __future__ import annotations

import doctest
import inspect
from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from conftest import NAMES, once, shared
from random_programs.build import build_specs
from torch import Tensor
from torch.func import grad, jvp, vmap

from fusegen import load
from fusegen.chain import derive
from fusegen.spec import parse

#: Nothing is used in the order in which it is declared.
TEXTS = {
    "signature_swapped": """
operands: {added: col, factor: col}
arguments: {shift: float, lift: {type: float, default: 2.0}}
chain:
  - expr: "x * factor + lift"
  - expr: "tanh(x + shift) * added"
  - softmax
""",
    "signature_dropped": """
order: 1
operands: {target: {kind: row, dtype: int64}, gate: full, bias: {kind: col, init: ones, shape: [8]}}
chain:
  - add: bias
  - dropout
  - mul: gate
  - cross_entropy: target
""",
    # two segments, of which the second uses what is declared first
    "signature_segments": """
order: 1
dims: 3
operands: {late: {kind: row}, early: {kind: full}}
arguments: {features: int, num_groups: int}
chain:
  - add: early
  - group_norm: {num_groups: num_groups, affine: false}
  - softmax: {dim: 2}
  - mul: late
""",
    # what is declared comes before what submodules hold, and the model's own input before both
    "signature_source": """
order: 1
operands: {scale: scalar, shift: col}
arguments: {in_features: int, out_features: int}
chain:
  - linear: {name: product}
  - add: shift
  - mul: scale
  - add: input
""",
    # the second segment uses what the first hands on in another order than the steps stand in
    "signature_kept": """
order: 1
dims: 3
chain:
  - tanh: {name: early}
  - gelu: {name: late}
  - softmax: {dim: 2}
  - softmax: {dim: 1}
  - expr: "x * late + early"
""",
}
ORDERS = {
    "signature_swapped": ["x", "added", "factor", "shift", "lift"],
    "signature_dropped": ["x", "target", "gate", "bias", "dropout_p", "training", "seed"],
    "signature_segments": ["x", "late", "early", "num_groups"],
    "signature_kept": ["x"],
    "signature_source": ["x", "input", "scale", "shift", "product_bias"],
}
Built = Callable[[str], ModuleType]


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Gives the package of one of these specs, built once for all workers."""
    out = shared(tmp_path_factory) / "signatures"

    def build() -> None:
        specs = out / "specs"
        specs.mkdir(parents=True)
        for name, text in TEXTS.items():
            (specs / f"{name}.yaml").write_text(text)
        build_specs(sorted(specs.glob("*.yaml")), out, dtypes=["float64", "float32"])

    once(tmp_path_factory, "signatures", build)
    return lambda name: load(name, out)


def swapped(x: Tensor, added: Tensor, factor: Tensor, shift: float) -> Tensor:
    return (torch.tanh(x * factor + 2 + shift) * added).softmax(-1)


def given() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    sizes = {"x": (5, 7), "added": (7,), "factor": (7,)}
    return {n: torch.randn(s, generator=generator).double() for n, s in sizes.items()}


@pytest.mark.parametrize("name", TEXTS)
def test_the_order_is_that_of_the_spec(name: str, built: Built) -> None:
    signature = inspect.signature(built(name).apply)
    wanted = [word for word in ORDERS[name] if word in signature.parameters]
    assert list(signature.parameters) == wanted
    assert set(wanted) >= {o.name for o in derive(parse(TEXTS[name], name)).operands}


def test_by_place_and_by_keyword_are_the_same_call(built: Built) -> None:
    tensors = {n: t.requires_grad_() for n, t in given().items()}
    wanted = swapped(**tensors, shift=0.25)
    cotangent = torch.randn(5, 7).double()
    gradients = torch.autograd.grad(wanted, list(tensors.values()), cotangent)
    x, added, factor = tensors.values()
    apply = built("signature_swapped").apply
    for value in (
        apply(x, added, factor, shift=0.25),
        apply(x, factor=factor, added=added, shift=0.25),
        apply(factor=factor, shift=0.25, x=x, added=added),
    ):
        torch.testing.assert_close(value, wanted)
        found = torch.autograd.grad(value, list(tensors.values()), cotangent)
        torch.testing.assert_close(found, gradients)


def test_a_later_segment_gets_its_own_operands(built: Built) -> None:
    x, early, late = torch.randn(2, 4, 6), torch.randn(2, 4, 6), torch.randn(2, 4, 1)
    got = built("signature_segments").apply(x, late, early, num_groups=2)
    normed = torch.nn.functional.group_norm(x + early, 2)
    torch.testing.assert_close(got, normed.softmax(2) * late)


def test_a_later_segment_gets_each_value_under_its_name(built: Built) -> None:
    x = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    early = torch.tanh(x)
    late = torch.nn.functional.gelu(early)
    wanted = late.softmax(2).softmax(1) * late + early
    got = built("signature_kept").apply(x)
    torch.testing.assert_close(got, wanted)
    cotangent = torch.randn_like(wanted)
    gradients = (torch.autograd.grad(y, x, cotangent) for y in (got, wanted))
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"added", "factor", "shift", "gain"}, "unexpected keyword argument 'gain'"),
        ({"added", "shift"}, "missing 1 required positional argument: 'factor'"),
        ({"added", "factor"}, "missing 1 required keyword-only argument: 'shift'"),
    ],
)
def test_a_wrong_keyword_is_one_message(words: set[str], message: str, built: Built) -> None:
    tensors = {"gain": torch.ones(7), "shift": 0.25, **given()}
    x = tensors.pop("x")
    with pytest.raises(TypeError, match=rf"signature_swapped\.apply\(\).* {message}"):
        built("signature_swapped").apply(x, **{n: tensors[n] for n in words})


def test_an_operand_that_is_given_twice_is_named(built: Built) -> None:
    x, added, factor = given().values()
    with pytest.raises(TypeError, match=r"apply\(\) got multiple values for argument 'added'"):
        built("signature_swapped").apply(x, added, factor=factor, added=added, shift=0.25)


def test_torchs_machinery_takes_keywords(built: Built) -> None:
    apply, tensors = built("signature_swapped").apply, given()

    def ours(x: Tensor, added: Tensor, factor: Tensor) -> Tensor:
        value: Tensor = apply(factor=factor, added=added, x=x, shift=0.25)
        return value

    def theirs(x: Tensor, added: Tensor, factor: Tensor) -> Tensor:
        return swapped(x, added, factor, 0.25)

    x, added, factor = tensors.values()
    along = torch.ones_like(factor)
    found = []
    for function in (ours, theirs):
        found.append(
            [
                grad(lambda f, of=function: of(x, added, f).square().sum())(factor),
                jvp(lambda f, of=function: of(x, added, f), (factor,), (along,))[1],
                vmap(lambda r, of=function: of(r, added, factor))(x),
            ]
        )
    torch.testing.assert_close(*found)
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(**tensors), theirs(**tensors))

    class Model(torch.nn.Module):
        def forward(self, x: Tensor, added: Tensor, factor: Tensor) -> Tensor:
            return ours(x, added, factor)

    exported = torch.export.export(Model(), (), tensors)
    torch.testing.assert_close(exported.module()(**tensors), theirs(**tensors))


def run_examples(package: ModuleType) -> None:
    """Run the example in the docstring of a package, and that of its `apply`."""
    for text in (package.__doc__, package.apply.__doc__):
        assert text is not None
        case = doctest.DocTestParser().get_doctest(
            text, {"apply": package.apply}, package.__name__, None, 0
        )
        assert case.examples
        runner = doctest.DocTestRunner()
        runner.run(case)
        assert runner.summarize().failed == 0
        parameters = inspect.signature(package.apply).parameters.values()
        by_place = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        assert f"apply({', '.join(by_place[:2])}" in (package.__doc__ or "")
    assert (package.__doc__ or "").index(">>> ") < (package.__doc__ or "").index(" Module(")


@pytest.mark.parametrize("name", TEXTS)
def test_the_examples_run(name: str, built: Built) -> None:
    run_examples(built(name))


@pytest.mark.parametrize("name", NAMES)
def test_the_examples_of_the_shipped_packages_run(
    name: str, package: Callable[[str], ModuleType]
) -> None:
    run_examples(package(name))


def test_a_docstring_says_what_each_operand_is(built: Built) -> None:
    text = built("signature_dropped").apply.__doc__ or ""
    for line in (
        "target: row operand, [rows], int64; it gets no gradient.",
        "gate: full operand, [rows, cols].",
        "bias: col operand, [cols].",
        "seed: the seed of the draws",
        "training: whether the chain runs as it does in training.",
    ):
        assert line in text
