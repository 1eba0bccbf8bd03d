"""What is computed together: the largest sets of nodes that one package can hold."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from shared.captured import captured, ops_of, regions_of, texts_of
from torch import Tensor, nn
from torch.nn import functional

from fusegen.models import FusegenBackend
from fusegen.models.arguments import UnfitError
from fusegen.models.plan import ALONE, APART

X, Y = torch.randn(4, 6), torch.randn(4, 6)
IMAGE = torch.randn(2, 8, 5, 5)


def test_a_value_that_others_read_is_an_output() -> None:
    def residual(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        total = x + y
        return total, functional.layer_norm(total, (6,))

    (region,) = regions_of(captured(residual, X, Y))
    assert [call.name for call in region.calls.values()] == ["add", "layer_norm"]
    assert len(region.outputs) == 2


def test_a_region_ends_at_what_is_no_op() -> None:
    def two(x: Tensor, y: Tensor) -> Tensor:
        return torch.tanh(torch.exp(x) @ torch.sin(y).T) * 2

    assert ops_of(captured(two, X, Y)) == [["tanh", "mul"]]


def test_no_path_leaves_a_region_and_comes_back() -> None:
    """h goes through the matmul and meets itself again: the sum cannot be in one package with h."""

    def cycle(x: Tensor, y: Tensor) -> Tensor:
        h = torch.exp(x) + y
        return h + torch.tanh(h @ torch.eye(6))

    assert ops_of(captured(cycle, X, Y)) == [["exp", "add"], ["tanh", "add"]]


def test_two_regions_do_not_wait_for_each_other() -> None:
    """Each is free of cycles alone; a needs what b computes, and b what a computes."""

    def crossed(x: Tensor, y: Tensor) -> Tensor:
        a, b = torch.exp(x) * 2, torch.sin(y) * 3
        into_b, into_a = a @ torch.eye(6), b @ torch.eye(6)
        return (a + into_a) @ (b + into_b).T

    found = ops_of(captured(crossed, X, Y))
    assert found == [["exp", "mul", "add"], ["sin", "mul"]]


def test_a_region_that_began_before_may_need_what_comes_after() -> None:
    """Its last node needs b; b's last one needs what its first one computes, which comes before b."""

    def crossed(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        a = torch.exp(x) * 2
        into_b = a.cumsum(0)
        b = torch.sin(y) * 3
        into_a = b.cumsum(0)
        return a * into_a + 1, b * into_b + 1

    found = ops_of(captured(crossed, X, Y))
    assert found == [["exp", "mul", "mul", "add"], ["sin", "mul"], ["mul", "add"]]


def test_different_reductions_are_different_regions() -> None:
    def both(x: Tensor) -> Tensor:
        return torch.softmax(torch.softmax(x * 2, 1).tanh(), -1).exp()

    image = captured(both, torch.randn(3, 4, 5))
    assert ops_of(image) == [["mul", "softmax", "tanh"], ["softmax", "exp"]]


def test_a_reduction_that_drops_its_dim_is_the_end() -> None:
    def dropped(x: Tensor) -> Tensor:
        return ((x * x).mean(-1) + 1).sqrt()

    assert ops_of(captured(dropped, X)) == [["mul", "mean"], ["add", "sqrt"]]


def test_values_of_rows_belong_to_the_region_of_the_row() -> None:
    def rms(x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)

    assert ops_of(captured(rms, X)) == [["pow", "mean", "add", "rsqrt", "mul"]]


def test_what_is_changed_in_place_keeps_its_order() -> None:
    """The first sum reads y before it is changed, the second after."""

    def changed(x: Tensor, y: Tensor) -> Tensor:
        before = (x + y).exp()
        y.mul_(2)
        return before * (x + y).tanh()

    assert ops_of(captured(changed, X, Y.clone())) == [["exp", "tanh", "mul"]]


def test_an_op_in_place_that_nobody_can_tell_is_fused() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(inplace=True), nn.Softmax(-1))
    assert ops_of(captured(model, X)) == [["relu", "softmax"]]


def test_what_does_not_depend_on_the_activation_may_not_be_long() -> None:
    """It has no name, so a value that is used twice is written twice: here a million times."""

    def doubled(x: Tensor, y: Tensor) -> Tensor:
        for _ in range(20):
            x, y = x + x, y + y
        return x * y

    with pytest.raises(UnfitError, match="too long"):
        texts_of(captured(doubled, X, Y))


def test_small_tensors_change_no_dtype_of_a_large_one() -> None:
    """What they are computed from is read as it is stored, if that converts nothing else."""

    def scaled(x: Tensor, scale: Tensor) -> Tensor:
        return (x * (1 + scale).bfloat16()).tanh()

    half, single = torch.randn(4, 6).bfloat16(), torch.randn(6)
    *_, text = texts_of(captured(scaled, half, single))
    assert "dtypes: [bfloat16]" in text
    assert "t1: {kind: col, dtype: float32}" in text and "1 + t1" in text
    *_, text = texts_of(captured(scaled, half, single.bfloat16()))
    assert "t1: col" in text and "1 + t1" in text


def test_a_small_tensor_of_two_stays_outside() -> None:
    """The gradient of each tensor that a kernel reads is as large as the activation."""

    def gated(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return (x * (a.exp() + b)).tanh()

    a, b = torch.randn(2, 8, 1, 1), torch.randn(2, 8, 1, 1)
    *_, text = texts_of(captured(gated, IMAGE, a, b))
    assert "exp(" not in text
    *_, text = texts_of(captured(lambda x, a: gated(x, a, a), IMAGE, a))
    assert "exp(t1)" in text


@pytest.mark.parametrize("shape", [(2, 8, 1, 1), (2, 1, 1, 1)])
def test_a_gate_of_each_channel_has_rows_of_all_places(shape: tuple[int, ...]) -> None:
    """Its package reads channels-last where it lies; rows of the last dim would be copied."""
    gate = torch.randn(shape)
    (text,) = texts_of(captured(lambda x, gate: functional.hardswish(x) * gate, IMAGE, gate))
    assert "dims: 4" in text and "t1: row" in text
    # Beside an operand of the last dim, rows are of this dim.
    last = torch.randn(IMAGE.shape[-1])
    (text,) = texts_of(captured(lambda x, gate, last: (x + last).relu() * gate, IMAGE, gate, last))
    assert "dims" not in text and "t1: col" in text and "t2: row" in text


def test_sizes_that_change_are_not_fixed() -> None:
    def norm(x: Tensor, y: Tensor) -> Tensor:
        return functional.layer_norm(x + y, (6,)).relu()

    module = captured(norm, X, Y, dynamic=True)
    (region,) = regions_of(module)
    assert isinstance(region.shape[0], torch.SymInt)
    assert [call.name for call in region.calls.values()] == ["add", "layer_norm", "relu"]


def test_a_norm_over_channels_is_in_one_region_with_what_is_pointwise() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.conv = nn.GroupNorm(2, 8), nn.Conv2d(8, 8, 1)

        def forward(self, x: Tensor) -> Any:
            return self.conv(functional.silu(self.norm(x * 2)))

    assert ops_of(captured(Block(), IMAGE)) == [["mul", "group_norm", "swish"]]


def _norm(x: Tensor, weight: Tensor) -> Tensor:
    wide = x.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6) * weight).to(x.dtype)


def test_small_tensors_of_float32_stay_so_beside_16_bits() -> None:
    x, weight = X.bfloat16(), torch.rand(6)
    (text,) = texts_of(captured(_norm, x, weight))
    assert "dtypes: [bfloat16]" in text
    assert "t1: {kind: col, dtype: float32}" in text
    (text,) = texts_of(captured(_norm, x, weight.bfloat16()))
    assert "float32" not in text


def test_large_tensors_of_two_dtypes_are_of_float32() -> None:
    def gated(x: Tensor, gate: Tensor) -> Tensor:
        return (x * gate).tanh().to(x.dtype)

    (text,) = texts_of(captured(gated, X.bfloat16(), Y))
    assert "dtypes: [float32]" in text
    assert "dtype: float32" not in text

    def widened(x: Tensor, weight: Tensor) -> Tensor:
        return (x * weight).tanh()

    (text,) = texts_of(captured(widened, X.bfloat16(), torch.rand(6)))
    assert "dtypes: [float32]" in text


def test_a_batch_norm_of_float32_stays_so_beside_16_bits() -> None:
    norm = nn.BatchNorm2d(8)

    def after(x: Tensor) -> Tensor:
        return norm(x).relu()

    (text,) = texts_of(captured(after, IMAGE.bfloat16()))
    assert "dtypes: [bfloat16]" in text
    assert "features: 8, dtype: float32" in text


@pytest.mark.usefixtures("specs_by_torch")
def test_a_report_tells_ops_apart_that_have_others_beside_them() -> None:
    def mixed(x: Tensor, y: Tensor) -> Tensor:
        both = torch.sigmoid(x @ y.T)  # a slice lies between it and the product
        return (both[:, :3] * both[:, 1:] * 2) @ torch.tanh(y[:3] @ x.T)  # tanh is alone

    used = FusegenBackend(everything=True)
    torch.compile(mixed, backend=used)(X, Y)
    report = used.report
    assert (report.fused_ops, report.fusible_ops, report.alone, report.apart) == (2, 3, 1, 1)
    assert report.left["sigmoid", APART] == report.left["tanh", ALONE] == 1
    assert "2 of 3 ops fused; 1 has nothing beside it" in str(report)


@pytest.mark.usefixtures("specs_by_torch")
@pytest.mark.parametrize(
    ("alone", "count"),
    [
        (lambda x: functional.normalize(x, dim=-1), 1),
        (functional.softsign, 1),
        (functional.tanhshrink, 1),
        (lambda x: functional.softmin(x, -1), 1),
        (lambda x: x.logsumexp(-1, keepdim=True), 1),
        (lambda x: functional.rms_norm(x, (6,)), 1),  # a single kernel on a GPU
        (functional.gelu, 0),
    ],
)
def test_what_torch_computes_by_several_kernels_is_fused_by_itself(alone: Any, count: int) -> None:
    def between(x: Tensor, y: Tensor) -> Tensor:
        return alone(x @ y.T @ y).cumsum(-1)

    used = FusegenBackend(everything=True)
    found = torch.compile(between, backend=used)(X, Y)
    torch.testing.assert_close(found, between(X, Y))
    assert (len(used.report.fused), used.report.alone) == (count, 1 - count), used.report
