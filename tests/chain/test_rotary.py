"""Rotary position embedding: torch's results to the third derivative, no copies, and errors with a remedy."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from conftest import DEVICES, dtypes_on_devices
from shared.chains_of_texts import built_texts, hold_each_shape
from shared.derivatives import drawn, hold_third_derivative, hold_values_and_second_derivative
from torch import Tensor
from torch.nn import functional as F

from fusegen.chain import Chain
from fusegen.tools.check import verify

TABLES = "cos: {kind: full, gradient: false}, sin: {kind: full, gradient: false}"
TEXTS = {
    # The tables have gradients too.
    "rotary_formula": (
        "order: 3\noperands: {cos: full, sin: full}\n"
        'chain:\n  - expr: "x * cos + rotate_half(x) * sin"\n'
    ),
    # A norm of the row before it, values of earlier steps after it, and several outputs.
    "rotary_normed": (
        f"dims: 4\noperands: {{residual: full, weight: {{kind: col, dtype: float32}}, {TABLES}}}\n"
        "outputs: [total, turned]\nchain:\n"
        "  - add: {other: residual, name: total}\n"
        "  - rms_norm: {weight: weight, eps: 1e-6}\n"
        '  - expr: {formula: "rope(x, cos, sin) + total", name: turned}\n'
    ),
    # Steps that need whole rows are segments of their own.
    "rotary_apart": (
        "order: 1\noperands: {cos: col, sin: col, factor: row, mask: {kind: full, dtype: bool}}\nchain:\n"
        "  - softmax: {name: share}\n"
        "  - rope: {cos: cos, sin: sin}\n"
        '  - expr: "where(mask, rotate_half(share * factor), x - mean(x))"\n'
        "  - log_softmax\n"
        "  - rotate_half\n"
    ),
}
SHAPES = {
    "rotary_formula": [(2,), (1, 2), (31, 6), (33, 66), (1023, 64), (2, 3, 5, 128), (5, 8198)],
    "rotary_normed": [
        *((1, 1, 1, 2), (3, 2, 33, 6), (2, 3, 31, 64), (1, 3, 5, 66)),
        *((1, 2, 1, 8198), (1, 1, 1, 40006)),  # rows that a block and a cluster hold
    ],
    "rotary_apart": [(1, 2), (31, 6), (33, 66)],
}
#: One library holds all three: torch's headers are read once.
DTYPES = dict.fromkeys(TEXTS, ("float64", "bfloat16"))
Built = dict[str, tuple[Chain, ModuleType]]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Gives the chain and the built package of each spec."""
    return built_texts(tmp_path_factory, "rotary", TEXTS, DTYPES)


def rotate_half(x: Tensor) -> Tensor:
    """As transformers has it."""
    middle = x.shape[-1] // 2
    return torch.cat((-x[..., middle:], x[..., :middle]), -1)


def rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return x * cos + rotate_half(x) * sin


@pytest.mark.parametrize(("name", "dtype", "device"), dtypes_on_devices(TEXTS, DTYPES))
def test_every_shape(name: str, dtype: torch.dtype, device: str, built: Built) -> None:
    hold_each_shape(built[name], SHAPES[name], dtype, device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", TEXTS)
def test_gradcheck(name: str, device: str, built: Built) -> None:
    chain, package = built[name]
    verify.gradcheck(package, chain, training=False, device=device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("table", [(5, 6), (2, 1, 5, 6), (2, 3, 5, 6)])
def test_it_is_what_models_compute_to_the_third_derivative(
    table: tuple[int, ...], device: str, built: Built
) -> None:
    """Of heads that come after the length in memory, with tables that broadcast."""
    _, package = built["rotary_formula"]
    x = drawn(2, 5, 3, 6, device=device).transpose(1, 2)
    tables = drawn(2, *table, device=device, seed=1).unbind()
    hold_third_derivative(package.apply, rope, (x, *tables))


@pytest.mark.parametrize("device", DEVICES)
def test_a_norm_before_it_is_in_the_same_kernel(device: str, built: Built) -> None:
    chain, package = built["rotary_normed"]
    assert len(chain.segments) == 1
    x, residual = drawn(2, 2, 5, 3, 6, device=device).transpose(2, 3).unbind()
    weight = drawn(6, device=device, seed=1)
    cos, sin = drawn(2, 5, 6, device=device, seed=2).unbind()

    def torchs(x: Tensor, residual: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        total = x + residual
        return total, rope(F.rms_norm(total, (6,), weight, 1e-6), cos, sin) + total

    def ours(x: Tensor, residual: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        result: tuple[Tensor, ...] = package.apply(x, residual, weight, cos, sin)
        return result

    hold_values_and_second_derivative(ours, torchs, (x, residual, weight))


@pytest.mark.parametrize("device", DEVICES)
def test_it_rounds_once_where_eager_rounds_each_step(device: str, built: Built) -> None:
    _, package = built["rotary_formula"]
    x = drawn(2, 3, 31, 64, device=device)
    tables = drawn(2, 31, 64, device=device, seed=1).unbind()
    given = [t.bfloat16().requires_grad_() for t in (x, *tables)]
    cotangent = drawn(2, 3, 31, 64, device=device, seed=2).bfloat16()

    def run(function: Callable[..., Tensor], dtype: torch.dtype) -> list[Tensor]:
        leaves = [t.detach().to(dtype).requires_grad_() for t in given]
        value = function(*leaves)
        return [value, *torch.autograd.grad(value, leaves, cotangent.to(dtype))]

    truth = run(rope, torch.float64)
    ours, eager = (run(function, torch.bfloat16) for function in (package.apply, rope))
    for got, theirs, exact in zip(ours, eager, truth, strict=True):
        assert (got - exact).abs().max() <= (theirs - exact).abs().max()
    for got, theirs, exact in [*zip(ours, eager, truth, strict=True)][:2]:
        assert (got - exact).abs().mean() < 0.75 * (theirs - exact).abs().mean()


def test_transforms_see_torchs_function(built: Built) -> None:
    """vmap over x, forward mode, and a Hessian."""
    _, package = built["rotary_formula"]
    x, (cos, sin) = drawn(3, 4, 10), drawn(2, 4, 10, seed=1).unbind()
    for transformed in (
        lambda f: torch.func.vmap(f)(x),
        lambda f: torch.func.jvp(f, (x[0],), (x[1],)),
        lambda f: torch.func.hessian(lambda t: f(t).square().sum())(x[0]),
        lambda f: torch.func.vmap(torch.func.grad(lambda t: f(t).square().sum()))(x),
    ):
        got = transformed(lambda t: package.apply(t, cos, sin))
        torch.testing.assert_close(got, transformed(lambda t: rope(t, cos, sin)))


def test_compiled_it_is_the_same(built: Built) -> None:
    _, package = built["rotary_formula"]
    x, (cos, sin) = drawn(2, 3, 5, 6).requires_grad_(), drawn(2, 5, 6, seed=1).unbind()
    compiled = torch.compile(
        lambda x: package.apply(x, cos, sin) * 2, backend="aot_eager", fullgraph=True
    )
    got = compiled(x)
    torch.testing.assert_close(got, 2 * rope(x, cos, sin))
    (gradient,) = torch.autograd.grad(got.square().sum(), x)
    torch.testing.assert_close(
        gradient, torch.autograd.grad((2 * rope(x, cos, sin)).square().sum(), x)[0]
    )


def test_nothing_is_copied_or_joined(built: Built) -> None:
    """Neither heads after the length, nor tables that broadcast, nor the halves of the result."""
    _, package = built["rotary_normed"]
    x, residual = drawn(2, 2, 31, 3, 64).transpose(2, 3).unbind()
    cos, sin = drawn(2, 31, 64, seed=1).unbind()
    x.requires_grad_()
    with torch.profiler.profile() as profile:
        total, turned = package.apply(x, residual, drawn(64), cos, sin)
        torch.autograd.grad((total, turned), x, (residual, residual))
    names = {event.key for event in profile.key_averages()}
    copies = {"contiguous", "clone", "copy_", "cat", "chunk"}
    assert not names & {f"aten::{name}" for name in copies}


def test_a_pointwise_result_has_the_strides_of_x(built: Built) -> None:
    _, package = built["rotary_formula"]
    x = drawn(2, 31, 3, 64).transpose(1, 2)
    assert package.apply(x, *drawn(2, 31, 64)).stride() == x.stride()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    ("shape", "table", "message"),
    [
        (
            (3, 5),
            (3, 5),
            r"x: expected two halves along dim -1, got shape \(3, 5\); an even size is needed",
        ),
        ((), (), r"x: expected two halves along dim -1, got shape \(\)$"),
        ((3, 8), (3, 4), r"cos: expected shape \(3, 8\) for x of shape \(3, 8\), got \(3, 4\)"),
    ],
)
def test_a_call_that_does_not_fit_is_refused(
    shape: tuple[int, ...], table: tuple[int, ...], message: str, device: str, built: Built
) -> None:
    _, package = built["rotary_formula"]
    with pytest.raises(ValueError, match=message):
        package.apply(*(drawn(*size, device=device) for size in (shape, table, table)))
