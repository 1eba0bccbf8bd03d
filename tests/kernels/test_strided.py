"""Tensors with gaps between their rows: parts of wider tensors, chunks of a projection, expanded operands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from conftest import DEVICES, NAMES, ROOT, derive
from shared.layouts import channels_last, copied
from shared.shaped_originals import SHAPED, doubled
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.nn import functional as F

from fusegen import load
from fusegen.chain import Chain
from fusegen.tools.check import verify

CHAINS = ROOT / "tests" / "chains"
#: Of odd rows, of vectors, of rows that a block and a cluster hold, and of streamed ones.
ROWS = [(65, 33), (17, 64), (5, 4099), (3, 8192), (2, 140000)]
#: By the number of dims.
SHAPES = {2: (31, 64), 3: (5, 33, 8), 4: (3, 32, 4, 8), 5: (2, 16, 2, 3, 8)}

Package = Callable[[str], ModuleType]


def part(tensor: Tensor, dim: int, width: int = 8) -> Tensor:
    """Return a tensor as a part of one that is wider along a dim, with NaN in the gaps."""
    place = dim % tensor.dim()
    shape = [width if d == place else n for d, n in enumerate(tensor.shape)]
    return torch.cat([tensor, tensor.new_full(shape, float("nan"))], place).narrow(
        place, 0, tensor.shape[place]
    )


def run(
    package: ModuleType, case: verify.Case, tensors: list[Tensor], along: Tensor
) -> list[Tensor]:
    """Return the value at x and the full operands, and their gradients."""
    leaves = [t.detach().requires_grad_() for t in tensors]
    found = iter(leaves)
    x = next(found)
    operands = [next(found) if t.shape == x.shape else t for t in case.operands.values()]
    out = package.apply(x, *operands, **case.options)
    return [out, *torch.autograd.grad(out, leaves, along)]


def compare(
    chain: Chain,
    package: ModuleType,
    case: verify.Case,
    lying: Callable[[Tensor], Tensor],
    *,
    copies: bool = False,
) -> list[Tensor]:
    """Compare x, full operands and a cotangent that lie in some way with contiguous ones; none is copied."""
    full = [case.x, *(t for t in case.operands.values() if t.shape == case.x.shape)]
    shape = package.apply(case.x, *case.operands.values(), **case.options).shape
    along = torch.linspace(-1, 1, shape.numel(), dtype=case.x.dtype, device=case.x.device).reshape(
        shape
    )
    wanted = run(package, case, full, along)
    by_element = chain.segments[-1].outline in {"like", "half"}
    given = [lying(t) for t in full]
    cotangent = lying(along) if by_element else along
    with torch.profiler.profile() as profile:
        found = run(package, case, given, cotangent)
    if not copies:
        assert not copied(profile)
    for got, truth in zip(found, wanted, strict=True):
        torch.testing.assert_close(got, truth, rtol=1e-10, atol=1e-12)
    return found


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", ROWS, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_a_part_of_a_wider_tensor(
    name: str,
    shape: tuple[int, int],
    device: str,
    package: Package,
    derived: Callable[[str], Chain],
) -> None:
    """`wide[:, :n]`: the rows lie together, but do not follow one another."""
    chain = derived(name)
    case = verify.make_case(chain, shape, training=False, device=device)
    for width in (8, 3):  # rows that vectors can read, and others
        compare(chain, package(name), case, lambda t, width=width: part(t, -1, width))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", SHAPED)
def test_a_part_of_an_image(name: str, device: str, shaped_packages: Path) -> None:
    """Gaps after each row, matrix or channel, whatever the layout; halves have gaps of their own."""
    chain, package = derive(CHAINS / f"{name}.yaml"), load(name, shaped_packages)
    shape = doubled(chain, SHAPES[chain.layout.rank or 2])
    case = verify.make_case(chain, shape, training=False, device=device)
    halved, first = (dim + len(shape) for dim in (chain.layout.halved, chain.layout.first))
    for dim in range(1, len(shape)):
        copies = dim != halved if chain.layout.halved else dim > first
        compare(chain, package, case, lambda t, dim=dim: part(t, dim), copies=copies)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "name", ["conv2d_channel_softmax_sigmoid", "conv2d_glu_channel_softmax", "conv2d_min_tanh_tanh"]
)
def test_a_part_of_a_channels_last_image(name: str, device: str, shaped_packages: Path) -> None:
    """A gap after the channels of each pixel; results have none."""
    chain, package = derive(CHAINS / f"{name}.yaml"), load(name, shaped_packages)
    case = verify.make_case(chain, doubled(chain, SHAPES[4]), training=False, device=device)
    for lying in (
        channels_last,
        lambda t: part(channels_last(t).movedim(1, -1), -1).movedim(-1, 1),
    ):
        out, gradient, *_ = compare(chain, package, case, lying)
        assert gradient.stride() == channels_last(case.x).stride()
        if out.dim() == 4:
            assert out.stride() == channels_last(out).stride()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["temperature_softmax", "gated_rms_norm", "swish_tanh_mish"])
def test_the_heads_of_a_projection(
    name: str, device: str, package: Package, derived: Callable[[str], Chain]
) -> None:
    """The queries of [batch, length, 3 heads width]: `heads` rows follow one another. With heads before the
    length, the rows are read in their own order, a gap for each dim."""
    chain = derived(name)
    case = verify.make_case(chain, (2, 5, 4, 32), training=False, device=device)

    def chunk(tensor: Tensor) -> Tensor:
        return part(tensor.flatten(2), -1, 256).unflatten(-1, tensor.shape[2:])

    assert not chunk(case.x).is_contiguous()
    compare(chain, package(name), case, chunk)
    case = verify.make_case(chain, (2, 4, 5, 32), training=False, device=device)
    compare(chain, package(name), case, lambda t: chunk(t.transpose(1, 2)).transpose(1, 2))


@pytest.mark.parametrize("device", DEVICES)
def test_an_expanded_operand(device: str, package: Package) -> None:
    """Rows that serve again, as a residual for each of a batch, are read where they are."""
    x = torch.randn(4, 6, 32, dtype=torch.float64, device=device)
    residual = torch.randn(6, 32, dtype=torch.float64, device=device)
    apply = package("residual_add_gelu").apply
    with torch.profiler.profile() as profile:
        found = apply(x, residual.expand_as(x))
    assert not copied(profile)
    torch.testing.assert_close(found, F.gelu(x + residual, approximate="tanh"))
    one = x[:1].expand_as(x)
    torch.testing.assert_close(apply(one, x), F.gelu(one + x, approximate="tanh"))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(
    "shape",
    [(4, 1, 6, 32), (1, 5, 1, 32), (5, 1, 32), (4, 1, 1, 32), (6, 32), (4, 5, 1, 32)],
    ids=str,
)
def test_an_operand_of_any_dims(shape: tuple[int, ...], device: str, package: Package) -> None:
    """What is broadcast along dims in the middle serves again after a gap, and is not copied either."""
    x = torch.randn(4, 5, 6, 32, dtype=torch.float64, device=device)
    wide = torch.randn(*shape[:-1], 96, dtype=torch.float64, device=device)
    apply = package("residual_add_gelu").apply
    for residual in (wide[..., :32].contiguous(), wide.chunk(3, -1)[1]):
        for lying in (x, x.transpose(1, 2).contiguous().transpose(1, 2)):
            with torch.profiler.profile() as profile:
                found = apply(lying, residual.expand_as(x))
            assert not copied(profile)
            torch.testing.assert_close(found, F.gelu(x + residual, approximate="tanh"))
            assert found.stride() == lying.stride()


@pytest.mark.parametrize("device", DEVICES)
def test_operands_in_another_order(device: str, package: Package) -> None:
    """Any order of the dims before the row, on either side; results lie as x does."""
    x = torch.randn(4, 5, 6, 32, dtype=torch.float64, device=device)
    apply = package("residual_add_gelu").apply
    orders = [(0, 1, 2), (1, 0, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1), (0, 2, 1)]
    for first in orders:
        for second in orders:
            one, other = (
                x.permute(*o, 3).contiguous().permute(*(o.index(n) for n in range(3)), 3)
                for o in (first, second)
            )
            with torch.profiler.profile() as profile:
                found = apply(one, other)
            assert not copied(profile)
            torch.testing.assert_close(found, F.gelu(2 * x, approximate="tanh"))
            assert found.stride() == one.stride()


@pytest.mark.parametrize("device", DEVICES)
def test_a_gate_and_its_value_from_one_projection(device: str, package: Package) -> None:
    """Two chunks, of which each has gaps where the other is, and runs of another length in a third tensor."""
    both = torch.randn(7, 3, 128, dtype=torch.float64, device=device)
    value, gate = both.chunk(2, -1)
    apply = package("residual_add_gelu").apply
    torch.testing.assert_close(apply(value, gate), F.gelu(value + gate, approximate="tanh"))
    late = torch.randn(7, 5, 64, dtype=torch.float64, device=device)[:, 2:]
    torch.testing.assert_close(apply(value, late), F.gelu(value + late, approximate="tanh"))
    torch.testing.assert_close(apply(late, gate), F.gelu(late + gate, approximate="tanh"))


@pytest.mark.parametrize("name", ["residual_add_gelu", "matmul_swish_scale", "temperature_softmax"])
def test_fake_results_lie_as_real_ones(
    name: str, package: Package, derived: Callable[[str], Chain]
) -> None:
    x = torch.randn(4, 40) if derived(name).layout.rank else torch.randn(4, 3, 6, 40)
    others = [x, *(part(x, d) for d in range(x.dim())), x[..., ::2], x[:1].expand_as(x)]
    others += [t.movedim(1, 0) for t in others] + [t.movedim(-1, 1) for t in others]
    operands = [o.kind.label for o in derived(name).operands]
    for x in others:
        given = [x if kind == "full" else torch.randn(40)[: x.shape[-1]] for kind in operands]
        real = package(name).apply(x, *given)
        with FakeTensorMode() as fake:
            imagined = package(name).apply(*(fake.from_tensor(t) for t in (x, *given)))
        assert imagined.stride() == real.stride(), (x.shape, x.stride())
