"""A cotangent that is absent adds nothing, as in torch where the derivative of an ignored output is infinite.

Each spec computes one output whose derivative is infinite or NaN at 0, beside one that is plain there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import combinations
from types import ModuleType
from typing import Any

import pytest
import torch
from shared.chains_of_texts import packages_of_texts
from torch import Tensor
from torch.autograd import forward_ad

from fusegen.runtime import absent, derivative
from fusegen.runtime.operators import BoundOperator

HEAD = "order: 2\ndtypes: [float64]\n"
TEXTS = {
    "pointwise": HEAD
    + """
operands: {w: col, v: col}
outputs: [root, logarithm, product]
chain:
  - expr: {name: h, formula: "x * w"}
  - expr: {name: root, formula: "sqrt(h) * v"}
  - expr: {name: logarithm, formula: "log(h)"}
  - expr: {name: product, formula: "tanh(h) + h**2"}
""",
    "rows": HEAD
    + """
operands: {r: full, w: col}
outputs: [total, size, unit, soft]
chain:
  - add: {name: total, other: r}
  - expr: {name: size, formula: "sqrt(sum(total**2))"}
  - expr: {name: unit, formula: "total / sum(total) * w"}
  - expr: {name: soft, formula: "exp(total) / sum(exp(total))"}
""",
    "halves": HEAD
    + """
outputs: [gate, other]
chain:
  - expr: {name: gate, formula: "sqrt(a) * 2", parts: [a, b]}
  - expr: {name: other, formula: "a * b"}
""",
    "segments": HEAD
    + """
dims: 3
operands: {w: col}
outputs: [size, mixed, front]
chain:
  - expr: {name: h, formula: "x * w"}
  - expr: {name: size, formula: "sqrt(sum(h**2))", dim: -1}
  - expr: {name: mixed, formula: "h * h"}
  - softmax: {name: front, dim: 1}
""",
}


def pointwise(x: Tensor, w: Tensor, v: Tensor) -> tuple[Tensor, ...]:
    h = x * w
    return h.sqrt() * v, h.log(), torch.tanh(h) + h**2


def rows(x: Tensor, r: Tensor, w: Tensor) -> tuple[Tensor, ...]:
    total = x + r
    size = (total**2).sum(-1, keepdim=True).sqrt()
    return total, size, total / total.sum(-1, keepdim=True) * w, total.softmax(-1)


def halves(x: Tensor) -> tuple[Tensor, ...]:
    a, b = x.chunk(2, -1)
    return a.sqrt() * 2, a * b


def segments(x: Tensor, w: Tensor) -> tuple[Tensor, ...]:
    h = x * w
    return (h**2).sum(-1, keepdim=True).sqrt(), h * h, (h * h).softmax(1)


EAGER: dict[str, Callable[..., tuple[Tensor, ...]]] = {
    "pointwise": pointwise,
    "rows": rows,
    "halves": halves,
    "segments": segments,
}
SHAPES = {
    "pointwise": [(3, 4), (4,), (4,)],
    "rows": [(3, 4), (3, 4), (4,)],
    "halves": [(3, 4)],
    "segments": [(2, 3, 4), (4,)],
}
#: Every choice of outputs that are used.
CHOICES = [
    (name, chosen)
    for name, count in (("pointwise", 3), ("rows", 4), ("halves", 2), ("segments", 3))
    for length in range(1, count + 1)
    for chosen in combinations(range(count), length)
]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModuleType]:
    return packages_of_texts(tmp_path_factory, "absent", TEXTS)


def inputs(name: str) -> list[Tensor]:
    """Return the inputs of a spec: a row of zeros, and a zero elsewhere."""
    generator = torch.Generator().manual_seed(5)
    made = [
        torch.rand(shape, dtype=torch.float64, generator=generator) + 0.1 for shape in SHAPES[name]
    ]
    for tensor in made:
        if tensor.dim() > 1:
            tensor[..., 0, :] = 0.0
            tensor[..., 2, 1] = 0.0
    return [tensor.requires_grad_() for tensor in made]


def gradients(
    function: Callable[..., Any], name: str, chosen: tuple[int, ...], order: int
) -> list[Tensor | None]:
    """Return the gradients of the chosen outputs, or of the sum of the squares of their gradients."""
    given = inputs(name)
    found = function(*given)
    loss = sum((n + 1) * found[n].sum() for n in chosen)
    first = torch.autograd.grad(loss, given, create_graph=order > 1, allow_unused=True)
    if order == 1:
        return [*first]
    total = 0 * given[0].sum()
    for gradient in first:
        if gradient is not None:
            total = total + gradient[gradient.isfinite()].square().sum()
    return [*torch.autograd.grad(total, given, allow_unused=True)]


@pytest.fixture(params=["as it is", "NaN"])
def in_its_place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts NaN in the place of each absent cotangent: nothing of it is used."""
    if request.param == "as it is":
        return

    def nan(operator: BoundOperator, place: int, _: object, saved: Sequence[Tensor]) -> Tensor:
        unused = absent.zeros(operator, place, saved)
        return unused if operator.order else torch.full_like(unused, torch.nan)

    monkeypatch.setattr(derivative, "instead", nan)


def hold(found: list[Tensor | None], expected: list[Tensor | None]) -> None:
    for got, wanted in zip(found, expected, strict=True):
        if got is None or wanted is None:
            assert got is wanted
        else:
            torch.testing.assert_close(got, wanted, rtol=1e-9, atol=1e-9, equal_nan=True)


@pytest.mark.usefixtures("in_its_place")
@pytest.mark.parametrize(("name", "chosen"), CHOICES)
def test_gradients_of_some_outputs(
    packages: dict[str, ModuleType], name: str, chosen: tuple[int, ...]
) -> None:
    hold(
        gradients(packages[name].apply, name, chosen, 1),
        gradients(EAGER[name], name, chosen, 1),
    )


@pytest.mark.usefixtures("in_its_place")
@pytest.mark.parametrize(("name", "chosen"), CHOICES)
def test_second_derivatives_of_some_outputs(
    packages: dict[str, ModuleType], name: str, chosen: tuple[int, ...]
) -> None:
    found = gradients(packages[name].apply, name, chosen, 2)
    expected = gradients(EAGER[name], name, chosen, 2)
    for got, wanted in zip(found, expected, strict=True):
        plain = torch.zeros(1, dtype=torch.float64) if wanted is None else wanted
        close = torch.isclose(torch.zeros_like(plain) if got is None else got, plain, atol=1e-9)
        assert (close | plain.isnan()).all()


@pytest.mark.usefixtures("in_its_place")
@pytest.mark.parametrize(("name", "chosen"), CHOICES)
def test_under_transforms(
    packages: dict[str, ModuleType], name: str, chosen: tuple[int, ...]
) -> None:
    def outcomes(function: Callable[..., Any]) -> list[Tensor | None]:
        given = tuple(t.detach() for t in inputs(name))

        def loss(*args: Tensor) -> Tensor:
            found = function(*args)
            return torch.stack([(n + 1) * found[n].sum() for n in chosen]).sum()

        places = tuple(range(len(given)))
        batch = tuple(torch.stack([t, 2 * t]) for t in given)
        mapped = torch.func.vmap(torch.func.grad(loss, places))(*batch)
        return [*torch.func.grad(loss, places)(*given), *mapped]

    hold(outcomes(packages[name].apply), outcomes(EAGER[name]))


@pytest.mark.parametrize(("name", "chosen"), [c for c in CHOICES if len(c[1]) == 1])
def test_compiled(packages: dict[str, ModuleType], name: str, chosen: tuple[int, ...]) -> None:
    torch.compiler.reset()
    apply = packages[name].apply
    compiled = torch.compile(
        lambda *given: {chosen[0]: apply(*given)[chosen[0]] * 1.0},
        backend="aot_eager",
        fullgraph=True,
    )
    hold(gradients(compiled, name, chosen, 1), gradients(EAGER[name], name, chosen, 1))


def test_forward_mode_of_a_gradient(packages: dict[str, ModuleType]) -> None:
    """Forward over reverse: the gradient of an ignored root has no tangent either."""

    def outcome(function: Callable[..., Any]) -> Tensor:
        x, w, v = (t.detach() for t in inputs("pointwise"))
        gradient = torch.func.grad(lambda x: function(x, w, v)[2].sum())
        with forward_ad.dual_level():
            pushed = gradient(forward_ad.make_dual(x, torch.ones_like(x)))
            return forward_ad.unpack_dual(pushed).tangent

    found = outcome(packages["pointwise"].apply)
    assert found.isfinite().all()
    torch.testing.assert_close(found, outcome(pointwise))
