"""Rolls, parts, copies and biases whose elements kernels move, against torch's own functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from fusegen.runtime import movement


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Kernels that are torch's functions, on the CPU; the shapes that they are given."""
    seen: list[tuple[int, ...]] = []

    def copy(to: Tensor, x: Tensor) -> None:
        assert to.shape == x.shape
        seen.append(tuple(x.shape))
        to.copy_(x)

    def total(x: Tensor) -> Tensor:
        assert x.dim() == 2 and x.is_contiguous()
        seen.append(tuple(x.shape))
        return x.sum(0)

    monkeypatch.setattr(movement, "_copies", {8: copy})
    monkeypatch.setattr(movement, "_sums", {8: total})
    monkeypatch.setattr(movement, "FEW", 1)
    monkeypatch.setattr(movement, "is_plain_on_gpu", lambda x: type(x) is Tensor)
    return seen


def drawn(*shape: int) -> Tensor:
    """Return random numbers whose strides are not in the order of the dims, with a gradient."""
    last = torch.randn(*shape[1:], shape[0], dtype=torch.float64)
    return last.movedim(-1, 0).requires_grad_()


def _both(
    ours: Callable[..., Any], theirs: Callable[..., Any], *tensors: Tensor, kernels: list[Any]
) -> None:
    """Hold results, gradients, and gradients of gradients against torch's."""
    found, wanted = ours(*tensors), theirs(*tensors)
    several = found if isinstance(found, tuple) else (found,)
    expected = wanted if isinstance(wanted, tuple) else (wanted,)
    for one, other in zip(several, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    torch.manual_seed(1)
    cotangents = [
        torch.randn_like(one.mT).mT if one.dim() > 1 else torch.randn_like(one) for one in several
    ]
    first = torch.autograd.grad(several, tensors, cotangents, retain_graph=True)
    assert kernels
    for one, other in zip(first, torch.autograd.grad(expected, tensors, cotangents), strict=True):
        torch.testing.assert_close(one, other)
    assert torch.autograd.gradcheck(ours, tensors)
    assert torch.autograd.gradgradcheck(ours, tensors)


@pytest.mark.parametrize(
    ("shifts", "dims"),
    [
        (1, 0),
        (-2, 1),
        ((3, -1), (0, 2)),
        ((7, 0, -5), (2, 1, 0)),
        (-100, -1),
        ((1, 1), (0, 0)),
        (2, ()),
    ],
)
def test_a_roll(shifts: Any, dims: Any, moved: list[Any]) -> None:
    """Along one dim or several, back, and further than the dim; flat, or twice the same dim, by torch."""
    x = drawn(4, 3, 5)
    if dims in ((), (0, 0)):
        torch.testing.assert_close(movement.roll(x, shifts, dims), torch.roll(x, shifts, dims))
        assert not moved
        return
    _both(
        lambda x: movement.roll(x, shifts, dims),
        lambda x: torch.roll(x, shifts, dims),
        x,
        kernels=moved,
    )


def test_a_copy(moved: list[Any]) -> None:
    """A contiguous copy, and no copy of what is contiguous."""
    _both(movement.compacted, lambda x: x.contiguous(), drawn(4, 3, 5), kernels=moved)
    dense = torch.randn(3, 4, dtype=torch.float64)
    assert movement.compacted(dense) is dense


@pytest.mark.parametrize(
    ("sizes", "dim"), [(None, 0), (None, 1), ((1, 4), 2), ((2, 1, 1), 0), ((3, 2), -1)]
)
def test_parts(sizes: Any, dim: int, moved: list[Any]) -> None:
    """Selections and stretches of a tensor; the gradient has the tensor's strides."""
    x = drawn(4, 3, 5)

    def parts(x: Tensor) -> tuple[Tensor, ...]:
        return x.unbind(dim) if sizes is None else x.split(list(sizes), dim)

    _both(lambda x: movement.parts(x, sizes, dim), parts, x, kernels=moved)
    found = movement.parts(x, sizes, dim)
    (gradient,) = torch.autograd.grad(found, x, [torch.randn(p.shape).double() for p in found])
    assert gradient.stride() == x.stride()


@pytest.mark.parametrize(("count", "dim"), [(2, 0), (5, -1), (3, 1), (1, 2)])
def test_parts_by_one_copy(count: int, dim: int) -> None:
    x = drawn(4, 3, 5)
    found = movement.parts_by_one_copy(x, count, dim)
    for one, other in zip(found, x.chunk(count, dim), strict=True):
        assert torch.equal(one, other)
        assert one.is_contiguous()
    (gradient,) = torch.autograd.grad(found, x, [p.detach() * 2 for p in found])
    assert torch.equal(gradient, x * 2)


def test_a_part_that_nobody_reads(moved: list[Any]) -> None:
    """Its gradient is zero, and without any there is none."""
    x = drawn(3, 4)
    first, *_ = movement.parts(x, None, 0)
    (gradient,) = torch.autograd.grad(first.sum(), x)
    torch.testing.assert_close(gradient, torch.tensor([[1.0], [0], [0]]).double().expand(3, 4))
    assert moved == [(4,)]


@pytest.mark.parametrize("dense", [True, False], ids=["dense", "strided"])
def test_a_bias(dense: bool, moved: list[Any]) -> None:
    """The products are torch's, and their gradients; the bias's gradient is summed."""
    x, weight, bias = drawn(2, 6, 3), drawn(5, 3), drawn(5)
    if dense:
        x = x.detach().contiguous().requires_grad_()
    _both(movement.linear, functional.linear, x, weight, bias, kernels=moved)
    assert (12, 5) in moved
    _both(
        lambda *t: movement.linear(x.detach(), *t),
        lambda *t: functional.linear(x.detach(), *t),
        weight,
        bias,
        kernels=moved,
    )
    vector = drawn(3)
    _both(
        lambda *t: movement.linear(vector, *t),
        lambda *t: functional.linear(vector, *t),
        weight,
        bias,
        kernels=[1],
    )


class _Nothing(torch.autograd.Function):
    """The number 0 of a tensor, to which it passes no gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        del ctx
        return x.new_zeros(())

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> None:
        del ctx, cotangent


@pytest.mark.parametrize(
    "move",
    [
        movement.compacted,
        lambda x: movement.roll(x, 1, 0),
        lambda x: movement.parts(x, None, 0)[0],
        lambda x: movement.linear(x, drawn(6, 5), drawn(6)),
        lambda x: movement.linear(x.contiguous(), drawn(6, 5), drawn(6)),
    ],
    ids=["copy", "roll", "part", "sum with a bias", "linear"],
)
def test_a_gradient_that_is_absent(move: Callable[[Tensor], Tensor], moved: list[Any]) -> None:
    """It is none of what came before either, not zeros."""
    x = drawn(4, 3, 5)
    (gradient,) = torch.autograd.grad(_Nothing.apply(move(x * 2)), x, allow_unused=True)
    assert gradient is None
    del moved


def test_a_sum_may_be_changed_in_place(moved: list[Any]) -> None:
    """As torch's may."""
    x, weight, bias = drawn(6, 3), drawn(5, 3), drawn(5)
    found = movement.linear(x, weight, bias).relu_()
    (gradient,) = torch.autograd.grad(found.sum(), bias)
    torch.testing.assert_close(gradient, (functional.linear(x, weight, bias) > 0).sum(0).double())
    assert (6, 5) in moved


def test_what_is_frozen_or_not_there(moved: list[Any]) -> None:
    """A bias without a gradient, none at all, and a pass without gradients."""
    x, weight, bias = drawn(6, 3), drawn(5, 3), drawn(5)
    for given in (bias.detach(), None):
        movement.linear(x, weight, given).sum().backward()
    with torch.no_grad():
        assert not movement.linear(x, weight, bias).requires_grad
        assert all(not part.requires_grad for part in movement.parts(x, None, 0))
    assert not moved


def test_a_bias_of_another_class(moved: list[Any]) -> None:
    """Its class decides what becomes of it."""

    class Own(Tensor):
        pass

    x, weight = drawn(6, 3), drawn(5, 3)
    bias = drawn(5).detach().as_subclass(Own).requires_grad_()
    found = movement.linear(x, weight, bias)
    (gradient,) = torch.autograd.grad(found, bias, torch.ones_like(found))
    assert type(gradient) is Own
    assert not moved


@pytest.mark.parametrize("dense", [True, False], ids=["dense", "strided"])
def test_autocast_keeps_the_dtype_of_a_bias(
    dense: bool,
    monkeypatch: pytest.MonkeyPatch,
    moved: list[Any],
) -> None:
    """The product is in 16 bits, the gradient of a float32 bias in float32."""
    monkeypatch.setattr(movement, "_copies", {2: None, 4: None})
    monkeypatch.setattr(movement, "_sums", {2: lambda x: x.sum(0)})
    x, weight, bias = (
        drawn(*shape).float().detach().requires_grad_() for shape in ((6, 3), (5, 3), (5,))
    )
    if dense:
        x = x.detach().contiguous().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = movement.linear(x, weight, bias)
    assert found.dtype is torch.bfloat16
    (gradient,) = torch.autograd.grad(found, bias, torch.ones_like(found))
    assert gradient.dtype is torch.float32
    assert torch.equal(gradient, torch.full((5,), 6.0))
    assert not moved  # they are of float64


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
class TestOnAGpu:
    """The kernels themselves."""

    @pytest.mark.parametrize(
        "shape",
        [(65537, 8), (1031, 1032), (4099, 131), (70001, 4), (262145, 1), (37, 8192), (3, 100003)],
    )
    def test_sums_of_rows(self, shape: tuple[int, int], dtype: torch.dtype, package: Any) -> None:
        """Against float64: the error of float32 sums, and of rounding the result."""
        package("scale_softmax")
        x = torch.randn(shape, device="cuda").to(dtype)
        found = movement._sums[x.itemsize](x)
        assert found.dtype is dtype
        magnitudes = x.double().abs().sum(0)
        epsilon = 2.0**-20 if dtype is not torch.float64 else 2.0**-48
        bound = magnitudes * epsilon + x.double().sum(0).abs() * torch.finfo(dtype).eps
        assert ((found.double() - x.double().sum(0)).abs() <= bound).all()
        assert torch.equal(found, movement._sums[x.itemsize](x))

    @pytest.mark.parametrize(
        ("shape", "order"),
        [
            ((8, 197, 12, 64), (0, 2, 1, 3)),
            ((3, 40, 7, 50, 32), (1, 3, 0, 2, 4)),
            ((64, 8, 7, 8, 7, 12), (0, 1, 3, 2, 4, 5)),
            ((300, 50, 5, 7), (1, 0, 2, 3)),
            ((5, 6, 7, 8, 9, 20), (4, 3, 2, 1, 0, 5)),
        ],
    )
    def test_copies(
        self, shape: tuple[int, ...], order: tuple[int, ...], dtype: torch.dtype, package: Any
    ) -> None:
        """In runs of 8 bytes and more, and of fewer by torch; rolls and parts of them likewise."""
        package("scale_softmax")
        x = torch.randn(shape, device="cuda").to(dtype).permute(order).requires_grad_()
        assert torch.equal(movement.compacted(x), x)
        for dims in ((0, 1), (0, 2, 1), (x.dim() - 1, 0)):
            shifts = tuple(range(-1, len(dims) - 1))
            assert torch.equal(movement.roll(x, shifts, dims), torch.roll(x, shifts, dims))
        found = movement.parts(x, None, 2)
        cotangents = [
            torch.randn_like(x.movedim(-1, 0)).movedim(0, -1).unbind(2)[n]
            for n in range(len(found))
        ]
        (gradient,) = torch.autograd.grad(found, x, cotangents)
        assert torch.equal(gradient, torch.stack(cotangents, 2))
        assert gradient.stride() == x.stride()
