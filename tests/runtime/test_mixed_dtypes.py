"""Operands and results of float32 beside an x of 16 bits: declared with `dtype: float32`."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import pytest
import torch
from conftest import DEVICES, derive
from random_programs.build import build_specs
from torch import Tensor
from torch.func import grad, jvp, vmap
from torch.nn import functional

from fusegen import chain, load
from fusegen.base.errors import SpecError
from fusegen.runtime.autocast import widening
from fusegen.spec import parse
from fusegen.tools.check import verify

SPECS = {
    "mixed_norm": """
        arguments: {features: int}
        operands:
          weight: {kind: col, dtype: float32, init: ones, shape: [features]}
          gate: {kind: col, init: ones, shape: [features]}
          scale: {kind: scalar, dtype: float32, init: ones}
          factor: {kind: row, dtype: float32}
        chain:
          - rms_norm: {weight: weight, eps: 1e-6}
          - expr: "x * scale * gate"
          - mul: factor
        """,
    # Elements of channels: pointwise, and in rows that contain several channels.
    "mixed_image": """
        dims: 4
        order: 1
        operands: {weight: {kind: channel, dtype: float32}, bias: channel}
        chain:
          - expr: "x * weight + bias"
          - group_norm: {name: norm, num_groups: 1, features: 3, dtype: float32}
          - mul: weight
        """,
    "mixed_loss": """
        order: 1
        operands: {target: {kind: row, dtype: int64}, weight: {kind: channel, dtype: float32}}
        outputs: [{name: lse, dtype: float32}, {name: loss, dtype: float32}]
        chain:
          - logsumexp: {name: lse, dim: 1, keepdim: true}
          - expr: "input - lse"
          - nll_loss: {name: loss, target: target, weight: weight}
        """,
    "mixed_rows": """
        outputs: [{name: logsumexp, dtype: float32}]
        operands: {bias: col}
        chain:
          - add: bias
          - tanh
          - logsumexp: {dim: 1}
        """,
}
#: What is of float32 beside an x of 16 bits, among x and the operands.
WIDE = {
    "mixed_norm": (False, True, False, True, True),
    "mixed_image": (False, True, False, True, True),
}
SIZES = (1, 31, 33, 1023)
FLOAT32 = torch.finfo(torch.float32).eps

Function = Callable[..., Tensor]


def mixed_norm(x: Tensor, weight: Tensor, gate: Tensor, scale: Tensor, factor: Tensor) -> Tensor:
    normed = functional.rms_norm(x, x.shape[-1:], weight, eps=1e-6)
    return normed * scale * gate * factor


def mixed_image(x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    return functional.group_norm(x * weight + bias, 1, scale, shift) * weight


EAGER: dict[str, Function] = {"mixed_norm": mixed_norm, "mixed_image": mixed_image}


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModuleType]:
    folder = tmp_path_factory.mktemp("mixed_dtypes")
    paths = written(folder)
    build_specs(paths, folder / "out", dtypes=("bfloat16",))
    return {path.stem: load(path.stem, folder / "out") for path in paths}


def written(folder: Path) -> list[Path]:
    """Write the specs into a folder."""
    for name, text in SPECS.items():
        (folder / f"{name}.yaml").write_text(textwrap.dedent(text))
    return [folder / f"{name}.yaml" for name in SPECS]


def shapes(name: str, size: int) -> Sequence[tuple[int, ...]]:
    """Return the shapes of x and the operands for a number of columns, or of elements in a channel."""
    if name == "mixed_norm":
        return (7, size), (size,), (size,), (1,), (7, 1)
    return (2, 3, size, 2), (3, 1, 1), (3, 1, 1), (3,), (3,)


def drawn(
    name: str, size: int, dtype: torch.dtype = torch.bfloat16, device: str = "cpu"
) -> list[Tensor]:
    """Return x and the operands, each in its dtype, which have gradients."""
    generator = torch.Generator().manual_seed(size)
    given = [torch.randn(s, generator=generator) + 0.5 for s in shapes(name, size)]
    computed = torch.promote_types(dtype, torch.float32)
    dtypes = [computed if wide else dtype for wide in WIDE[name]]
    return [t.to(device, d).requires_grad_() for t, d in zip(given, dtypes, strict=True)]


def exact(given: Sequence[Tensor]) -> list[Tensor]:
    return [t.detach().double().requires_grad_() for t in given]


def error(got: Tensor, truth: Tensor) -> float:
    """Return the largest error, relative to the largest element."""
    got, truth = got.detach().double(), truth.detach()
    return float((got - truth).abs().max() / truth.abs().max().clamp_min(1e-30))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", EAGER)
def test_values_and_gradients_against_float64(
    name: str, size: int, device: str, packages: dict[str, ModuleType]
) -> None:
    """The gradient of what is of float32 has float32's digits, that of the rest 16 bits."""
    given = drawn(name, size, device=device)
    truths = exact(given)
    got, truth = packages[name].apply(*given), EAGER[name](*truths)
    eager = EAGER[name](*given)  # of float32, from which its gradients come
    along = torch.randn(got.shape, device=device).bfloat16()
    slopes = torch.autograd.grad(got, given, along)
    theirs = torch.autograd.grad(eager, given, along.to(eager.dtype))
    wanted = torch.autograd.grad(truth, truths, along.double())
    assert got.dtype is torch.bfloat16
    assert [s.dtype for s in slopes] == [t.dtype for t in given]
    assert error(got, truth) < 2**-8
    for ours, other, right in zip(slopes, theirs, wanted, strict=True):
        bound = 2**-7 if ours.dtype is torch.bfloat16 else 2**-11 if size == 1 else 2**-13
        assert error(ours, right) < max(bound, 2 * error(other, right))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", SIZES)
def test_second_derivatives(size: int, device: str, packages: dict[str, ModuleType]) -> None:
    torch.manual_seed(size)  # of 300 seeds one draws a sum that cancels beyond this bound
    given = drawn("mixed_norm", size, device=device)
    truths = exact(given)
    value, truth = packages["mixed_norm"].apply(*given), mixed_norm(*truths)
    along = torch.randn(value.shape, device=device).bfloat16()
    slopes = torch.autograd.grad(value, given, along, create_graph=True)
    wanted = torch.autograd.grad(truth, truths, along.double(), create_graph=True)
    again = [torch.randn(s.shape, device=device).bfloat16() for s in slopes]
    found = torch.autograd.grad(
        slopes, given, [a.to(s) for a, s in zip(again, slopes, strict=True)]
    )
    right = torch.autograd.grad(wanted, truths, [a.double() for a in again])
    assert [f.dtype for f in found] == [t.dtype for t in given]
    for ours, theirs in zip(found, right, strict=True):
        assert error(ours, theirs) < (2**-7 if ours.dtype is torch.bfloat16 else 2**-13)


def test_an_undeclared_operand_without_kernels_of_float32(
    packages: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, weight, bias, *norm = drawn("mixed_image", 5)
    package = packages["mixed_image"]
    monkeypatch.setattr(package._chain, "_dtypes", frozenset({torch.bfloat16}))
    message = (
        "bias: expected bfloat16 as x has, got float32; build the package with float32 too, or"
    )
    with pytest.raises(TypeError, match=message):
        package.apply(x, weight, bias.float(), *norm)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_lower_dtype_is_widened(dtype: torch.dtype, packages: dict[str, ModuleType]) -> None:
    """The gradient has the operand's dtype."""
    x, weight, *others = drawn("mixed_norm", 33)
    low = weight.detach().to(dtype).requires_grad_()
    got = packages["mixed_norm"].apply(x, low, *others)
    assert torch.equal(got, packages["mixed_norm"].apply(x, low.float(), *others))
    assert torch.autograd.grad(got.sum(), low)[0].dtype is dtype


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        (torch.float64, "expected float32 for x of bfloat16, got float64; call .to(torch.float32)"),
        (torch.int64, "expected float32 for x of bfloat16, got int64"),
    ],
)
def test_other_dtypes_are_refused(
    dtype: torch.dtype, message: str, packages: dict[str, ModuleType]
) -> None:
    x, weight, *others = (t.detach() for t in drawn("mixed_norm", 33))
    with pytest.raises(TypeError, match=re.escape(f"mixed_norm: weight: {message}")):
        packages["mixed_norm"].apply(x, weight.to(dtype), *others)


def test_transforms(packages: dict[str, ModuleType]) -> None:
    apply = packages["mixed_norm"].apply
    given = [t.detach() for t in drawn("mixed_norm", 33)]
    dtypes = [t.dtype for t in given]
    tangents = [torch.randn_like(t) for t in given]
    value, tangent = jvp(apply, tuple(given), tuple(tangents))
    truth = jvp(mixed_norm, tuple(exact(given)), tuple(t.double() for t in tangents))
    assert value.dtype is tangent.dtype is torch.bfloat16
    assert error(tangent, truth[1]) < 2**-7
    slopes = grad(lambda *a: apply(*a).float().sum(), tuple(range(5)))
    assert [s.dtype for s in jvp(slopes, tuple(given), tuple(tangents))[1]] == dtypes
    batches = [torch.stack([t, t.flip(0)]) for t in given]
    assert torch.equal(vmap(apply)(*batches)[0], value)
    each = vmap(slopes)(*batches)
    assert [s.dtype for s in each] == dtypes
    for one, alone in zip(each, slopes(*given), strict=True):
        assert torch.equal(one[0], alone)


def test_torch_compile_and_export(packages: dict[str, ModuleType]) -> None:
    torch.compiler.reset()
    apply, given = packages["mixed_norm"].apply, drawn("mixed_norm", 33)
    compiled = torch.compile(apply, fullgraph=True, backend="aot_eager")
    got, wanted = compiled(*given), apply(*given)
    assert torch.equal(got, wanted)
    pairs = [torch.autograd.grad(value.sum(), given) for value in (got, wanted)]
    for ours, theirs in zip(*pairs, strict=True):
        assert ours.dtype is theirs.dtype
        assert torch.equal(ours, theirs)
    module = packages["mixed_norm"].Module(33)
    module.gate.data = module.gate.data.to(given[2].dtype)
    x, factor = given[0].detach(), given[-1].detach()
    program = torch.export.export(module, (x, factor))
    assert torch.equal(program.module()(x, factor), module(x, factor))


def test_the_operators_as_torch_checks_them(packages: dict[str, ModuleType]) -> None:
    (forward, backward, _) = packages["mixed_norm"]._chain.operators("same")
    x, weight, gate, scale, factor = (t.detach() for t in drawn("mixed_norm", 33))
    given = (x, weight, scale, gate, factor)
    torch.library.opcheck(forward.overload, given)
    _, *saved = forward.overload(*given)
    torch.library.opcheck(backward.overload, (*given, x, *saved))


def test_autocast(packages: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is declared keeps its digits, and the result 16 bits; without kernels of float32 the rest is
    converted to x's dtype."""
    package = packages["mixed_norm"]
    x, weight, gate, *others = drawn("mixed_norm", 33)
    wide = gate.detach().float().requires_grad_()
    true = package.apply(x, weight, gate, *others)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(package.apply(x, weight, gate, *others), true)
        monkeypatch.setattr(package._chain, "_autocast", widening({}, ()))
        got = package.apply(x, weight, wide, *others)
    assert torch.equal(got, true)
    assert [s.dtype for s in torch.autograd.grad(got.sum(), (weight, wide))] == [torch.float32] * 2


def test_the_unit_of_errors_knows_them(packages: dict[str, ModuleType], tmp_path: Path) -> None:
    """`fusegen check` holds a gradient of float32 against float32's digits."""
    derived = derive(written(tmp_path)[1])
    case = verify.make_case(derived, (2, 3, 5, 2), training=False)
    errors = verify.compare(packages["mixed_image"], derived, case, torch.bfloat16)
    bounds = {error.name: error.bound for error in errors}
    assert bounds["grad_weight"] == verify.BOUND[torch.float32] > bounds["grad_bias"]
    assert all(error.within for error in errors), errors


def test_what_the_package_says(packages: dict[str, ModuleType]) -> None:
    package = packages["mixed_norm"]
    assert "float32 and int64 operands only its device." in str(package.__doc__)
    assert "weight: col operand, [cols], float32 unless x is float64." in package.apply.__doc__


def logits(
    size: int, device: str = "cpu", dtype: torch.dtype = torch.bfloat16
) -> tuple[Tensor, Tensor, Tensor]:
    """Return x of a loss, its targets and the weights of classes."""
    generator = torch.Generator().manual_seed(size)
    x = (3 * torch.randn(7, size, generator=generator)).to(device, dtype).requires_grad_()
    target = torch.randint(size, (7,), generator=generator).to(device)
    return x, target, torch.rand(size, generator=generator).add(0.1).to(device)


def loss_of(x: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    lse = x.logsumexp(1, keepdim=True)
    return lse, functional.nll_loss(x - lse, target, weight)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", SIZES)
def test_results_of_float32(size: int, device: str, packages: dict[str, ModuleType]) -> None:
    """They have float32's digits, and so have their cotangents."""
    x, target, weight = logits(size, device)
    (truth,), eager = exact([x]), x.detach().float()
    found = packages["mixed_loss"].apply(x, target, weight)
    theirs, right = loss_of(eager, target, weight), loss_of(truth, target, weight.double())
    for ours, other, wanted in zip(found, theirs, right, strict=True):
        assert ours.dtype is torch.float32
        assert ours.shape == wanted.shape
        assert error(ours, wanted) < 2 * error(other, wanted) + 4 * FLOAT32
    along = [torch.randn_like(value) for value in found]
    (slope,) = torch.autograd.grad(found, x, along)
    (wanted,) = torch.autograd.grad(right, truth, [a.double() for a in along])
    assert slope.dtype is torch.bfloat16
    assert error(slope, wanted) < 2**-8


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", SIZES[1:])
def test_derivatives_by_a_cotangent_of_float32(
    size: int, device: str, packages: dict[str, ModuleType]
) -> None:
    """Functions have float32's digits too, which those of tanh show."""
    x, _, weight = logits(size, device)
    bias = weight.bfloat16()
    (truth,), wide = exact([x]), bias.double()
    value, right = packages["mixed_rows"].apply(x, bias), (truth + wide).tanh().logsumexp(1)
    assert error(value, right) < 4 * FLOAT32
    along = torch.randn(7, device=device).requires_grad_()
    (exact_along,) = exact([along])
    (slope,) = torch.autograd.grad(value, x, along, create_graph=True)
    (wanted,) = torch.autograd.grad(right, truth, exact_along, create_graph=True)
    again = torch.randn(slope.shape, device=device).bfloat16()
    found = torch.autograd.grad(slope, (x, along), again)
    theirs = torch.autograd.grad(wanted, (truth, exact_along), again.double())
    assert [f.dtype for f in found] == [torch.bfloat16, torch.float32]
    assert error(found[0], theirs[0]) < 2**-7
    assert error(found[1], theirs[1]) < 2**-17


def test_transforms_of_results_of_float32(packages: dict[str, ModuleType]) -> None:
    torch.compiler.reset()
    given = logits(33)
    apply = packages["mixed_loss"].apply
    values = apply(*given)
    for ours, theirs in zip(
        torch.compile(apply, fullgraph=True, backend="aot_eager")(*given), values, strict=True
    ):
        assert torch.equal(ours, theirs)
    for number in range(2):  # the cotangent of the other one is None
        slope = torch.autograd.grad(apply(*given)[number].sum(), given[0])[0]
        assert slope.dtype is torch.bfloat16
    rows, x, bias = packages["mixed_rows"], given[0].detach(), given[2].bfloat16()
    tangents = (torch.randn_like(x), torch.randn_like(bias))
    value, tangent = jvp(rows.apply, (x, bias), tangents)
    assert value.dtype is tangent.dtype is torch.float32
    assert torch.equal(vmap(rows.apply, (0, None))(torch.stack([x, x]), bias)[1], value)
    (forward, backward, _) = rows._chain.operators("same")
    torch.library.opcheck(forward.overload, (x, bias))
    _, *saved = forward.overload(x, bias)
    torch.library.opcheck(backward.overload, (x, bias, torch.randn(7), *saved))
    assert "The chain's value, in float32 unless x is float64." in rows.apply.__doc__


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        (
            "outputs: [{name: tanh, dtype: float32}]\nchain:\n  - tanh\n",
            "tanh has a number for each element, which is of x's dtype",
            3,
        ),
        (
            "dims: 4\noutputs: [{name: mean, dtype: float32}, sum]\nchain:\n"
            "  - mean: {dim: 1, keepdim: true}\n  - sum: {dim: 2, keepdim: true}\n",
            "mean is returned with `dtype: float32`, and sum starts another segment that takes it",
            4,
        ),
    ],
)
def test_results_that_are_refused(text: str, message: str, line: int) -> None:
    with pytest.raises(SpecError, match=re.escape(message)) as raised:
        chain.derive(parse(text, "refused"))
    assert raised.value.line == line
